"""A simulated scan as raw files, as the camera's servers would have left them."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from producers.raw_format import RAW_RECORD, parse_raw_file_name, raw_file_name
from producers.simulator import Simulation, Truth
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS, SECTORS

BATCH_FRAMES: Final = 64


class NotEnoughDiskSpaceError(OSError):
    """The raw files do not fit on the disk."""

    def __init__(self, folder: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"not enough disk space in {folder}: the raw files need {needed_bytes:,} bytes, {free_bytes:,} are free"
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


def write_raw_files(
    simulation: Simulation,
    output: Path,
    *,
    scan_number: int = 1,
    files_per_module: int = 1,
    out_of_order: int = 0,
    truth: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write the raw files of a simulated scan; what it began is removed again if it fails.

    Parameters
    ----------
    simulation
        The scan.
    output
        Folder of the files, made if it is not there.
    scan_number
        The camera's scan number.
    files_per_module
        Frame f goes to part f mod ``files_per_module`` of each module, as if each part had its sender thread.
    out_of_order
        How many places a record may be away from where its frame number belongs, in each module differently.
    truth
        Where to write the electrons and x-rays (see `write_truth`).
    progress
        Called with the number of frames made so far.

    Returns
    -------
    The raw files, by module and part.

    Raises
    ------
    NotEnoughDiskSpaceError
        If the files would not fit.
    FileExistsError
        If ``output`` holds raw files of this scan already, or ``truth`` is there.
    OSError
        If the files cannot be written.
    """
    if files_per_module < 1 or out_of_order < 0:
        raise ValueError(
            f"files_per_module {files_per_module} must be 1 or more, out_of_order {out_of_order} 0 or more"
        )
    output.mkdir(parents=True, exist_ok=True)
    _check_folder(output, scan_number, simulation.frame_count)
    paths = [
        output / raw_file_name(scan_number, module, part)
        for module in range(SECTORS)
        for part in range(files_per_module)
    ]
    with ExitStack() as undo:
        with ExitStack() as files:
            parts = [_create(path, files, undo) for path in paths]
            truth_file = _create(truth, files, undo) if truth is not None else None
            modules = [
                _Module(module, parts[module * files_per_module :][:files_per_module], simulation.seed, out_of_order)
                for module in range(SECTORS)
            ]
            truths = []
            for headers, pixels, hits in _batches(simulation, scan_number):
                for module in modules:
                    module.take(headers, pixels)
                if truth_file is not None:
                    truths.append(hits)
                if progress is not None:
                    progress(int(headers["frame_number"][-1]) + 1)
            for module in modules:
                module.release(math.inf)
            if truth_file is not None:
                write_truth(truth_file, simulation, Truth.join(truths))
        undo.pop_all()
    return paths


def write_truth(file: BinaryIO, simulation: Simulation, truth: Truth, **more: ArrayLike) -> None:
    """Write what hit the detector as an .npz archive.

    It holds the fields of `Truth`, ``dark`` (576, 576) int16, ``simulation``, the parameters as JSON text, and what
    else is given.
    """
    parameters = json.dumps(dataclasses.asdict(simulation))
    np.savez(file, allow_pickle=False, dark=simulation.dark, simulation=parameters, **truth._asdict(), **more)


def _check_folder(output: Path, scan_number: int, frames: int) -> None:
    for path in sorted(output.iterdir()):
        parsed = parse_raw_file_name(path.name)
        if parsed is not None and parsed[0] == scan_number:
            raise FileExistsError(f"{output} holds raw files of scan {scan_number} already: {path.name}")
    needed, free = frames * SECTORS * RAW_RECORD.itemsize, shutil.disk_usage(output).free
    if needed > free:
        raise NotEnoughDiskSpaceError(output, needed, free)


def _create(path: Path, files: ExitStack, undo: ExitStack) -> BinaryIO:
    file = files.enter_context(path.open("xb"))
    undo.callback(path.unlink, missing_ok=True)
    return file


def _batches(simulation: Simulation, scan_number: int) -> Iterator[tuple[NDArray[np.void], NDArray[np.uint16], Truth]]:
    """Headers (records without pixels), pixels and truth of the whole scan; the pixels are overwritten."""
    header = np.dtype([(name, RAW_RECORD[name]) for name in RAW_RECORD.names or () if name != "pixels"])
    memory = np.empty((BATCH_FRAMES, FRAME_HEIGHT, FRAME_WIDTH), np.uint16)
    for first in range(0, simulation.frame_count, BATCH_FRAMES):
        count = min(BATCH_FRAMES, simulation.frame_count - first)
        pixels, truth = simulation.frames(first, count, out=memory[:count])
        headers = np.empty(count, header)
        headers["scan_number"] = scan_number
        headers["frame_number"] = np.arange(first, first + count)
        headers["scan_size"] = simulation.width, simulation.height
        y, x = simulation.scan_position(headers["frame_number"])
        headers["scan_position"] = np.stack([x, y], axis=-1)
        yield headers, pixels, truth


class _Waiting(NamedTuple):
    due: float
    frame_number: int
    header: bytes
    pixels: NDArray[np.uint16]


class _Module:
    """The files of one module, and the records that are held back so that they come out of order."""

    def __init__(self, module: int, files: list[BinaryIO], seed: int, out_of_order: int) -> None:
        self._rows = slice(module * SECTOR_ROWS, (module + 1) * SECTOR_ROWS)
        self._files = files
        self._random = np.random.default_rng((seed, module))
        self._out_of_order = out_of_order
        self._waiting: list[_Waiting] = []

    def take(self, headers: NDArray[np.void], pixels: NDArray[np.uint16]) -> None:
        """Take the next frames, and write what is due."""
        delays = self._random.uniform(0, self._out_of_order, len(headers))
        numbers = headers["frame_number"].tolist()
        for header, frame, number, delay in zip(headers, pixels, numbers, delays, strict=True):
            self._waiting.append(_Waiting(number + delay, number, header.tobytes(), frame[self._rows]))
        self.release(numbers[-1] + 1)
        # The batch's memory is used again.
        self._waiting = [record._replace(pixels=record.pixels.copy()) for record in self._waiting]

    def release(self, frame_number: float) -> None:
        """Write the records that are due before this frame number."""
        self._waiting.sort(key=lambda record: record.due)
        ready = bisect_left(self._waiting, frame_number, key=lambda record: record.due)
        for record in self._waiting[:ready]:
            file = self._files[record.frame_number % len(self._files)]
            file.write(record.header)
            file.write(record.pixels.data)
        del self._waiting[:ready]
