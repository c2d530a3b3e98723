"""How a service process ends: by a signal, by itself, or with one line that says what went wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from service.errors import FaultError, InputError
from service.kafka import KafkaError, KafkaException
from service.metrics import Metrics, serve_metrics
from service.process import CommonSettings, StopFlag, run_service

ROOT = Path(__file__).parents[2]
COMMON = CommonSettings("127.0.0.1:9", log_level="info")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give signal handlers and logs back to the tests."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def ended(body: Callable[[Metrics, StopFlag], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code of a service with this main loop, and its lines on stderr."""
    code = run_service("counter", COMMON, body)
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err.splitlines()


def raising(error: Exception) -> Callable[[Metrics, StopFlag], int]:
    def body(metrics: Metrics, stop: StopFlag) -> int:
        raise error

    return body


def test_the_exit_code_is_that_of_the_main_loop(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = ended(lambda metrics, stop: 3, capsys)
    assert code == 3
    logged = [json.loads(line) for line in lines]
    assert [(line["event"], line["service"]) for line in logged] == [("started", "counter"), ("stopped", "counter")]
    assert logged[0]["metrics_port"] > 0
    assert logged[1]["exit_code"] == 3


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (FaultError("the disk is full"), 1, "the disk is full"),
        (InputError("no such\n  folder"), 2, "no such folder"),
        (
            KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)),
            1,
            "Kafka at 127.0.0.1:9: Local: All broker connections are down",
        ),
    ],
    ids=["fault", "input", "Kafka"],
)
def test_an_expected_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, lines = ended(raising(error), capsys)
    assert found == code
    assert lines[-1] == f"error: {text}"
    logged = [json.loads(line) for line in lines[:-1]]
    assert (logged[-1]["level"], logged[-1]["exit_code"]) == ("error", code)
    assert not any("Traceback" in line for line in lines)


def test_a_bug_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_service("counter", COMMON, raising(ZeroDivisionError()))


def test_a_metrics_port_that_is_taken_ends_the_service_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with serve_metrics(Metrics("other"), 0) as port:
        settings = CommonSettings("127.0.0.1:9", metrics_port=port)
        code = run_service("sink", settings, lambda metrics, stop: 0)
    assert code == 2
    assert f"metrics port {port}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_main_loop_to_end(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    def body(metrics: Metrics, stop: StopFlag) -> int:
        assert not stop
        signal.raise_signal(number)
        deadline = time.monotonic() + 5
        while not stop:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return 0

    code, lines = ended(body, capsys)
    assert code == 0
    assert json.loads(lines[-1])["event"] == "stopped"


def test_a_second_signal_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def body(metrics: Metrics, stop: StopFlag) -> int:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert stop
        return 0

    code, lines = ended(body, capsys)
    assert code == 0
    assert [json.loads(line)["event"] for line in lines] == ["started", "stopped"]


def test_afterwards_signals_wake_nobody_any_more(capsys: pytest.CaptureFixture[str]) -> None:
    ended(lambda metrics, stop: 0, capsys)
    assert signal.set_wakeup_fd(-1) == -1


def test_services_may_follow_each_other_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert ended(lambda metrics, stop: int(bool(stop)), capsys)[0] == 0


def child(body: str) -> subprocess.Popen[str]:
    """A process that runs a service with this main loop."""
    program = f"""
import sys, time
from service import process
process.STOP_TIMEOUT_S = 0.3
def body(metrics, stop):
    sys.stderr.write("looping\\n")
{body}
sys.exit(process.run_service("counter", process.CommonSettings("127.0.0.1:9"), body))
"""
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def terminated(running: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit code and stderr after SIGTERM, sent when the loop turns."""
    assert running.stderr is not None
    with running:
        for line in running.stderr:
            if line == "looping\n":
                break
        running.send_signal(signal.SIGTERM)
        return running.wait(timeout=20), running.stderr.read().splitlines()


def test_sigterm_ends_a_process_cleanly() -> None:
    code, lines = terminated(child("    while not stop: time.sleep(0.01)\n    return 0"))
    assert code == 0
    assert [json.loads(line)["event"] for line in lines] == ["stopped"]


def test_a_process_that_hangs_in_a_call_is_ended_all_the_same() -> None:
    code, lines = terminated(child("    time.sleep(60)\n    return 0"))
    assert code == 1
    assert "did not end in time" in json.loads(lines[-1])["event"]
