"""The command line as a person uses it: real processes, each with a timeout."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.broker.scans import BACKGROUND, XRAY, RawScan

PROJECT = Path(__file__).resolve().parents[2]
THRESHOLDS = ("--background", str(BACKGROUND), "--xray", str(XRAY))


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The one JSON object that is all of stdout."""
        summary: dict[str, Any] = json.loads(self.stdout)
        return summary

    @property
    def file(self) -> Path:
        """The file that a run made."""
        return Path(self.summary["output"])


class Service:
    """A service that a test started by hand."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def answer(self, path: str) -> tuple[int, str]:
        return get(self.port, path)

    def metric(self, name: str, **labels: str) -> float:
        return metric(self.port, name, **labels)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.answer("/readyz")[0] == 200, 60, f"readiness of {self.log.stem}: {self.log}")

    def stop(self) -> int:
        """Ask it to end; its exit code. A service that takes longer than 10 s has failed."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


class CommandLine:
    """``stemstream`` with its own home; with the environment's STEMSTREAM settings left out."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if name == "STEMSTREAM_KAFKA_LIBS"}
        others = {name: value for name, value in os.environ.items() if not name.startswith("STEMSTREAM_")}
        # Wide enough that no table is folded.
        self._environment = others | kept | {"STEMSTREAM_HOME": str(home), "COLUMNS": "250"}
        self._started: list[subprocess.Popen[str]] = []
        self._services = 0

    def __call__(self, *arguments: object, timeout_s: float = 60) -> Ended:
        """Run a command to its end."""
        return finish(self.start(*arguments), timeout_s)

    def run(self, scan: RawScan, output: Path, *options: object, timeout_s: float = 150) -> Ended:
        """Run ``stemstream run --json`` with the usual thresholds."""
        return finish(self.start_run(scan, output, *options), timeout_s)

    def start_run(self, scan: RawScan, output: Path, *options: object) -> subprocess.Popen[str]:
        return self.start("run", scan.folder, "--output", output, *THRESHOLDS, "--json", *options)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a shell does, so that it can be sent a Ctrl-C."""
        return self._popen(arguments, subprocess.PIPE, subprocess.PIPE)

    def serve(self, *arguments: object) -> Service:
        """Start a service by hand, with a metrics port and a log file."""
        self._services += 1
        self.home.mkdir(parents=True, exist_ok=True)
        log_file, port = self.home / f"{arguments[0]}-by-hand-{self._services}.log", free_port()
        with log_file.open("wb") as log:
            process = self._popen((*arguments, "--metrics-port", port), log, subprocess.STDOUT)
        return Service(process, port, log_file)

    def end_all(self) -> None:
        """End by force what is still there. What these processes started ends with them."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self._started.clear()

    def _popen(self, arguments: tuple[object, ...], stdout: Any, stderr: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        process = subprocess.Popen(
            [sys.executable, "-m", "stemstream", *map(str, arguments)],
            cwd=PROJECT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process


def finish(process: subprocess.Popen[str], timeout_s: float) -> Ended:
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"{process.args!r} did not end within {timeout_s} s; stderr: {stderr}") from None
    return Ended(process.returncode, stdout, stderr)


def child_of(process: subprocess.Popen[str], command: str, timeout_s: float = 60) -> psutil.Process:
    """The child of a run that serves as ``count``, ``sink`` or ``receive``, as soon as it is there."""
    found: list[psutil.Process] = []

    def look() -> bool:
        assert process.poll() is None, f"the run ended with exit code {process.returncode}"
        found.extend(child for child in psutil.Process(process.pid).children() if command in command_line(child))
        return bool(found)

    wait_until(look, timeout_s, f"a child that serves as {command}")
    return found[0]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def metrics_port(process: psutil.Process) -> int:
    arguments = process.cmdline()
    return int(arguments[arguments.index("--metrics-port") + 1])


def metric(port: int, name: str, **labels: str) -> float:
    """Sum of a metric's samples that have these labels; 0 while the process does not answer."""
    status, page = get(port, "/metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(page if status == 200 else "")
        for sample in family.samples
        if sample.name == f"stemstream_{name}" and labels.items() <= sample.labels.items()
    )


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer; status 0 without an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
