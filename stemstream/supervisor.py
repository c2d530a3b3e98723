"""Child processes that are watched: started with a log file, restarted when they die, ended together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from prometheus_client.parser import text_string_to_metric_families

from service.children import die_with_parent
from service.errors import FaultError, InputError
from service.logs import get_logger

STOP_TIMEOUT_S = 10.0
# A child that died this often within the window is given up.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0
FIRST_BACKOFF_S = 0.2


@dataclass(slots=True)
class Child:
    """One process of a service. ``arguments`` are those of the ``stemstream`` command."""

    service: str
    index: int
    arguments: list[str]
    log_file: Path
    once: bool = False  # ends by itself with exit code 0
    metrics_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    done: bool = False
    restarts: deque[float] = field(default_factory=deque)
    start_at: float = 0.0

    @property
    def name(self) -> str:
        """Service and index, as in the name of the log file."""
        return f"{self.service}-{self.index}"

    def last_error(self) -> str:
        """The last line that the process wrote for a person."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors[-1] if errors else f"see {self.log_file}"


class Supervisor:
    """Starts, watches and ends children. All ends are seen in :meth:`check`, which is to be called often."""

    def __init__(self, log_folder: Path) -> None:
        self.children: list[Child] = []
        self._log_folder = log_folder

    def __enter__(self) -> Supervisor:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, service: str, index: int, arguments: list[str], *, once: bool = False) -> Child:
        """Start one process of a service: ``stemstream`` with these arguments and a metrics port."""
        log_file = self._log_folder / f"{service}-{index}.log"
        child = Child(service, index, arguments, log_file, once, free_port())
        self.children.append(child)
        self._launch(child)
        return child

    def check(self) -> None:
        """Restart children that died.

        Raises
        ------
        InputError
            One ended because of wrong settings or input: a restart would not help.
        FaultError
            One died again and again.
        """
        for child in self.children:
            if child.done:
                continue
            if child.process is None:
                if time.monotonic() >= child.start_at:
                    self._launch(child)
                continue
            code = child.process.poll()
            if code is not None:
                self._ended(child, code)

    def stop(self) -> None:
        """Ask all children to end, wait, and end by force those that do not."""
        running = [c.process for c in self.children if c.process is not None and c.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                get_logger().warning("a process did not end in time and was killed", pid=process.pid)
                process.kill()
                process.wait()

    def _launch(self, child: Child) -> None:
        command = [sys.executable, "-m", "stemstream", *child.arguments, "--metrics-port", str(child.metrics_port)]
        with child.log_file.open("ab") as log:
            child.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # it only makes one system call
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def _ended(self, child: Child, code: int) -> None:
        if code == 0 and child.once:
            child.done = True
            return
        if code == InputError.exit_code:
            raise InputError(child.last_error())
        now = time.monotonic()
        child.restarts.append(now)
        while child.restarts[0] < now - RESTART_WINDOW_S:
            child.restarts.popleft()
        if len(child.restarts) > MAX_RESTARTS:
            raise FaultError(f"{child.name} died {len(child.restarts)} times: {child.last_error()}")
        get_logger().warning("restarting a process that died", name=child.name, exit_code=code)
        child.process = None
        child.start_at = now + FIRST_BACKOFF_S * 2 ** (len(child.restarts) - 1)


def free_port() -> int:
    """A port on the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(child: Child) -> bool:
    """Whether the child says on ``/readyz`` that it can do its work."""
    return _get(child, "/readyz") is not None


def metric_samples(child: Child) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of the child's metrics now; nothing while it does not answer."""
    page = _get(child, "/metrics")
    for family in text_string_to_metric_families(page or ""):
        for sample in family.samples:
            yield sample.name, sample.labels, float(sample.value)


def _get(child: Child, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{child.metrics_port}{path}", timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, urllib.error.HTTPError):
        return None
