"""``stemstream simulate``, from the outside."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from producers.raw_format import RAW_RECORD
from producers.simulator import Simulation
from service.errors import FaultError, InputError
from stemstream.commands.simulate import simulate
from tests.producers.feed_receivers import Receivers, listening


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_writes_the_raw_files_and_the_truth(tmp_path: Path) -> None:
    options = ["--frames-per-position", 2, "--electrons", 20, "--noise", 3, "--files-per-module", 2]
    options += ["--out-of-order", 2, "--scan-number", 5, "--seed", 6, "--truth", tmp_path / "truth.npz"]
    result = run("--scan", "3x2", "--output", tmp_path / "raw", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    files = sorted((tmp_path / "raw").iterdir())
    assert len(files) == 8
    assert {path.stat().st_size for path in files} == {6 * RAW_RECORD.itemsize}
    assert np.load(tmp_path / "truth.npz")["offsets"].shape == (13,)


@pytest.mark.parametrize("scan", ["", "4", "4x", "4x4x4", "-1x4", "0x4", "70000x2", "axb"])
def test_a_wrong_scan_size_is_one_clear_line(tmp_path: Path, scan: str) -> None:
    result = run(f"--scan={scan}", "--output", tmp_path / "raw")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "raw").exists()


def test_an_unwritable_output_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--scan", "2x2", "--output", tmp_path / "file" / "raw")
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path}/file/raw: Not a directory\n"


def test_a_scan_too_large_for_the_disk_is_one_clear_line(tmp_path: Path) -> None:
    result = run("--scan", "65535x65535", "--output", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: not enough disk space")
    assert result.stderr.count("\n") == 1


def test_a_second_run_does_not_overwrite_the_first(tmp_path: Path) -> None:
    assert run("--scan", "2x2", "--output", tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run("--scan", "2x2", "--output", tmp_path, "--seed", 1)
    assert result.exit_code == 2
    assert "raw files of scan 1 already" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# The live feed


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with listening() as receivers:
        yield receivers


def test_it_sends_the_live_feed_and_says_what_it_sent(receivers: Receivers, tmp_path: Path) -> None:
    options = ["--frames-per-position", 2, "--electrons", 20, "--out-of-order", 2, "--threads", 3, "--rate", 500]
    options += ["--scan-number", 9, "--size-fields", "minus-one", "--lose", 0.125, "--late-sector", "1:0.1"]
    result = run("--scan", "4x3", "--to", *receivers.to.values(), "--truth", tmp_path / "truth.npz", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("scan 9: 2")
    assert " frames (84 sector frames) sent in " in result.stdout
    assert result.stdout.count("\n") == 1
    messages = receivers.wait_for(84)
    assert {(m.scan_number, m.width_field, m.height_field) for m in messages} == {(9, 3, 2)}
    assert {m.thread_id for m in messages} == {0, 1, 2}
    not_sent = np.load(tmp_path / "truth.npz")["not_sent"]
    assert {tuple(place) for place in np.argwhere(~not_sent).tolist()} == {(m.frame_number, m.sector) for m in messages}


def test_several_scans_have_consecutive_numbers_their_own_frames_and_truth(
    receivers: Receivers, tmp_path: Path
) -> None:
    options = ["--scans", 3, "--interval", 0.2, "--scan-number", 4, "--seed", 7, "--electrons", 5]
    result = run("--scan", "3x2", "--to", *receivers.to.values(), "--truth", tmp_path / "truth.npz", *options)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["scan 4", "scan 5", "scan 6"]
    messages = receivers.wait_for(3 * 24)
    assert Counter(m.scan_number for m in messages) == {4: 24, 5: 24, 6: 24}
    for number, seed in ((4, 7), (5, 8), (6, 9)):
        made = Simulation(3, 2, electrons=5, seed=seed)
        pixels, truth = made.frames(0, 6)
        for m in messages:
            if m.scan_number == number:
                assert np.array_equal(m.pixels, pixels[m.frame_number, 144 * m.sector : 144 * (m.sector + 1)])
        assert np.array_equal(np.load(tmp_path / f"truth_{number}.npz")["x"], truth.x)


def test_scans_do_not_begin_before_their_time(receivers: Receivers) -> None:
    began = time.monotonic()
    result = run("--scan", "1x1", "--to", *receivers.to.values(), "--scans", 3, "--interval", 0.3)
    assert result.exit_code == 0, result.output
    for m in receivers.wait_for(12):
        assert m.time - began >= 0.3 * (m.scan_number - 1)


def test_an_interval_that_is_too_short_is_said(receivers: Receivers) -> None:
    options = ["--rate", 20, "--scans", 2, "--interval", 0.01]
    result = run("--scan", "3x2", "--to", *receivers.to.values(), *options)
    assert result.exit_code == 0, result.output
    assert "scan 2 starts 0." in result.stderr
    assert "the interval is too short" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --output DIR for raw files or --to"),
        (["--output", "x", "--to", "tcp://h:1"], "give either --output DIR for raw files or --to"),
        (["--output", "x", "--rate", 5], "--rate goes with --to only"),
        (["--output", "x", "--lose-sector", 1], "--lose-sector goes with --to only"),
        (["--to", "tcp://h:1", "--files-per-module", 2], "--files-per-module goes with --output only"),
        (["--to", "tcp://h:1", "--late-sector", "4:1"], "--late-sector is '4:1', expected SECTOR:SECONDS"),
        (["--to", "tcp://h:1", "--late-sector", "1"], "--late-sector is '1', expected SECTOR:SECONDS"),
        (["--to", "tcp://h:1", "--size-fields", "auto"], "--size-fields auto is for receivers"),
        (["--to", "tcp://h:1", "--abort-at", 0], "abort_at is 0.0, expected a fraction above 0"),
        (["--to", "tcp://h:1", "--lose", 0.7, "--repeat", 0.7], "more than 1 together"),
        (["--to", "tcp://h:1", "--scan-number", 2**32 - 1, "--scans", 2], "the last of 2 scans is past 32 bits"),
    ],
)
def test_options_that_make_no_sense_are_one_clear_line(options: list[object], message: str) -> None:
    result = run("--scan", "2x2", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("to", [["tcp://h:1", "tcp://h:2"], ["6001"], ["tcp://h:65534"], ["tcp://h:0"]])
def test_wrong_addresses_are_refused(to: list[str]) -> None:
    assert isinstance(run("--scan", "2x2", "--to", *to).exception, InputError)


def test_a_truth_file_that_is_there_is_refused_before_anything_is_sent(receivers: Receivers, tmp_path: Path) -> None:
    (tmp_path / "truth_2.npz").write_bytes(b"precious")
    result = run("--scan", "2x2", "--to", *receivers.to.values(), "--scans", 2, "--truth", tmp_path / "truth.npz")
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path}/truth_2.npz: File exists\n"
    assert not receivers.messages
    assert [path.name for path in tmp_path.iterdir()] == ["truth_2.npz"]


def test_no_receiver_is_a_fault_and_leaves_no_truth_file(receivers: Receivers, tmp_path: Path) -> None:
    to = [*list(receivers.to.values())[:3], "tcp://127.0.0.1:9"]
    result = run("--scan", "2x2", "--to", *to, "--wait", 0.2, "--truth", tmp_path / "truth.npz")
    assert isinstance(result.exception, FaultError)
    assert "tcp://127.0.0.1:9: nobody listens there" in str(result.exception)
    assert not list(tmp_path.iterdir())
