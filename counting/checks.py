"""What counting refuses: each check names the argument, what was expected and what came."""

import math
from collections.abc import Sequence, Sized

import numpy as np
from numpy.typing import NDArray

# stempy computes neighbours in uint16; it also keeps every flat index within uint32.
MAX_SIDE_PX = 65_535


def check_pixels(name: str, pixels: NDArray[np.uint16]) -> None:
    """Refuse anything but a C-contiguous (n, y, x) uint16 array.

    Parameters
    ----------
    name : str
        What the message calls the array.
    pixels : (n, y, x) uint16, detector counts
        The frames or sector frames.

    Raises
    ------
    ValueError
        Not an array, or one of another dtype, byte order, number of dimensions or memory layout.
    """
    if getattr(pixels, "dtype", None) != np.uint16:
        raise ValueError(
            f"{name}: expected an array of uint16 in native byte order, "
            f"got {getattr(pixels, 'dtype', type(pixels).__name__)}"
        )
    if pixels.ndim != 3:
        raise ValueError(f"{name}: expected 3 dimensions (n, y, x), got shape {pixels.shape}")
    if not pixels.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {pixels.strides}")


def check_sectors(sectors: Sequence[NDArray[np.uint16]]) -> None:
    """Refuse sectors that do not make up a frame.

    Parameters
    ----------
    sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
        The sector frames, one array a sector.

    Raises
    ------
    ValueError
        No sector, an array that check_pixels refuses, or sectors of unequal rows or width.
    """
    if len(sectors) == 0:
        raise ValueError("sectors: expected at least one array, got none")
    for m, sector in enumerate(sectors):
        check_pixels(f"sectors[{m}]", sector)
        if sector.shape[1:] != sectors[0].shape[1:]:
            raise ValueError(
                f"sectors[{m}]: expected rows and width of sectors[0], {sectors[0].shape[1:]}, got {sector.shape[1:]}"
            )


def check_slots(slots: NDArray[np.int64], sectors: Sequence[Sized]) -> None:
    """Refuse slots that point outside the sector arrays.

    Parameters
    ----------
    slots : (n, S) int64
        For each frame, the slot of its sector frame in each sector's array.
    sectors : sequence of S arrays (n_m, rows, width) uint16 or SuppressedFrames
        What the slots point into, already checked.

    Raises
    ------
    ValueError
        Wrong dtype or shape, or a slot that is negative or beyond its sector's array.
    """
    if getattr(slots, "dtype", None) != np.int64:
        raise ValueError(f"slots: expected an int64 array, got {getattr(slots, 'dtype', type(slots).__name__)}")
    if slots.ndim != 2 or slots.shape[1] != len(sectors):
        raise ValueError(f"slots: expected shape (n, {len(sectors)}), one column a sector, got {slots.shape}")
    capacities = [len(sector) for sector in sectors]
    outside = (slots < 0) | (slots >= capacities)
    if outside.any():
        i, m = (int(number) for number in np.argwhere(outside)[0])
        raise ValueError(
            f"slots[{i}, {m}]: expected 0 to {capacities[m] - 1}, as sectors[{m}] holds {capacities[m]} sector frames, "
            f"got {slots[i, m]}"
        )


def check_frame_size(rows: int, width: int) -> None:
    """Refuse frames on which stempy is not defined.

    Parameters
    ----------
    rows, width : int, pixels
        Size of the whole frame.

    Raises
    ------
    ValueError
        A side above 65,535, or fewer than 2 pixels: stempy counts a lone pixel whatever its value.
    """
    if rows * width < 2 or max(rows, width) > MAX_SIDE_PX:
        raise ValueError(
            f"frame: expected at least 2 pixels and at most {MAX_SIDE_PX} a side, got {rows} rows of {width}"
        )


def check_thresholds(background: float, xray: float) -> None:
    """Refuse thresholds that are not numbers; infinite ones are fine.

    Parameters
    ----------
    background, xray : float, detector counts
        The thresholds.

    Raises
    ------
    ValueError
        A threshold is NaN.
    """
    for name, threshold in (("background", background), ("xray", xray)):
        if math.isnan(threshold):
            raise ValueError(f"{name}: expected a threshold in detector counts, got {threshold}")
