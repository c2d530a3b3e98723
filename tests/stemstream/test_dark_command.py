"""``stemstream dark``, from the outside."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from producers.raw_format import RAW_RECORD
from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.errors import FaultError, InputError
from service.references import read_reference
from stemstream.cli import app

SIMULATION = Simulation(10, 7, electrons=20, noise_counts=9, seed=3)
FRAMES = SIMULATION.frames(0, SIMULATION.frame_count)[0]  # (70, 576, 576) uint16


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Raw files of a scan of 70 frames, more than are read at a time, out of order and in two parts a module."""
    write_raw_files(SIMULATION, tmp_path / "raw", files_per_module=2, out_of_order=5)
    return tmp_path / "raw"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["dark", *map(str, arguments)])


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def mean(frames: NDArray[np.uint16]) -> NDArray[np.float32]:
    exact: NDArray[np.float64] = np.mean(frames, axis=0, dtype=np.float64)
    return exact.astype(np.float32)


def change(raw: Path, module: int, keep: Any) -> None:  # noqa: ANN401
    """Keep these records of a module; ``keep`` makes an index of the frame numbers."""
    for path in raw.glob(f"*_module{module}_*.data"):
        records = np.fromfile(path, RAW_RECORD)
        records[keep(records["frame_number"])].tofile(path)


def test_the_reference_is_the_mean_of_the_frames_to_the_bit(raw: Path, tmp_path: Path) -> None:
    assert run(raw, "-o", tmp_path / "dark.npy").exit_code == 0
    written = np.load(tmp_path / "dark.npy")
    assert written.dtype == np.float32
    assert written.tobytes() == mean(FRAMES).tobytes()


def test_what_it_writes_is_what_a_dark_reference_is_read_from(raw: Path, tmp_path: Path) -> None:
    run(raw, "--output", tmp_path / "dark.npy")
    np.testing.assert_array_equal(read_reference(tmp_path / "dark.npy", "dark"), mean(FRAMES))


def test_the_sums_do_not_overflow(tmp_path: Path) -> None:
    """70 sector frames at the greatest value, which are 4.6 million counts a pixel."""
    write_raw_files(SIMULATION, tmp_path / "raw")
    for path in (tmp_path / "raw").iterdir():
        np.memmap(path, RAW_RECORD, "r+")["pixels"][...] = 65_535
    assert run(tmp_path / "raw", "-o", tmp_path / "dark.npy").exit_code == 0
    assert (np.load(tmp_path / "dark.npy") == 65_535).all()


def test_it_says_what_it_made(raw: Path, tmp_path: Path) -> None:
    found = told(run(raw, "-o", tmp_path / "dark.npy", "--json"))
    expected = mean(FRAMES)
    assert found == {
        "frames": 70,
        "frames_left_out": 0,
        "mean": pytest.approx(expected.mean(dtype=np.float64), rel=1e-12),
        "min": expected.min(),
        "max": expected.max(),
        "sha256": hashlib.sha256(np.load(tmp_path / "dark.npy").astype("<f4").tobytes()).hexdigest(),
        "output": str(tmp_path / "dark.npy"),
    }


def test_without_json_it_says_the_same_to_people_and_the_bar_is_not_in_it(raw: Path, tmp_path: Path) -> None:
    result = run(raw, "-o", tmp_path / "dark.npy")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    pixels = mean(FRAMES)
    assert lines == {
        "frames": "70 averaged, 0 left out as incomplete",
        "pixels": f"mean {pixels.mean(dtype='f8'):.3f}, min {pixels.min():.3f}, max {pixels.max():.3f} counts",
        "SHA-256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "file": str(tmp_path / "dark.npy"),
    }
    assert "70/70 frames" in result.stderr


def test_frames_without_all_sectors_are_left_out_and_counted(raw: Path, tmp_path: Path) -> None:
    change(raw, 1, lambda numbers: ~np.isin(numbers, [0, 33, 69]))
    change(raw, 3, lambda numbers: ~np.isin(numbers, [33, 34]))
    found = told(run(raw, "-o", tmp_path / "dark.npy", "--json"))
    assert (found["frames"], found["frames_left_out"]) == (66, 4)
    complete = np.delete(FRAMES, [0, 33, 34, 69], axis=0)
    assert np.load(tmp_path / "dark.npy").tobytes() == mean(complete).tobytes()


def test_of_a_repeated_sector_frame_the_first_is_taken(raw: Path, tmp_path: Path) -> None:
    path = sorted(raw.glob("*_module2_*.data"))[0]
    records = np.fromfile(path, RAW_RECORD)
    again = records[[3, 3, 4]].copy()
    again["pixels"] = 60_000
    np.concatenate([records, again]).tofile(path)
    found = told(run(raw, "-o", tmp_path / "dark.npy", "--json"))
    assert (found["frames"], found["frames_left_out"]) == (70, 0)
    assert np.load(tmp_path / "dark.npy").tobytes() == mean(FRAMES).tobytes()


def test_one_complete_frame_is_enough(raw: Path, tmp_path: Path) -> None:
    change(raw, 0, lambda numbers: numbers == 41)
    found = told(run(raw, "-o", tmp_path / "dark.npy", "--json"))
    assert (found["frames"], found["frames_left_out"]) == (1, 69)
    np.testing.assert_array_equal(np.load(tmp_path / "dark.npy"), FRAMES[41])


def test_without_a_complete_frame_nothing_is_written(raw: Path, tmp_path: Path) -> None:
    change(raw, 0, lambda numbers: numbers < 35)
    change(raw, 3, lambda numbers: numbers >= 35)
    error = run(raw, "-o", tmp_path / "dark.npy").exception
    assert isinstance(error, InputError)
    assert str(error) == f"{raw}: none of 70 frames has all four sectors: nothing to average"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_glob_names_the_files_of_one_scan_among_several(raw: Path, tmp_path: Path) -> None:
    write_raw_files(Simulation(2, 2), raw, scan_number=2)
    assert isinstance(run(raw, "-o", tmp_path / "dark.npy").exception, InputError)
    assert told(run(raw / "data_scan*1_module*", "-o", tmp_path / "dark.npy", "--json"))["frames"] == 70


def test_a_reference_that_is_there_is_replaced(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "dark.npy").write_bytes(b"old")
    assert run(raw, "-o", tmp_path / "dark.npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "dark.npy"), mean(FRAMES))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dark.npy", "raw"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("dark.tif", "a dark reference is written as .npy"),
        ("dark", "a dark reference is written as .npy"),
        ("nowhere/dark.npy", "cannot be written: No such file or directory"),
        ("raw/data_scan0000000001_module0_0000000000.data/dark.npy", "cannot be written: Not a directory"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    raw: Path, tmp_path: Path, output: str, words: str
) -> None:
    for source in (raw, "nothing"):
        error = run(source, "-o", tmp_path / output).exception
        assert isinstance(error, InputError)
        assert str(error).startswith(f"{tmp_path / output}: {words}")


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = run(tmp_path / "nowhere", "-o", tmp_path / "dark.npy").exception
    assert isinstance(error, InputError)
    assert str(error) == f"{tmp_path}/nowhere: no such file or folder"


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_disk_is_a_fault_and_leaves_what_was_there(
    raw: Path, tmp_path: Path, old: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "out" / "dark.npy"
    output.parent.mkdir()
    if old is not None:
        output.write_bytes(old)
    monkeypatch.setattr(os, "fsync", full)
    error = run(raw, "-o", output).exception
    assert isinstance(error, FaultError)
    assert str(error) == f"{output}: cannot be written: No space left on device"
    assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == (
        {} if old is None else {"dark.npy": old}
    )
