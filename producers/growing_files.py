"""Raw files that are still being written, followed like the live feed.

What is read of a file are its whole records; half a record at the end is not there yet. New files in the folder are
taken up as they appear, so that scan after scan can be followed.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from producers.feed_format import FeedHeader
from producers.live_feed import LiveFrame
from producers.raw_format import RAW_RECORD, parse_raw_file_name
from service.errors import InputError
from service.logs import get_logger
from service.metrics import Metrics

LOOK_INTERVAL_S = 0.1
RECORDS_AT_ONCE = 64


@dataclass(slots=True)
class _Followed:
    """A file and how many of its records were read."""

    path: Path
    module: int
    records: int = 0


class GrowingFiles:
    """The files of some sectors in a folder, in the shape of the live feed.

    Files that nobody has written to for ``settled_s`` seconds when this begins are left alone: they are whole, and
    ``stemstream run`` or ``send`` is for those. So are files of a scan that has ended since they were written;
    ``ended_ms`` has the end of each scan number, Unix time in ms. Files of the scans ``still_open`` are read whole.
    """

    def __init__(
        self,
        folder: Path,
        sectors: tuple[int, ...],
        settled_s: float,
        ended_ms: dict[int, int],
        metrics: Metrics,
        *,
        still_open: Collection[int] = (),
    ) -> None:
        """Look at what is in the folder; InputError if it is none."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no folder; the files to follow are looked for in one")
        self.ready = False
        self._folder, self._sectors = folder, sectors
        self._ignored = {
            path
            for path in folder.glob("*.data")
            if _number(path) not in still_open and _is_whole(path, settled_s, ended_ms)
        }
        for path in sorted(self._ignored):
            get_logger().info("file left alone: nobody writes to it", path=str(path))
        self._files: dict[Path, _Followed] = {}
        self._next_look = 0.0
        self._received = metrics.counter("received_sector_frames", "Sector frames received", "sector")

    def take(self, timeout_s: float) -> list[LiveFrame]:
        """Records that were written since last asked, file by file; waits a little when there are none."""
        self._look_for_new_files()
        frames = [frame for file in list(self._files.values()) for frame in self._read(file)]
        if not frames:
            time.sleep(timeout_s)
        return frames

    def stop(self) -> list[LiveFrame]:
        """Nothing is left behind: what was not taken stays in the files."""
        return []

    def release(self, frames: int = 1) -> None:
        """Nothing to do: the pixels are mapped from the files."""

    def take_lost(self, sector: int, scan_number: int) -> int:
        """Nothing is lost: the files wait."""
        return 0

    def _look_for_new_files(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_INTERVAL_S
        for path in sorted(self._folder.glob("*.data")):
            name = parse_raw_file_name(path.name)
            if name is not None and name[1] in self._sectors and path not in self._ignored:
                self._files.setdefault(path, _Followed(path, name[1]))

    def _read(self, file: _Followed) -> list[LiveFrame]:
        try:
            whole = file.path.stat().st_size // RAW_RECORD.itemsize
            count = min(whole - file.records, RECORDS_AT_ONCE)
            if count <= 0:
                return []
            records = np.memmap(file.path, RAW_RECORD, "r", file.records * RAW_RECORD.itemsize, (count,))
        except FileNotFoundError:
            get_logger().warning("file is gone, no longer followed", path=str(file.path), records=file.records)
            del self._files[file.path]
            return []
        file.records += count
        self._received.labels(file.module).inc(count)
        now_ns = time.time_ns()
        return [
            LiveFrame(
                file.module,
                FeedHeader(
                    scan_number=int(record["scan_number"]),
                    frame_number=int(record["frame_number"]),
                    frames_this_thread=0,
                    width_field=int(record["scan_size"][0]),
                    height_field=int(record["scan_size"][1]),
                    x=int(record["scan_position"][0]),
                    y=int(record["scan_position"][1]),
                    thread_id=0,
                    module=file.module,
                ),
                now_ns,
                record["pixels"],
            )
            for record in records
        ]


def _number(path: Path) -> int | None:
    """Scan number in a raw file's name."""
    name = parse_raw_file_name(path.name)
    return name[0] if name else None


def _is_whole(path: Path, settled_s: float, ended_ms: dict[int, int]) -> bool:
    """Whether nobody will write to this file any more, as far as one can tell."""
    written, number = path.stat().st_mtime, _number(path)
    return time.time() - written > settled_s or (number is not None and written * 1000 < ended_ms.get(number, 0))
