"""``stemstream simulate``, from the outside."""

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from producers.raw_format import RAW_RECORD
from stemstream.commands.simulate import simulate


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
