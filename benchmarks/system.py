"""The system under test: the services of ``stemstream up``, warm, driven by the command line."""

import json
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.accounting import CpuMeter, Processes, forget_peaks, peak_megabytes
from benchmarks.command_line import CommandError, command, stemstream
from benchmarks.machine import ROOT
from benchmarks.raw_scans import FRAME_BYTES
from benchmarks.workloads import XRAY
from service.catalogue import Count, Scan
from service.scan_log import ScanLog
from topics.geometry import SECTORS
from topics.scan_log import LIVE, CountFinished

FILE_TIMEOUT_S = 900.0
LOOK_INTERVAL_S = 0.01
LOG_INTERVAL_S = 0.1
WITHOUT_RECEIVER = "services-without-receiver.yml"


@dataclass(frozen=True)
class Finished:
    """A scan whose file is there."""

    scan: Scan
    count: Count
    finished: CountFinished

    @property
    def complete(self) -> bool:
        return self.finished.account.verdict == "complete"

    @property
    def raw_gigabytes(self) -> float:
        return self.finished.account.frames_complete * FRAME_BYTES / 1e9

    @property
    def seconds(self) -> float:
        """From the first frame at a receiver to the file under its final name."""
        first_ns = min(s.ledger.first_frame_ns for s in self.finished.account.sectors if s.ledger)
        return (self.finished.finished_ns - first_ns) / 1e9

    @property
    def latency_seconds(self) -> float:
        """From the last frame published to the file under its final name."""
        last_ns = max(s.ledger.last_published_ns for s in self.finished.account.sectors if s.ledger)
        return (self.finished.finished_ns - last_ns) / 1e9

    def figures(self) -> dict[str, float]:
        account = self.finished.account
        return {
            "seconds": self.seconds,
            "frames_per_second": account.frames_complete / self.seconds,
            "megabytes_per_second": 1e3 * self.raw_gigabytes / self.seconds,
            "latency_seconds": self.latency_seconds,
            "compression_ratio": account.raw_bytes / account.compressed_bytes,
            "electrons_per_frame": account.electrons / account.frames_complete,
        }


