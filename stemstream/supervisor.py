"""Child processes that are watched: started with a log file, restarted when they die, ended together."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families

from service.children import dying_with_parent
from service.errors import FaultError, InputError, StemstreamError
from service.logs import get_logger

STOP_TIMEOUT_S = 10.0
# A child that died more often within the window has failed.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0
FIRST_BACKOFF_S = 0.2
SLOW_RETRY_S = 30.0
MAX_LOG_BYTES = 16 * 2**20

State = Literal["starting", "ready", "restarting", "failed", "stopped"]


@dataclass(slots=True)
class Restarts:
    """When to start again what died: soon, then later and later, and after many deaths at a slow pace."""

    start_at: float = 0.0
    too_many: bool = False  # until it was ready again
    _deaths: deque[float] = field(default_factory=deque)

    def died(self) -> None:
        """Take note of a death now."""
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - RESTART_WINDOW_S:
            self._deaths.popleft()
        self.too_many = self.too_many or len(self._deaths) > MAX_RESTARTS
        self.start_at = now + (SLOW_RETRY_S if self.too_many else FIRST_BACKOFF_S * 2 ** (len(self._deaths) - 1))

    @property
    def deaths(self) -> int:
        """Number of deaths lately."""
        return len(self._deaths)

    def due(self) -> bool:
        """Whether it is time for the next start."""
        return time.monotonic() >= self.start_at


@dataclass(slots=True)
class Child:
    """One process of a service. ``arguments`` are those of the ``stemstream`` command.

    Attributes
    ----------
    once
        It ends by itself with exit code 0.
    metrics_port
        Of the process that runs now.
    wanted_metrics_port
        Used if it is free; 0: any free one; None: it has no metrics.
    done
        Ended, and not started again.
    error
        Why it has failed: with wrong settings or input, or after many deaths. Empty once it is ready again.
    """

    service: str
    index: int
    arguments: list[str]
    log_file: Path
    once: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    wanted_metrics_port: int | None = 0
    metrics_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    done: bool = False
    error: str = ""
    restarts: Restarts = field(default_factory=Restarts)
    log_start: int = 0

    @property
    def name(self) -> str:
        """Service and index, as in the name of the log file."""
        return f"{self.service}-{self.index}"

    @property
    def state(self) -> State:
        """How it is now, as far as is known here."""
        if self.error:
            return "failed"
        if self.done:
            return "stopped"
        if self.process is None:
            return "restarting"
        return "ready" if self.ready else "starting"

    def last_error(self) -> str:
        """The last line that the process wrote for a person."""
        with contextlib.suppress(FileNotFoundError), self.log_file.open("rb") as log:
            log.seek(self.log_start)
            lines = log.read(MAX_LOG_BYTES).decode(errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            if errors:
                return errors[-1]
        return f"see {self.log_file}"


class Supervisor:
    """Starts, watches and ends children. All ends are seen in :meth:`check`, which is to be called often.

    With ``give_up`` it raises an error for a child that has failed. Without it, a child that ended because of wrong
    settings or input is left alone, one that died again and again is tried again at a slow pace, and both are
    ``failed`` meanwhile.
    """

    def __init__(self, log_folder: Path) -> None:
        self.children: list[Child] = []
        self.environment: dict[str, str] = {}  # for all children
        self.give_up = True
        self._log_folder = log_folder

    def __enter__(self) -> Supervisor:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self,
        service: str,
        index: int,
        arguments: list[str],
        *,
        once: bool = False,
        environment: dict[str, str] | None = None,
        metrics_port: int | None = 0,
    ) -> Child:
        """Start one process of a service: ``stemstream`` with these arguments and a metrics port, see `Child`."""
        log_file = self._log_folder / f"{service}-{index}.log"
        child = Child(service, index, arguments, log_file, once, environment or {}, metrics_port)
        self.children.append(child)
        self._launch(child)
        return child

    def check(self) -> None:
        """Restart children that died, after a pause.

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
                if child.restarts.due():
                    self._launch(child)
                continue
            code = child.process.poll()
            if code is not None:
                self._ended(child, code)

    def ask_ready(self) -> None:
        """Ask the children that run whether they can do their work."""
        for child in self.children:
            child.ready = child.process is not None and is_ready(child.metrics_port)
            if child.ready:
                child.error, child.restarts.too_many = "", False

    def stop(self, children: Iterable[Child] | None = None) -> None:
        """Ask children (all, unless some are named) to end, wait, and end by force those that do not."""
        ending = list(self.children if children is None else children)
        for child in ending:
            child.done, child.ready = True, False
        running = [c.process for c in ending if c.process is not None and c.process.poll() is None]
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
        command = [sys.executable, "-m", "stemstream", *child.arguments]
        if child.wanted_metrics_port is not None:
            child.metrics_port = self._free_metrics_port(child)
            command += ["--metrics-port", str(child.metrics_port)]
        child.log_start = _roll(child.log_file)
        with child.log_file.open("ab") as log:
            child.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C is for the supervisor, which stops its children in their order
                preexec_fn=dying_with_parent(),  # noqa: PLW1509  # it only makes a few system calls
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | child.environment | self.environment,
            )

    def _free_metrics_port(self, child: Child) -> int:
        """The port that the child wants, unless another program or another child has it."""
        others = {other.metrics_port for other in self.children if other is not child}
        wanted = child.wanted_metrics_port
        return wanted if wanted and wanted not in others and is_free(wanted) else free_port()

    def _ended(self, child: Child, code: int) -> None:
        child.process, child.ready = None, False
        if code == 0 and child.once:
            child.done = True
            return
        if code == InputError.exit_code:
            child.done = True
            self._failed(child, InputError(child.last_error()))
            return
        child.restarts.died()
        get_logger().warning("a process died", name=child.name, exit_code=code)
        if child.restarts.too_many:
            self._failed(child, FaultError(f"{child.name} died {child.restarts.deaths} times: {child.last_error()}"))

    def _failed(self, child: Child, error: StemstreamError) -> None:
        if self.give_up:
            raise error
        child.error = str(error)
        get_logger().error("a process has failed", name=child.name, reason=child.error)


def _roll(log_file: Path) -> int:
    """Put a log aside that has become large; the size of what is there."""
    size = log_file.stat().st_size if log_file.exists() else 0
    if size < MAX_LOG_BYTES:
        return size
    log_file.replace(log_file.with_suffix(".log.1"))
    return 0


def is_free(port: int) -> bool:
    """Whether a service can listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As the services do: a port that only waits for its last packets (TIME_WAIT) is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port on the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(metrics_port: int) -> bool:
    """Whether the process with this metrics port says on ``/readyz`` that it can do its work."""
    return _get(metrics_port, "/readyz") is not None


def metric_samples(metrics_port: int) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of a process's metrics now; nothing while it does not answer."""
    page = _get(metrics_port, "/metrics")
    for family in text_string_to_metric_families(page or ""):
        for sample in family.samples:
            yield sample.name, sample.labels, float(sample.value)


def _get(metrics_port: int, path: str) -> str | None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is not behind a proxy
    try:
        with direct.open(f"http://127.0.0.1:{metrics_port}{path}", timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return None
