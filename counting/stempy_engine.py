"""The stempy engine: stempy's own compiled counting, frame by frame; what the fast engine is measured against."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stempy import _image
from stempy.image import electron_count_frame
from stempy.io import PyReader

from counting.corrections import Corrections


def count(
    sectors: Sequence[NDArray[np.uint16]],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    corrections: Corrections,
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
    corrections : Corrections
        Made for frames of this size.

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
    With row dark, which that function ignores: ``electron_count`` over a ``PyReader``.
    """
    _, rows, width = sectors[0].shape
    frame = np.empty((len(sectors) * rows, width), np.uint16)
    options = _options(background, xray, corrections)
    count_one = _count_with_row_dark if corrections.row_dark else _count_frame
    offsets = np.zeros(len(slots) + 1, np.int64)
    pieces = [np.empty(0, np.uint32)]
    for i, frame_slots in enumerate(slots):
        for m, slot in enumerate(frame_slots):
            frame[m * rows : (m + 1) * rows] = sectors[m][slot]
        pieces.append(count_one(frame, options))
        offsets[i + 1] = offsets[i] + len(pieces[-1])
    return np.concatenate(pieces), offsets


def _count_frame(frame: NDArray[np.uint16], options: Any) -> NDArray[np.uint32]:  # noqa: ANN401
    electrons: NDArray[np.uint32] = electron_count_frame(frame, options=options).data[0, 0]
    return electrons


def _count_with_row_dark(frame: NDArray[np.uint16], options: Any) -> NDArray[np.uint32]:  # noqa: ANN401
    reader = PyReader(frame[np.newaxis], [0], (1, 1), 1, 1)  # one image, number 0, of a scan of 1 x 1, in blocks of 1
    return np.array(_image.electron_count(reader.begin(), reader.end(), options).data[0][0], np.uint32)


@functools.lru_cache(maxsize=4)
def _options(background: float, xray: float, corrections: Corrections) -> Any:  # noqa: ANN401
    options = _image.ElectronCountOptionsClassic()
    options.background_threshold = background
    options.x_ray_threshold = xray
    options.dark_reference = corrections.dark
    options.gain = corrections.inverse_gain
    options.scan_dimensions = (1, 1)
    options.apply_row_dark_subtraction = corrections.row_dark is not None
    options.apply_row_dark_use_mean = corrections.row_dark == "mean"
    options.optimized_mean = corrections.optimized_mean or 0.0
    return options
