"""Raw files that grow while they are read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from producers.growing_files import GrowingFiles
from producers.live_feed import LiveFrame
from producers.raw_format import RAW_RECORD, raw_file_name
from service.errors import InputError
from service.metrics import Metrics


def records(first: int, count: int) -> bytes:
    made = np.zeros(count, RAW_RECORD)
    made["scan_number"], made["scan_size"] = 7, (10, 5)
    made["frame_number"] = np.arange(first, first + count)
    made["scan_position"] = np.stack([made["frame_number"] % 10, made["frame_number"] // 10], axis=1)
    made["pixels"] = made["frame_number"][:, None, None]
    return made.tobytes()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def take(files: GrowingFiles, count: int) -> list[LiveFrame]:
    frames: list[LiveFrame] = []
    deadline = time.monotonic() + 10
    while len(frames) < count and time.monotonic() < deadline:
        frames += files.take(0.01)
    return frames


def test_records_come_as_they_are_written_and_half_a_record_is_not_yet(tmp_path: Path) -> None:
    files = GrowingFiles(tmp_path, (0, 1, 2, 3), 10, {}, Metrics("receiver"))
    path = tmp_path / raw_file_name(7, 2, 0)
    append(path, records(0, 2) + records(2, 1)[:1000])
    assert [frame.header.frame_number for frame in take(files, 2)] == [0, 1]
    assert files.take(0.15) == []
    append(path, records(2, 1)[1000:] + records(3, 2))
    frames = take(files, 3)
    assert [frame.header.frame_number for frame in frames] == [2, 3, 4]
    header = frames[1].header
    assert (header.scan_number, header.width_field, header.height_field, header.x, header.y) == (7, 10, 5, 3, 0)
    assert header.module == frames[1].sector == 2
    assert (frames[1].pixels == 3).all()


def test_new_files_are_taken_up_and_other_sectors_left_alone(tmp_path: Path) -> None:
    files = GrowingFiles(tmp_path, (1,), 10, {}, Metrics("receiver"))
    append(tmp_path / raw_file_name(7, 1, 0), records(0, 1))
    append(tmp_path / raw_file_name(7, 0, 0), records(0, 1))
    assert len(take(files, 1)) == 1
    append(tmp_path / raw_file_name(8, 1, 0), records(0, 1))
    assert [frame.sector for frame in take(files, 1)] == [1]
    assert files.take(0.15) == []


def test_files_that_nobody_writes_to_any_more_are_left_alone(tmp_path: Path) -> None:
    old = tmp_path / raw_file_name(6, 0, 0)
    append(old, records(0, 3))
    os.utime(old, (time.time() - 100, time.time() - 100))
    files = GrowingFiles(tmp_path, (0,), 10, {}, Metrics("receiver"))
    assert files.take(0.15) == []


def test_files_of_a_scan_that_ended_since_are_left_alone_after_a_restart(tmp_path: Path) -> None:
    append(tmp_path / raw_file_name(6, 0, 0), records(0, 3))
    append(tmp_path / raw_file_name(7, 0, 0), records(0, 2))
    later_ms = int(time.time() * 1000) + 1000
    files = GrowingFiles(tmp_path, (0,), 10, {6: later_ms, 7: 1}, Metrics("receiver"))
    assert len(take(files, 2)) == 2
    assert files.take(0.15) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        GrowingFiles(tmp_path / "none", (0,), 10, {}, Metrics("receiver"))
