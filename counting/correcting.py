"""Frames corrected first and searched pixel by pixel: what the fast engine does where its shortcuts do not hold.

That is with row dark, where each half row is scaled by its own mean or median, and with gain and a negative background,
where a pixel cut off to 0 can exceed its neighbours. It follows stempy's arithmetic step by step, float32 by float32.
"""

# ruff: noqa: PLR0917 - a kernel has no objects that could hold its arrays together

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from counting.corrections import ROW_DARK_STATISTICS, WRAPPING_XRAY, Corrections

MEAN = ROW_DARK_STATISTICS.index("mean")


def count(
    sectors: Sequence[NDArray[np.uint16]],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    corrections: Corrections,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count electrons with any corrections and thresholds; arguments and result as those of fast.count."""
    _, rows, width = sectors[0].shape
    height = len(sectors) * rows
    raw = np.empty((height, width), np.uint16)
    electrons = np.empty(((height + 1) // 2) * ((width + 1) // 2), np.uint32)  # one in each 2 x 2 pixels
    offsets = np.zeros(len(slots) + 1, np.int64)
    pieces = [np.empty(0, np.uint32)]
    settings = (
        _neutral(0, raw.shape) if corrections.dark is None else corrections.dark,
        _neutral(1, raw.shape) if corrections.inverse_gain is None else corrections.inverse_gain,
        corrections.gain is None,
        -1 if corrections.row_dark is None else ROW_DARK_STATISTICS.index(corrections.row_dark),
        np.float32(corrections.optimized_mean or 0),
        float(background),
        float(xray),
    )
    for i, frame_slots in enumerate(slots):
        for m, slot in enumerate(frame_slots):
            raw[m * rows : (m + 1) * rows] = sectors[m][slot]
        found = _count_frame(raw, *settings, electrons)
        pieces.append(electrons[:found].copy())
        offsets[i + 1] = offsets[i] + found
    return np.concatenate(pieces), offsets


def _neutral(value: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Give a reference that changes nothing."""
    reference = np.full(shape, value, np.float32)
    reference.flags.writeable = False  # as the others are: to numba a writable array is another type
    return reference


_compiled = njit(cache=True, nogil=True, error_model="numpy")  # division by zero is infinite, as in stempy


@_compiled
def _cut_off(value: np.float32) -> np.float32:
    """Turn a float into a uint16 as stempy's compiled code does: the low 16 bits of its int32, or 0 if it has none."""
    if abs(value) < np.float32(2147483648.0):
        return np.float32(np.int64(value) & 0xFFFF)
    return np.float32(0.0)


@_compiled
def _scale(raw: NDArray[np.uint16], statistic: int, optimized_mean: np.float32) -> np.float32:
    """Give the factor of a half row."""
    if statistic == MEAN:
        total = np.float32(0.0)  # pixel by pixel in float32: above 2**24 the order decides how it rounds
        for value in raw:
            total = np.float32(total + np.float32(value))
        return np.float32(optimized_mean / np.float32(total / np.float32(len(raw))))
    return np.float32(optimized_mean / np.float32(np.median(raw)))


@_compiled
def _correct_half_row(
    raw: NDArray[np.uint16],
    dark: NDArray[np.float32],
    inverse_gain: NDArray[np.float32],
    whole: bool,
    scale: np.float32,
    limits: tuple[float, float],
    corrected: NDArray[np.float32],
) -> None:
    """Write a half row as it is compared: corrected, `whole` without gain, and 0 where the thresholds cut it off."""
    background, xray = limits
    for x in range(len(raw)):
        value = np.float32(np.float32(raw[x]) - dark[x])
        if whole:
            value = _cut_off(max(value, np.float32(0.0)) if xray > WRAPPING_XRAY else value)
        value = np.float32(value * scale)
        value = _cut_off(value) if whole else np.float32(value * inverse_gain[x])
        corrected[x] = np.float32(0.0) if value <= background or value >= xray else value


@_compiled
def _is_maximum(frame: NDArray[np.float32], y: int, x: int) -> bool:
    value = frame[y, x]
    for y_near in range(max(y - 1, 0), min(y + 2, frame.shape[0])):
        for x_near in range(max(x - 1, 0), min(x + 2, frame.shape[1])):
            # Not the same as <=: row dark makes NaN of a half row of zeros, which nothing exceeds.
            if (y_near != y or x_near != x) and not value > frame[y_near, x_near]:
                return False
    return True


@_compiled
def _count_frame(
    raw: NDArray[np.uint16],
    dark: NDArray[np.float32],
    inverse_gain: NDArray[np.float32],
    whole: bool,
    statistic: int,
    optimized_mean: np.float32,
    background: float,
    xray: float,
    electrons: NDArray[np.uint32],
) -> int:
    """Write a frame's electrons to the start of `electrons` and give their number."""
    height, width = raw.shape
    corrected = np.empty((height, width), np.float32)
    for y in range(height):
        for half in (slice(0, width // 2), slice(width // 2, width)):
            scale = _scale(raw[y, half], statistic, optimized_mean) if statistic >= 0 else np.float32(1.0)
            _correct_half_row(
                raw[y, half], dark[y, half], inverse_gain[y, half], whole, scale, (background, xray), corrected[y, half]
            )
    found = 0
    for y in range(height):
        for x in range(width):
            if _is_maximum(corrected, y, x):
                electrons[found] = y * width + x
                found += 1
    return found
