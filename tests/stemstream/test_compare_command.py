"""How two counted files differ, frame by frame, also those that stempy wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stempy.io import SparseArray
from typer.testing import CliRunner

from service.counted_file import CountedFileWriter
from stemstream.cli import app
from topics.geometry import ScanGeometry

GEOMETRY = ScanGeometry(width=3, height=2, frames_per_chunk=16, partitions=1)
FRAMES = [[1, 5, 9], [], [7], [331_775], [2, 3], [4]]


def write_ours(path: Path, frames: list[list[int]], missing: tuple[int, ...] = ()) -> Path:
    writer = CountedFileWriter(path, GEOMETRY)
    offsets = np.concatenate([[0], np.cumsum([len(frame) for frame in frames])]).astype(np.int64)
    masks = np.array([4 if row in missing else 0 for row in range(len(frames))], np.uint8)
    writer.write(0, np.array([e for frame in frames for e in frame], np.uint32), offsets, masks)
    writer.close({"session": "s", "number": 1})
    return path


def write_stempys(path: Path, frames: list[list[int]]) -> Path:
    data = np.empty((len(frames), 1), object)
    for row, frame in enumerate(frames):
        data[row, 0] = np.array(frame, np.uint32)
    SparseArray(data=data, scan_shape=(2, 3), frame_shape=(576, 576)).write_to_hdf5(str(path))
    return path


def compare(first: Path, second: Path) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(app, ["compare", str(first), str(second), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_file_equals_the_one_that_stempy_wrote_of_the_same_electrons(tmp_path: Path) -> None:
    code, found = compare(write_ours(tmp_path / "a.h5", FRAMES), write_stempys(tmp_path / "b.h5", FRAMES))
    assert code == 0
    assert (found["frames"], found["frames_equal"], found["frames_differing"]) == (6, 6, 0)


def test_every_frame_that_differs_is_named_with_its_electrons(tmp_path: Path) -> None:
    other = [[1, 5, 10], [], [7], [331_775], [2, 3, 8], [4]]
    code, found = compare(write_ours(tmp_path / "a.h5", FRAMES), write_ours(tmp_path / "b.h5", other))
    assert code == 1
    assert found["differing"] == [[0, 1, 1], [4, 0, 1]]
    assert (found["electrons_only_in_first"], found["electrons_only_in_second"]) == (1, 2)


def test_a_frame_that_one_file_lacks_is_missing_and_no_difference(tmp_path: Path) -> None:
    lacking = [FRAMES[0], [], [], *FRAMES[3:]]
    code, found = compare(write_ours(tmp_path / "a.h5", FRAMES), write_ours(tmp_path / "b.h5", lacking, missing=(2,)))
    assert code == 0
    assert (found["frames_equal"], found["frames_missing_in_second"]) == (5, 1)


@pytest.mark.parametrize("name", ["none.h5", "text.h5"])
def test_what_is_no_counted_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    ours = write_ours(tmp_path / "a.h5", FRAMES)
    result = CliRunner().invoke(app, ["compare", str(ours), str(tmp_path / name)])
    assert "no counted file" in str(result.exception)
