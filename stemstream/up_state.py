"""What ``stemstream up`` has running, as its supervisor wrote it down in ``<home>/up.json``; and the end of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from service.errors import FaultError
from stemstream import broker, processes
from stemstream.supervisor import STOP_TIMEOUT_S, State, is_ready

BROKER_STOP_TIMEOUT_S = 30.0
# Receivers, counters, sink and further services one after the other, then the broker.
SUPERVISOR_STOP_TIMEOUT_S = 6 * STOP_TIMEOUT_S + BROKER_STOP_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process of a service.

    Attributes
    ----------
    service, index
        Name as in docker-compose.yml, and which of its processes.
    pid, create_time
        Process id, and when that process began in seconds since 1970; None while there is none.
    state
        ``starting``: runs, but cannot do its work yet. ``ready``. ``restarting``: died, is started again soon.
        ``failed``: ended because of wrong settings or input, or died again and again; ``error`` says why. ``stopped``.
    metrics_port
        Port of /metrics, /healthz and /readyz; None: it has none.
    log_file
        What it writes.
    error
        Why it has failed, else None.
    """

    service: str
    index: int
    pid: int | None
    create_time: float | None
    state: State
    metrics_port: int | None
    log_file: Path
    error: str | None = None

    @property
    def name(self) -> str:
        """Service and index, as in the name of the log file."""
        return f"{self.service}-{self.index}"

    def process(self) -> psutil.Process | None:
        """Return its process, if that is there."""
        return processes.find(self.pid, self.create_time) if self.pid and self.create_time else None


@dataclass(frozen=True, slots=True)
class UpState:
    """What is up.

    Attributes
    ----------
    pid, create_time
        The supervisor's process.
    bootstrap
        Address of the broker that the services use; empty until it answers.
    started
        All services were ready once.
    variables
        What the variables of docker-compose.yml stand for.
    left_out
        Services of that file that are not run: without a native form, or the broker when another one is used.
    services
        One entry a process.
    """

    pid: int
    create_time: float
    bootstrap: str
    started: bool
    variables: dict[str, str]
    left_out: list[str]
    services: list[ServiceStatus]

    def supervisor(self) -> psutil.Process | None:
        """Return the supervisor's process, if that is there."""
        return processes.find(self.pid, self.create_time)


_STATE: TypeAdapter[UpState] = TypeAdapter(UpState)


def state_file(home: Path) -> Path:
    """Return the file with the state; it is there from the beginning of ``up`` to the end of ``down``."""
    return home / "up.json"


def write_state(home: Path, state: UpState) -> None:
    """Write the state so that a reader sees all of it or the one before."""
    partial = home / "up.json.partial"
    partial.write_bytes(_STATE.dump_json(state, indent=2))
    partial.replace(state_file(home))


def read_state(home: Path) -> UpState | None:
    """Return what is up, or what was when the supervisor died; None if nothing is."""
    try:
        return _STATE.validate_json(state_file(home).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def present_services(state: UpState) -> list[ServiceStatus]:
    """How the services are right now: the supervisor looks every half second only."""
    if state.supervisor() is None:
        return [replace(_present(service), state="stopped") for service in state.services]
    return [_present(service) for service in state.services]


def _present(service: ServiceStatus) -> ServiceStatus:
    if service.pid is not None and service.process() is None:
        return replace(service, pid=None, state="failed" if service.error else "restarting")
    if service.metrics_port is not None and service.state in ("starting", "ready"):
        return replace(service, state="ready" if is_ready(service.metrics_port) else "starting")
    return service


def down(home: Path, say: Callable[[str], None]) -> bool:
    """Stop all that is up: receivers first, the broker last. Returns whether something was up.

    Raises
    ------
    FaultError
        A process is there even after SIGKILL.
    """
    state = read_state(home)
    if state is None:
        return False
    supervisor = state.supervisor()
    if supervisor is None:
        say(f"the supervisor (process {state.pid}) was gone; cleaning up what it left")
    else:
        _end([supervisor], SUPERVISOR_STOP_TIMEOUT_S)
        left = read_state(home)
        if left is None or left.pid != state.pid:
            return True  # it stopped everything and cleaned up itself
        state = left
    end_leftovers(home, state)
    return True


def end_leftovers(home: Path, state: UpState) -> None:
    """End what a supervisor that is gone left running, and forget it.

    Its children were sent SIGTERM by Linux when it ended; this waits for them.
    """
    embedded = broker.status(home)
    left = [process for service in state.services if (process := service.process())]
    _end((process for process in left if embedded is None or process.pid != embedded.pid), STOP_TIMEOUT_S)
    if embedded is not None and embedded.owner_pid == state.pid:
        broker.stop(home, BROKER_STOP_TIMEOUT_S)
    state_file(home).unlink(missing_ok=True)


def _end(ending: Iterable[psutil.Process], timeout_s: float) -> None:
    left = processes.end(ending, timeout_s)
    if left:
        listed = ", ".join(str(process.pid) for process in left)
        raise FaultError(f"processes are still there after SIGKILL: {listed}")