class System:
    """Services that are up. ``processes`` has them by name: kafka, counter-0, sink-0 … and their supervisor."""

    def __init__(self, home: Path, output: Path, environment: dict[str, str]) -> None:
        self.environment, self.output, self.home = environment, output, home
        self.processes: Processes = self._find_processes()
        state = json.loads((home / "up.json").read_text(encoding="utf-8"))
        self.bootstrap: str = state["bootstrap"]
        self._log = ScanLog(self.bootstrap)
        self._seen = set(self._log.catch_up().scans)

    def _find_processes(self) -> dict[str, psutil.Process]:
        status: list[dict[str, Any]] = json.loads(stemstream("status", "--json", environment=self.environment))
        services = {
            "kafka" if each["service"] == "kafka" else f"{each['service']}-{each['index']}": psutil.Process(each["pid"])
            for each in status
        }
        supervisor = next(process.parent() for name, process in services.items() if name != "kafka")
        assert supervisor is not None
        return {**services, "supervisor": supervisor}

    def close(self) -> None:
        self._log.close()
        stemstream("down", environment=self.environment)

    def count_files(self, raw: Path, *receiver_options: str) -> dict[str, Any]:
        """Stream raw files by a receiver of their own; figures of the scan, CPU seconds per raw GB by process."""
        sectors = [word for sector in range(SECTORS) for word in ("--sector", str(sector))]
        forget_peaks(self.processes.values())
        meter = CpuMeter(self.processes)
        with (self.home / "receiver.log").open("ab") as log:
            receiver = subprocess.Popen(
                command("receive", *sectors, "--from", raw, *receiver_options),
                cwd=ROOT,
                env=self.environment | {"STEMSTREAM_BOOTSTRAP": self.bootstrap},
                stdout=log,
                stderr=log,
            )
        try:
            finished = self.wait_for_file(receiver.pid)
        except BaseException:
            receiver.kill()
            raise
        finally:
            used = wait_for_usage(receiver)
        seconds = {"receiver": used.ru_utime + used.ru_stime, **meter.seconds()}
        peaks = {"receiver": used.ru_maxrss * 1024 / 1e6, **peak_megabytes(self.processes)}
        if not finished.complete:  # nothing may be lost of raw files
            raise CommandError(f"scan {finished.scan.ordinal} is incomplete: {finished.finished.account}")
        return self.described(finished, seconds, peaks)

    def wait_for_file(self, sender: int) -> Finished:
        """Wait for the file of the next scan, as a person would: by looking into the folder. ``sender``: process id."""
        known = set(self.output.rglob("*.h5"))
        deadline = time.monotonic() + FILE_TIMEOUT_S
        while not set(self.output.rglob("*.h5")) - known:
            self._check(sender)
            if time.monotonic() > deadline:
                raise CommandError(f"no file after {FILE_TIMEOUT_S:.0f} s; see {self.home}")
            time.sleep(LOOK_INTERVAL_S)
        return self.new_scans(1, sender)[0]

    def new_scans(self, number: int, sender: int) -> list[Finished]:
        """Wait until the log says that so many more scans are finished, and return them."""
        deadline = time.monotonic() + number * FILE_TIMEOUT_S
        while True:
            self._check(sender)
            scans = [scan for ordinal, scan in self._log.catch_up().scans.items() if ordinal not in self._seen]
            found = [
                Finished(scan, count, count.finished)
                for scan in scans
                if (count := scan.counts.get(LIVE)) is not None and count.finished is not None
            ]
            if len(found) >= number:
                self._seen.update(each.scan.ordinal for each in found)
                return found
            if time.monotonic() > deadline:
                raise CommandError(f"{len(found)} of {number} scans are finished; see {self.home}")
            time.sleep(LOG_INTERVAL_S)

    def _check(self, sender: int) -> None:
        """Refuse to wait for a scan whose sender failed. Whoever asks what it used collects it, not this."""
        ended = os.waitid(os.P_PID, sender, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and ended.si_status != 0:
            raise CommandError(f"what sends the scan ended with {ended.si_status}; see {self.home}")

    def start_sender(self, *words: object) -> subprocess.Popen[bytes]:
        """Start ``stemstream`` to send to the receiver that is up."""
        addresses = ["--to", self.environment["STEMSTREAM_FROM"], "--ready", self.environment["STEMSTREAM_READY"]]
        with (self.home / "sender.log").open("ab") as log:
            return subprocess.Popen(command(*words, *addresses), cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    @staticmethod
    def described(finished: Finished, seconds: dict[str, float], peaks: dict[str, float]) -> dict[str, Any]:
        """Figures of a run; ``complete`` says whether no frame was lost."""
        per_gb = {name: used / finished.raw_gigabytes for name, used in seconds.items()}
        return {
            "complete": finished.complete,
            **finished.figures(),
            "cpu_seconds_per_gb": {**per_gb, "total": sum(per_gb.values())},
            "peak_megabytes": peaks,
        }


def wait_for_usage(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Wait for the end of a child and return what it used."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used


@contextmanager
def services_up(scratch: Path, background: float, *, live: bool = False, floor: int | None = None) -> Iterator[System]:
    """Start the services in a home of their own, without a live receiver unless ``live``; stop and forget them.

    ``floor``: what the live receiver suppresses, in counts.

    Raises
    ------
    CommandError
        They do not start; what they said is in it.
    """
    home, output = _empty(scratch / "home"), _empty(scratch / "counted")
    environment = _environment(home)
    options = ["--output", output, "--background", background, "--xray", XRAY, "--detach"]
    options += ["--zero-suppress", floor] if floor is not None else []
    if live:
        port = _free_ports(SECTORS)
        environment["STEMSTREAM_FROM"] = f"tcp://127.0.0.1:{port}"
        environment["STEMSTREAM_READY"] = f"tcp://127.0.0.1:{_free_ports(1)}"
    else:
        options += ["--file", _without_receiver(home / WITHOUT_RECEIVER)]
    stemstream("up", *options, environment=environment)
    try:
        system = System(home, output, environment)
        try:
            yield system
        finally:
            system.close()
    finally:
        stemstream("down", environment=environment)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)


@dataclass(frozen=True)
class Broker:
    """The embedded broker alone."""

    bootstrap: str
    process: psutil.Process


@contextmanager
def broker_up(scratch: Path) -> Iterator[Broker]:
    """Start the embedded broker in a home of its own; stop and forget it."""
    home = _empty(scratch / "home")
    environment = _environment(home)
    try:
        stemstream("broker", "start", environment=environment)
        state = json.loads(stemstream("broker", "status", "--json", environment=environment))
        yield Broker(state["bootstrap"], psutil.Process(state["pid"]))
    finally:
        stemstream("broker", "stop", environment=environment)
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    """Variables for commands with a home of their own; of the shell's settings only where Kafka's jars are."""
    others = {name: text for name, text in os.environ.items() if not name.startswith("STEMSTREAM_")}
    libs = {name: text for name, text in os.environ.items() if name == "STEMSTREAM_KAFKA_LIBS"}
    return others | libs | {"STEMSTREAM_HOME": str(home)}


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def another_counter(system: System, background: float) -> Iterator[None]:
    """A second counter beside the one that is up, for as long as the context is open."""
    port = _free_ports(1)
    options = ["--background", background, "--xray", XRAY, "--slot", "1", "--metrics-port", port]
    with (system.home / "counter-1.log").open("ab") as log:
        counter = subprocess.Popen(
            command("count", *options),
            cwd=ROOT,
            env=system.environment | {"STEMSTREAM_BOOTSTRAP": system.bootstrap},
            stdout=log,
            stderr=log,
        )
    before = system.processes
    try:
        _wait_until_ready(port)
        system.processes = {**before, "counter-1": psutil.Process(counter.pid)}
        yield
    finally:
        system.processes = before
        counter.terminate()
        counter.wait()


def _wait_until_ready(port: int) -> None:
    from stemstream.supervisor import is_ready  # noqa: PLC0415

    deadline = time.monotonic() + 60
    while not is_ready(port):
        if time.monotonic() > deadline:
            raise CommandError("a second counter is not ready after 60 s")
        time.sleep(0.1)


def _without_receiver(path: Path) -> Path:
    """The list of services but for the live receiver: raw files come by receivers of their own."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    del services["services"]["receiver"]
    path.write_text(yaml.safe_dump(services), encoding="utf-8")
    return path


def _free_ports(number: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        if first + number <= 2**16 and all(map(_is_free, range(first, first + number))):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
