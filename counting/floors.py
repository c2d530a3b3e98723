"""Floors: which pixels zero suppression may leave out, so that counting does not notice.

A pixel that corrections turn into a value at or below the background threshold counts as 0, whatever it was. So all
pixels that corrections turn into a value at or below a *floor* may be left out, if the background threshold is not
below that floor: the electrons are exactly the same. What a pixel's value may be at most, before corrections, is found
with the arithmetic of counting itself.
"""

import math

import numpy as np
from numpy.typing import NDArray

from counting import checks
from counting.corrections import PIXEL_MAX, Corrections
from counting.thresholds import ThresholdSamples

# With dark alone, raw - dark wraps round below 0. Up to this x-ray threshold (stempy's own limit, too) and this dark,
# all that wraps is cut off as x-rays are.
MAX_XRAY = 60_000
MAX_DARK = PIXEL_MAX + 1 - MAX_XRAY

NOISE_SIGMAS = 3.0
_XRAY_SIGMAS = 175.0  # stempy's; it bounds the histogram only


def pixel_floors(floor: float, corrections: Corrections, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Find for each pixel the greatest raw value that may be left out: it and all below it count as 0.

    Frames of which only the pixels above their floors are kept have exactly the electrons of the full frames, for any
    background threshold from ``floor`` on and, with dark but no gain, any x-ray threshold up to 60,000.

    Parameters
    ----------
    floor : float, detector counts
        The floor after corrections, 0 to 65,535.
    corrections : Corrections
        Those that the frames will be counted with.
    shape : (rows, width), pixels
        Size of the whole frame.

    Returns
    -------
    (rows, width) uint16, detector counts
        A pixel is kept if its raw value is greater. 65,535: it is never kept.

    Raises
    ------
    ValueError
        The floor is out of range; the corrections are not made for such frames, or have row dark, which needs all
        pixels of a row; a pixel's dark is so great that raw - dark wraps round to values that an x-ray threshold of
        60,000 does not cut off (dark without gain, above 5,536), or so far below 0 that even a raw 0 is above the
        floor.
    """
    _check_floor(floor, corrections)
    corrections.check_frame(*shape)
    if corrections.inverse_gain is not None:
        floors = _floors_with_gain(floor, corrections, shape)
    else:
        floors = _floors_of_whole_counts(floor, corrections, shape)
    _check_zero_is_left_out(floors, floor)
    return floors.astype(np.uint16)


def auto_floor(sector_frames: NDArray[np.uint16], corrections: Corrections, first_row: int) -> float:
    """Find the floor in samples: mean + 3 standard deviations of the noise.

    Both are those of the Gaussian fitted to the histogram of the corrected samples, as for automatic thresholds
    (counting.thresholds). The same samples give the same floor.

    Parameters
    ----------
    sector_frames : (n, rows, width) uint16, detector counts
        The samples, of one sector.
    corrections : Corrections
        Those of the whole frame, without row dark.
    first_row : int
        The sector's first row in the frame.

    Returns
    -------
    float, detector counts
        At least 0.

    Raises
    ------
    ThresholdError
        The samples give no floor; the message says why.
    ValueError
        The samples are not (n, rows, width) uint16, or the corrections are not made for such frames or have row dark.
    """
    checks.check_pixels("sector_frames", sector_frames)
    _check_floor(0.0, corrections)
    rows = slice(first_row, first_row + sector_frames.shape[1])
    of_sector = Corrections(
        dark=None if corrections.dark is None else corrections.dark[rows],
        gain=None if corrections.gain is None else corrections.gain[rows],
    )
    samples = ThresholdSamples(of_sector)
    samples.add((sector_frames,), np.arange(len(sector_frames)).reshape(-1, 1))
    return max(samples.find(NOISE_SIGMAS, _XRAY_SIGMAS).background, 0.0)


def values_that_count_as_zero(corrections: Corrections, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Give raw values that may stand for what was left out: corrected, they are 0 or at or below any allowed floor.

    With dark alone, raw 0 would not do for all thresholds: 0 - dark wraps round. With gain it does, as pixel_floors
    refuses corrections with which it is above the floor.

    Parameters
    ----------
    corrections : Corrections
        Those that the floors were made with.
    shape : (rows, width), pixels
        Size of the whole frame.

    Returns
    -------
    (rows, width) uint16, detector counts
    """
    if corrections.dark is None or corrections.gain is not None:
        return np.zeros(shape, np.uint16)
    return np.trunc(corrections.dark).astype(np.int64).astype(np.uint16)


def check_suppression(floor: float, background: float, xray: float, corrections: Corrections) -> None:
    """Refuse settings with which suppressed frames do not have the electrons of full frames.

    Parameters
    ----------
    floor : float, detector counts
        What the pixels' floors were made from.
    background, xray : float, detector counts
        The thresholds.
    corrections : Corrections
        Those of the whole frame.

    Raises
    ------
    ValueError
        Row dark; a background below the floor; dark without gain and an x-ray threshold above 60,000.
    """
    _check_floor(floor, corrections)
    if background < floor:
        raise ValueError(
            f"background: expected at least the floor of {floor} below which pixels were left out, got {background}"
        )
    if corrections.dark is not None and corrections.gain is None and xray > MAX_XRAY:
        raise ValueError(
            f"xray: expected at most {MAX_XRAY} with zero suppression, dark and no gain, got {xray}: pixels below the "
            "dark wrap round"
        )


def _check_floor(floor: float, corrections: Corrections) -> None:
    if not 0 <= floor <= PIXEL_MAX:
        raise ValueError(f"floor: expected 0 to {PIXEL_MAX} detector counts, got {floor}")
    if corrections.row_dark is not None:
        raise ValueError("row_dark: expected none with zero suppression: it needs all pixels of a row")


def _floors_of_whole_counts(floor: float, corrections: Corrections, shape: tuple[int, int]) -> NDArray[np.int64]:
    dark = np.zeros(shape, np.int64) if corrections.dark is None else np.trunc(corrections.dark).astype(np.int64)
    if dark.max(initial=0) > MAX_DARK:
        y, x = (int(number) for number in np.argwhere(dark > MAX_DARK)[0])
        raise ValueError(
            f"dark: expected at most {MAX_DARK} detector counts with zero suppression and no gain, got {dark[y, x]} at "
            f"y {y}, x {x}: a pixel below it would wrap round to less than an x-ray threshold of {MAX_XRAY}"
        )
    return np.minimum(dark + math.floor(floor), PIXEL_MAX)


def _floors_with_gain(floor: float, corrections: Corrections, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Search by halving: (raw - dark) · 1/gain in float32 never falls as raw rises."""
    dark, inverse_gain = corrections.dark, corrections.inverse_gain
    assert inverse_gain is not None
    left_out = np.full(shape, -1, np.int64)
    kept = np.full(shape, PIXEL_MAX + 1, np.int64)
    while (kept - left_out > 1).any():
        middle = (left_out + kept) // 2
        value = middle.astype(np.float32)
        if dark is not None:
            value -= dark
        with np.errstate(over="ignore"):
            value *= inverse_gain
        below = value.astype(np.float64) <= floor
        left_out[below] = middle[below]
        kept[~below] = middle[~below]
    return left_out


def _check_zero_is_left_out(floors: NDArray[np.int64], floor: float) -> None:
    if floors.min(initial=0) < 0:
        y, x = (int(number) for number in np.argwhere(floors < 0)[0])
        raise ValueError(
            f"dark: expected that a pixel of 0 is at or below the floor of {floor}; at y {y}, x {x} the dark is so far "
            "below 0 that it is not"
        )
