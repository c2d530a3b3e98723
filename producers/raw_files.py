"""The raw-file source: the files of one scan, indexed once, read in the order of their frame numbers.

All headers are read and checked before anything is published, so that bad input leaves nothing behind, and frames
may lie in the files in any order.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from producers.raw_format import RAW_RECORD, parse_raw_file_name
from producers.sector_frames import SectorFrames
from service.errors import InputError
from topics.geometry import MAX_FRAMES, SECTORS

Records = NDArray[np.void]

MAX_FRAMES_PER_POSITION = 4096  # more is not looked for


@dataclass(frozen=True, slots=True)
class _SectorIndex:
    """Where each record of a sector lies, sorted by frame number (stable: the first of two stays first)."""

    frame_numbers: NDArray[np.int64]
    file_index: NDArray[np.int64]
    record_index: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RawFiles:
    """The raw files of one scan. Pixels are mapped, not read, until they are asked for."""

    scan_number: int
    width: int
    height: int
    frames_per_position: int
    records: int
    _files: list[Records]
    _index: list[_SectorIndex]

    def sector_frames(self, sector: int, first: int, stop: int) -> Iterator[SectorFrames]:
        """The sector's records with frame numbers first … stop - 1, in runs that lie together in a file."""
        index = self._index[sector]
        low, high = np.searchsorted(index.frame_numbers, [first, stop])
        files, records = index.file_index[low:high], index.record_index[low:high]
        breaks = np.flatnonzero((np.diff(records) != 1) | (np.diff(files) != 0)) + 1
        for start, end in zip([0, *breaks], [*breaks, high - low], strict=True):
            if start < end:
                run = self._files[files[start]][records[start] : records[end - 1] + 1]
                positions = run["scan_position"].astype(np.int64)
                yield SectorFrames(
                    run["frame_number"].astype(np.int64), positions[:, 0], positions[:, 1], run["pixels"]
                )

    def frame_numbers(self, sector: int) -> NDArray[np.int64]:
        """Frame numbers of the sector's records, sorted; a repeated one is there again."""
        return self._index[sector].frame_numbers

    def count(self, sector: int) -> int:
        """Number of records of a sector."""
        return len(self._index[sector].frame_numbers)


def find_raw_files(source: str | list[str]) -> list[Path]:
    """Raw files that a folder, a glob or a list of file names means.

    Raises
    ------
    InputError
        There are none, or one of them is not named as raw files are.
    """
    named = [source] if isinstance(source, str) else source
    found: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            found += sorted(path.glob("*.data"))
        elif glob.has_magic(name) and not path.exists():
            found += sorted(Path(match) for match in glob.glob(name))  # noqa: PTH207  # Path.glob takes no absolute one
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{name}: no such file or folder")
    if not found:
        raise InputError(f"{', '.join(named)}: no raw files there (data_scan…_module0_….data)")
    for path in found:
        parsed = parse_raw_file_name(path.name)
        if parsed is None or parsed[1] >= SECTORS:
            raise InputError(
                f"{path}: raw files are named data_scan<number>_module<0…{SECTORS - 1}>_<number>.data, this one is not"
            )
    return list(dict.fromkeys(found))


