"""The stempy engine: stempy's own compiled counting, frame by frame; what the fast engine is measured against."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from stempy.image import electron_count_frame


def count(
    sectors: Sequence[NDArray[np.uint16]], slots: NDArray[np.int64], background: float, xray: float
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count electrons; arguments as checked by counting.count_sectors, which describes them.

    Each frame is put together in one buffer, as stempy takes whole frames only.

    Parameters
    ----------
    sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
        The sector frames, C-contiguous.
    slots : (n, S) int64
        Frame ``i`` is made of ``sectors[m][slots[i, m]]``.
    background, xray : float, detector counts
        The thresholds.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices, ascending within each frame.
    offsets : (n + 1,) int64
        Where each frame's electrons begin and end in ``indices``.

    References
    ----------
    OpenChemistry/stempy@0a191e7, python/stempy/image/__init__.py: ``electron_count_frame``, and stempy/electron.cpp:
    a pixel at or below the background or at or above the x-ray threshold is 0; then strict maxima of 3 x 3 pixels.
    """
    _, rows, width = sectors[0].shape
    frame = np.empty((len(sectors) * rows, width), np.uint16)
    offsets = np.zeros(len(slots) + 1, np.int64)
    pieces = [np.empty(0, np.uint32)]
    for i, frame_slots in enumerate(slots):
        for m, slot in enumerate(frame_slots):
            frame[m * rows : (m + 1) * rows] = sectors[m][slot]
        counted = electron_count_frame(frame, background_threshold=background, xray_threshold=xray)
        pieces.append(counted.data[0, 0])
        offsets[i + 1] = offsets[i] + len(pieces[-1])
    return np.concatenate(pieces), offsets
