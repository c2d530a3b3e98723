"""A dark reference from raw files: the mean of a scan that was recorded without beam."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.raw_files import RawFiles
from service.errors import FaultError, InputError
from topics.geometry import FRAME_WIDTH, SECTOR_ROWS, SECTORS

BATCH_FRAMES: Final = 64


def complete_frames(files: RawFiles) -> tuple[NDArray[np.int64], int]:
    """Frame numbers of which all four sectors are there, sorted, and how many there are that lack one."""
    sectors = [np.unique(files.frame_numbers(sector)) for sector in range(SECTORS)]
    complete: NDArray[np.int64] = reduce(np.intersect1d, sectors)
    return complete, len(reduce(np.union1d, sectors)) - len(complete)


def mean_frame(
    files: RawFiles, frame_numbers: NDArray[np.int64], progress: Callable[[int], None]
) -> NDArray[np.float32]:
    """Mean of these frames: exact sums, divided in float64, then rounded to float32.

    Of a sector frame that is there twice the first is taken, as the receiver does.

    Parameters
    ----------
    files
        The scan; a few of its sector frames at a time are read.
    frame_numbers
        Sorted; all of them complete, at least one.
    progress
        Called with the number of frames read so far.

    Returns
    -------
    (576, 576) float32, detector counts.
    """
    sums = np.zeros((SECTORS, SECTOR_ROWS, FRAME_WIDTH), np.uint64)
    for first in range(0, len(frame_numbers), BATCH_FRAMES):
        batch = frame_numbers[first : first + BATCH_FRAMES]
        for sector in range(SECTORS):
            _add(files, sector, batch, sums[sector])
        progress(first + len(batch))
    mean: NDArray[np.float64] = sums.reshape(-1, FRAME_WIDTH) / len(frame_numbers)
    return mean.astype(np.float32)


def _add(files: RawFiles, sector: int, frame_numbers: NDArray[np.int64], sums: NDArray[np.uint64]) -> None:
    waiting = set(frame_numbers.tolist())
    for records in files.sector_frames(sector, int(frame_numbers[0]), int(frame_numbers[-1]) + 1):
        for number, pixels in zip(records.frame_numbers.tolist(), records.pixels, strict=True):
            if number in waiting:
                np.add(sums, pixels, out=sums)
                waiting.remove(number)


def check_output(output: Path) -> None:
    """Refuse a file that cannot be written, before anything is read.

    Raises
    ------
    InputError
        It has another suffix than .npy, or its folder is not there or cannot be written.
    """
    if output.suffix != ".npy":
        raise InputError(f"{output}: a dark reference is written as .npy: give the file that suffix")
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from error


def write(output: Path, pixels: NDArray[np.float32]) -> None:
    """Write the pixels as .npy, all of them or nothing; a file of that name is replaced.

    Raises
    ------
    FaultError
        It cannot be written, for example because the disk is full.
    """
    content = io.BytesIO()
    np.save(content, pixels)  # not to the file: then numpy would not say why it fails
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        raise FaultError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
