"""``stemstream send``, from the outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.errors import FaultError, InputError
from stemstream.cli import app
from tests.producers.feed_receivers import Receivers, answering, listening


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with listening() as receivers:
        yield receivers


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Raw files of a scan of 12 frames."""
    write_raw_files(Simulation(4, 3, electrons=5), tmp_path, scan_number=31)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["send", *map(str, arguments)])


def test_it_sends_the_files_and_says_how_many_frames_in_which_time(receivers: Receivers, raw: Path) -> None:
    result = run(raw, "--to", *receivers.to.values(), "--rate", 200, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("scan 31: 12 frames (48 sector frames) sent in 0.")
    messages = receivers.wait_for(48)
    assert {m.scan_number for m in messages} == {31}
    assert {m.thread_id for m in messages} == {0, 1}


def test_files_may_be_named_one_by_one_and_the_scan_number_replaced(receivers: Receivers, raw: Path) -> None:
    result = run(*sorted(raw.iterdir()), "--scan-number", 32, "--to", *receivers.to.values())
    assert result.exit_code == 0, result.output
    assert {m.scan_number for m in receivers.wait_for(48)} == {32}


def test_it_asks_first_whether_the_receiver_is_ready(receivers: Receivers, raw: Path) -> None:
    asked: list[int] = []
    with answering([b"ready"], lambda: asked.append(len(receivers.messages))) as ready:
        result = run(raw, "--to", *receivers.to.values(), "--ready", ready)
    assert result.exit_code == 0, result.output
    assert asked == [0]
    receivers.wait_for(48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["tcp://127.0.0.1:5"], "tcp://127.0.0.1:5: say where to send with --to"),
        (["--to", "tcp://127.0.0.1:5", "tcp://127.0.0.1:6"], "no raw files are named"),
        (["x", "--to", "tcp://127.0.0.1:5", "tcp://127.0.0.1:6"], "2 addresses for 4 sectors"),
    ],
)
def test_wrong_input_is_refused(arguments: list[str], message: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert message in str(error)


def test_no_receiver_is_a_fault(raw: Path) -> None:
    error = run(raw, "--to", "tcp://127.0.0.1:9", "--wait", 0.2).exception
    assert isinstance(error, FaultError)
    assert "tcp://127.0.0.1:9: nobody listens there (waited 0.2 s)" in str(error)
