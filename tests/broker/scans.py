"""Raw files of scans, and what stempy finds in them. The format is written down here a second time, on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import stempy.image
from numpy.typing import NDArray

from producers.simulator import Simulation

BACKGROUND, XRAY = 40, 2000

RECORD = np.dtype(
    [
        ("scan_number", "<u4"),
        ("frame_number", "<u4"),
        ("scan_size", "<u2", (2,)),  # width, height
        ("scan_position", "<u2", (2,)),  # x, y
        ("pixels", "<u2", (144, 576)),
    ]
)

Frames = NDArray[np.uint16]  # (n, 576, 576)
Electrons = NDArray[np.uint32]


@dataclass(frozen=True)
class RawScan:
    """A folder with the raw files of one scan."""

    folder: Path
    width: int
    height: int
    frames_per_position: int = 1

    @property
    def frame_count(self) -> int:
        return self.width * self.height * self.frames_per_position

    @cached_property
    def records(self) -> list[dict[int, Frames]]:
        """The pixels of each record, by module and frame number."""
        modules: list[dict[int, Frames]] = []
        for module in range(4):
            files = [np.memmap(path, RECORD, "r") for path in sorted(self.folder.glob(f"*_module{module}_*.data"))]
            modules.append({int(record["frame_number"]): record["pixels"] for file in files for record in file})
        return modules

    @cached_property
    def missing_sectors(self) -> NDArray[np.uint8]:
        """Bit m of frame f is set when module m has no record of it."""
        missing = np.zeros(self.frame_count, np.uint8)
        for module, records in enumerate(self.records):
            absent = [number for number in range(self.frame_count) if number not in records]
            missing[absent] |= np.uint8(1 << module)
        return missing

    @cached_property
    def electrons(self) -> list[Electrons]:
        """What stempy counts in each frame, one frame at a time; nothing in a frame that is not complete."""
        return [
            np.empty(0, np.uint32)
            if self.missing_sectors[number]
            else stempy_electrons(np.concatenate([records[number] for records in self.records]))
            for number in range(self.frame_count)
        ]


@dataclass(frozen=True)
class RepeatedScan(RawScan):
    """A scan large enough to be interrupted: its frames are a few, over and over, so that stempy is quick."""

    distinct: tuple[Electrons, ...] = ()

    @cached_property
    def missing_sectors(self) -> NDArray[np.uint8]:
        return np.zeros(self.frame_count, np.uint8)

    @cached_property
    def electrons(self) -> list[Electrons]:
        return [self.distinct[number % len(self.distinct)] for number in range(self.frame_count)]


def stempy_electrons(frame: NDArray[np.uint16]) -> Electrons:
    counted = stempy.image.electron_count_frame(frame, background_threshold=BACKGROUND, xray_threshold=XRAY)
    electrons: Electrons = np.sort(counted.data[0, 0])
    return electrons


def write_scan(folder: Path, frames: Frames, width: int, height: int, frame_count: int | None = None) -> RawScan:
    """Write a scan, one file a module, whose frame f is ``frames[f % len(frames)]``."""
    scan = RawScan(folder, width, height)
    folder.mkdir(parents=True)
    numbers = np.arange(scan.frame_count if frame_count is None else frame_count)
    for module in range(4):
        file = np.memmap(folder / f"data_scan0000000001_module{module}_0000000000.data", RECORD, "w+", 0, len(numbers))
        file["scan_number"], file["frame_number"], file["scan_size"] = 1, numbers, (width, height)
        file["scan_position"] = np.stack([numbers % width, numbers // width], axis=1)
        for number in numbers:
            file["pixels"][number] = frames[number % len(frames), module * 144 : (module + 1) * 144]
    return scan


def repeated_scan(folder: Path, width: int, height: int, distinct: int = 37) -> RepeatedScan:
    """A scan of a few simulated frames over and over; their number shares no factor with that of a chunk's frames."""
    frames, _ = Simulation(distinct, 1, seed=5).frames(0, distinct)
    write_scan(folder, frames, width, height)
    return RepeatedScan(folder, width, height, distinct=tuple(stempy_electrons(frame) for frame in frames))


def frames_of_equally_many_electrons(frames: int, electrons: int) -> Frames:
    """Single bright pixels, apart from each other, elsewhere in each frame."""
    random = np.random.default_rng(7)
    pixels = np.zeros((frames, 576 // 8, 8, 576 // 8, 8), np.uint16)
    for frame in pixels:
        cells = random.choice(72 * 72, electrons, replace=False)
        frame[cells // 72, 3, cells % 72, 4] = random.integers(100, 1000, electrons)
    return pixels.reshape(frames, 576, 576)


def remove_records(scan: RawScan, module: int, numbers: set[int]) -> None:
    """Take the records of these frames out of a module's only file, as a camera that lost them."""
    (path,) = scan.folder.glob(f"*_module{module}_*.data")
    records = np.fromfile(path, RECORD)
    records[~np.isin(records["frame_number"], list(numbers))].tofile(path)
