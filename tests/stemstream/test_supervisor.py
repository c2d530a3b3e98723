"""The supervisor with real processes: one that fails at once, one whose settings are wrong, one that ends well."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import FaultError, InputError
from stemstream import supervisor as supervisor_module
from stemstream.supervisor import Child, Restarts, Supervisor, free_port

DIES = ["broker", "status"]
ENDS_WELL = ["topics", "--help"]
WRONG = ["count", "--bootstrap", "127.0.0.1:9"]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setenv("STEMSTREAM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STEMSTREAM_BACKGROUND", raising=False)
    monkeypatch.setattr(supervisor_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(supervisor_module, "MAX_RESTARTS", 1)
    with Supervisor(tmp_path / "logs") as supervisor:
        yield supervisor


def check_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, [(child.name, child.state) for child in supervisor.children]
        supervisor.check()
        time.sleep(0.01)


def without_metrics(supervisor: Supervisor, arguments: list[str], *, once: bool = False) -> Child:
    return supervisor.start("service", 0, arguments, once=once, metrics_port=None)


def test_a_child_that_is_to_end_by_itself_is_not_started_again(supervisor: Supervisor) -> None:
    child = without_metrics(supervisor, ENDS_WELL, once=True)
    check_until(supervisor, lambda: child.done)
    assert (child.state, child.restarts.deaths) == ("stopped", 0)


def test_wrong_settings_are_an_error_with_the_line_that_the_child_wrote(supervisor: Supervisor) -> None:
    child = supervisor.start("counter", 0, WRONG)
    with pytest.raises(InputError, match=r"^no thresholds: give --background"):
        check_until(supervisor, lambda: child.done)


def test_a_child_that_dies_again_and_again_is_an_error(supervisor: Supervisor) -> None:
    child = without_metrics(supervisor, DIES)
    with pytest.raises(FaultError, match=r"^service-0 died 2 times: see .*service-0\.log$"):
        check_until(supervisor, lambda: child.done)


def test_with_services_that_stay_wrong_settings_fail_one_and_leave_it_alone(supervisor: Supervisor) -> None:
    supervisor.give_up = False
    child = supervisor.start("counter", 0, WRONG)
    check_until(supervisor, lambda: child.state == "failed")
    assert child.error.startswith("no thresholds")
    supervisor.check()
    assert child.process is None


def test_with_services_that_stay_a_failed_one_is_tried_again_until_it_is_ready(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.give_up = False
    monkeypatch.setattr(supervisor_module, "SLOW_RETRY_S", 0.05)
    child = without_metrics(supervisor, DIES)
    check_until(supervisor, lambda: child.state == "failed")
    check_until(supervisor, lambda: child.process is not None)
    assert child.state == "failed"  # as long as it is not ready
    monkeypatch.setattr(supervisor_module, "is_ready", lambda port: True)
    supervisor.ask_ready()
    assert (child.state, child.error) == ("ready", "")


def test_restarts_come_later_and_later_and_then_at_a_slow_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    restarts = Restarts()
    pauses = []
    for _ in range(7):
        restarts.died()
        pauses.append(restarts.start_at - now)
        now = restarts.start_at
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 30, 30])


def test_deaths_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    restarts = Restarts()
    for _ in range(50):
        restarts.died()
        now += 61
    assert (restarts.deaths, restarts.too_many) == (1, False)


def test_the_wanted_metrics_port_is_used_unless_it_is_taken(supervisor: Supervisor) -> None:
    wanted = free_port()
    first, second, third = (
        supervisor.start("counter", index, WRONG, metrics_port=port) for index, port in enumerate((wanted, wanted, 0))
    )
    assert first.metrics_port == wanted
    assert len({first.metrics_port, second.metrics_port, third.metrics_port}) == 3


def test_the_last_error_is_of_the_last_start(tmp_path: Path) -> None:
    log_file = tmp_path / "service-0.log"
    log_file.write_text("error: of long ago\n")
    child = Child("service", 0, [], log_file, log_start=log_file.stat().st_size)
    assert child.last_error() == f"see {log_file}"
    with log_file.open("a") as log:
        log.write("error: first\nsomething\nerror: last\nsomething\n")
    assert child.last_error() == "last"


def test_a_large_log_is_put_aside(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_LOG_BYTES", 10)
    (tmp_path / "logs" / "service-0.log").write_text("eleven bytes")
    child = without_metrics(supervisor, ENDS_WELL, once=True)
    check_until(supervisor, lambda: child.done)
    assert (tmp_path / "logs" / "service-0.log.1").read_text() == "eleven bytes"
    assert "eleven" not in child.log_file.read_text()
