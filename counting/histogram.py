"""The histogram of sample frames, compiled: what counting.thresholds gathers them with.

All that the kernel calls stays in this file, as numba's cache only notices changes of the kernel's own file.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from counting.corrections import PIXEL_MAX, Corrections

FIRST = -65_536
LAST = 2 * 65_536 - 1  # raw - dark always lies within; what a small gain brings beyond counts as first or last
LANES = 4  # histograms that take turns: a pixel need not wait until the one before it, often in the same bin, is added


class Histogram:
    """How often each number of counts occurs in corrected samples.

    Samples are whole numbers, as in stempy: rounded down after dark is subtracted and again after gain is applied.
    Without gain only the dark's own fraction is cut off. Row dark is not applied.

    Parameters
    ----------
    corrections : Corrections
        Dark and gain.
    rows, width : int, pixels
        Size of the whole frame.

    Attributes
    ----------
    saturated : int
        Number of pixels with the greatest raw value.
    """

    def __init__(self, corrections: Corrections, rows: int, width: int) -> None:
        self._references = np.empty((rows, 2, width), np.float32)
        self._references[:, 0] = 0 if corrections.dark is None else corrections.dark
        self._references[:, 1] = 1 if corrections.inverse_gain is None else corrections.inverse_gain
        if corrections.gain is None:
            np.trunc(self._references, out=self._references)
        self._lanes = np.zeros((LANES, LAST - FIRST + 1), np.int64)
        self.saturated = 0

    def add(self, sectors: Sequence[NDArray[np.uint16]], slots: NDArray[np.int64]) -> None:
        """Add frames; arguments as checked by counting.count_sectors, which describes them."""
        rows = sectors[0].shape[1]
        for m, sector in enumerate(sectors):
            references = self._references[m * rows : (m + 1) * rows]
            for slot in slots[:, m]:
                raw = np.require(sector[slot], requirements="A")
                raw.flags.writeable = False  # to numba a writable array is another type
                _add(raw, references, self._lanes)
                self.saturated += int(np.count_nonzero(raw == PIXEL_MAX))

    def counted(self) -> tuple[int, NDArray[np.int64]]:
        """Give the smallest sample, and how often it and each number above it occurs, up to the greatest sample."""
        total = self._lanes.sum(axis=0)
        (occurring,) = np.nonzero(total)
        return FIRST + int(occurring[0]), total[occurring[0] : occurring[-1] + 1]


@njit(cache=True, nogil=True)
def _add(raw: NDArray[np.uint16], references: NDArray[np.float32], lanes: NDArray[np.int64]) -> None:
    """Add a sector frame, given its rows of dark and of 1 / gain."""
    rows, width = raw.shape
    bins = np.empty(width, np.int32)
    in_lanes = width - width % LANES
    for y in range(rows):
        _find_bins(raw[y], references[y, 0], references[y, 1], bins)
        for x in range(0, in_lanes, LANES):
            for lane in range(LANES):
                lanes[lane, bins[x + lane]] += 1
        for x in range(in_lanes, width):
            lanes[0, bins[x]] += 1


@njit(inline="always")
def _find_bins(
    raw: NDArray[np.uint16], dark: NDArray[np.float32], inverse_gain: NDArray[np.float32], bins: NDArray[np.int32]
) -> None:
    """Correct a row; nothing but this in the loop, so that it becomes vector instructions."""
    for x in range(len(bins)):
        subtracted = np.float32(raw[x]) - dark[x]
        sample = np.float32(_rounded_down(subtracted)) * inverse_gain[x]
        sample = sample if sample > np.float32(FIRST) else np.float32(FIRST)
        sample = sample if sample < np.float32(LAST) else np.float32(LAST)
        bins[x] = _rounded_down(sample) - np.int32(FIRST)


@njit(inline="always")
def _rounded_down(value: np.float32) -> np.int32:
    cut_off = np.int32(value)
    return np.int32(cut_off - np.int32(np.float32(cut_off) > value))