def open_raw_files(source: str | list[str]) -> RawFiles:
    """Index the raw files of one scan.

    Raises
    ------
    InputError
        A truncated record, a module without records, or files of several scans or scan sizes.
    """
    paths = find_raw_files(source)
    names = [parse_raw_file_name(path.name) for path in paths]
    modules = np.array([name[1] for name in names if name])
    files = [_map(path) for path in paths]
    missing = [
        m for m in range(SECTORS) if not sum(len(f) for f, module in zip(files, modules, strict=True) if module == m)
    ]
    if missing:
        raise InputError(f"{paths[0].parent}: no records of module {', '.join(map(str, missing))}")
    scan_number = _only("scan numbers", paths, [np.unique(f["scan_number"]).reshape(-1, 1) for f in files])[0]
    if len({name[0] for name in names if name}) > 1:
        raise InputError(f"{paths[0].parent}: files of several scans; name one scan's with a glob")
    width, height = _only("scan sizes", paths, [np.unique(f["scan_size"], axis=0) for f in files])
    if width == 0 or height == 0:
        raise InputError(f"{paths[0]}: scan size {width}x{height}; both must be at least 1")
    index = [_index_sector(files, np.flatnonzero(modules == m)) for m in range(SECTORS)]
    frames_per_position = find_frames_per_position(
        np.concatenate([f["frame_number"] for f in files]).astype(np.int64),
        np.concatenate([_position(f, width, height) for f in files]),
    )
    if width * height * frames_per_position > MAX_FRAMES:
        raise InputError(
            f"{paths[0].parent}: scan of {width}x{height} with {frames_per_position} frames a position; "
            f"the limit is {MAX_FRAMES} frames"
        )
    return RawFiles(
        scan_number=scan_number,
        width=width,
        height=height,
        frames_per_position=frames_per_position,
        records=sum(len(f) for f in files),
        _files=files,
        _index=index,
    )


def find_frames_per_position(frame_numbers: NDArray[np.int64], positions: NDArray[np.int64]) -> int:
    """Smallest K for which frame number // K is the scan position of as many frames as possible.

    A frame f at position p allows f // (p + 1) < K <= f // p. ``positions`` below 0 are left out.
    """
    known = positions >= 0
    numbers, places = frame_numbers[known], positions[known]
    low = numbers // (places + 1) + 1
    high = np.where(places > 0, numbers // np.maximum(places, 1), MAX_FRAMES_PER_POSITION)
    allowed = (low <= high) & (low <= MAX_FRAMES_PER_POSITION)
    votes = np.zeros(MAX_FRAMES_PER_POSITION + 2, np.int64)
    np.add.at(votes, low[allowed], 1)
    np.add.at(votes, np.minimum(high[allowed], MAX_FRAMES_PER_POSITION) + 1, -1)
    counts = np.cumsum(votes)
    return int(np.argmax(counts)) if counts.any() else 1


def _map(path: Path) -> Records:
    try:
        size = path.stat().st_size
        whole, rest = divmod(size, RAW_RECORD.itemsize)
        if rest:
            raise InputError(
                f"{path}: truncated: {whole} whole records and {rest} bytes of another "
                f"(a record has {RAW_RECORD.itemsize} bytes)"
            )
        return np.memmap(path, RAW_RECORD, "r") if whole else np.empty(0, RAW_RECORD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _only(what: str, paths: list[Path], values: list[NDArray[np.integer]]) -> list[int]:
    """The one value (a row of numbers) that all files agree on."""
    distinct = np.unique(np.concatenate(values), axis=0)
    if len(distinct) > 1:
        shown = ", ".join("x".join(str(int(n)) for n in row) for row in distinct[:5])
        raise InputError(
            f"{paths[0].parent}: mixed {what}: {shown}; stream one scan at a time (name its files with a glob)"
        )
    return [int(n) for n in distinct[0]]


def _position(records: Records, width: int, height: int) -> NDArray[np.int64]:
    """Flat scan position of each record, -1 where it lies outside the scan."""
    x, y = records["scan_position"].astype(np.int64).T
    position: NDArray[np.int64] = np.where((x < width) & (y < height), y * width + x, -1)
    return position


def _index_sector(files: list[Records], of_sector: NDArray[np.intp]) -> _SectorIndex:
    numbers = np.concatenate([files[i]["frame_number"] for i in of_sector]).astype(np.int64)
    lengths = [len(files[i]) for i in of_sector]
    order = np.argsort(numbers, kind="stable")
    return _SectorIndex(
        frame_numbers=numbers[order],
        file_index=np.repeat(of_sector, lengths)[order].astype(np.int64),
        record_index=np.concatenate([np.arange(length) for length in lengths])[order],
    )
