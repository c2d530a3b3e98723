"""What is left of services whose supervisor is gone: found by process id and time of start, and ended."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stemstream import up_state
from stemstream.up_state import ServiceStatus, UpState, down, present_services, read_state, write_state

HANGS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


@pytest.fixture
def hanging() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not end when it is asked to."""
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def service(pid: int, create_time: float) -> ServiceStatus:
    return ServiceStatus("counter", 0, pid, create_time, "ready", 1, Path("counter-0.log"))


def state_of(*services: ServiceStatus, supervisor: tuple[int, float] = (2**22 + 1, 0.0)) -> UpState:
    pid, create_time = supervisor
    return UpState(pid, create_time, "127.0.0.1:9", True, {}, [], list(services))


def test_down_ends_by_force_what_a_dead_supervisor_left(
    tmp_path: Path, hanging: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up_state, "STOP_TIMEOUT_S", 0.2)
    write_state(tmp_path, state_of(service(hanging.pid, psutil.Process(hanging.pid).create_time())))
    said: list[str] = []

    assert down(tmp_path, said.append)

    assert hanging.wait(1) in (-signal.SIGKILL, 0)  # 0: somebody else has asked how it ended
    assert "was gone" in said[0]
    assert read_state(tmp_path) is None
    assert not down(tmp_path, said.append)


def test_down_leaves_a_process_alone_that_only_has_the_old_process_id(
    tmp_path: Path, hanging: subprocess.Popen[bytes]
) -> None:
    started = psutil.Process(hanging.pid).create_time()
    write_state(tmp_path, state_of(service(hanging.pid, started - 3600), supervisor=(hanging.pid, started - 3600)))

    assert down(tmp_path, lambda line: None)

    assert hanging.poll() is None


def test_without_a_supervisor_all_services_are_stopped(hanging: subprocess.Popen[bytes]) -> None:
    state = state_of(service(hanging.pid, psutil.Process(hanging.pid).create_time()), service(2**22 + 2, 0.0))
    assert [(s.pid, s.state) for s in present_services(state)] == [(hanging.pid, "stopped"), (None, "stopped")]


def test_a_service_that_died_since_the_supervisor_looked_is_restarting() -> None:
    itself = psutil.Process()
    state = state_of(service(2**22 + 2, time.time()), supervisor=(itself.pid, itself.create_time()))
    assert [(s.pid, s.state) for s in present_services(state)] == [(None, "restarting")]


def test_a_damaged_state_file_means_that_nothing_is_up(tmp_path: Path) -> None:
    up_state.state_file(tmp_path).write_text('{"pid": 1')
    assert read_state(tmp_path) is None
