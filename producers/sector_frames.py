"""What a source hands to the receiver: a few sector frames of one sector, with the numbers the detector gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SectorFrames:
    """Sector frames as they came, in any order, not yet checked.

    ``frame_numbers``, ``x`` and ``y`` are (n,) int64: frame number and scan position; ``pixels`` is
    (n, 144, 576) uint16, detector counts, possibly a strided view of a file.
    """

    frame_numbers: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    pixels: NDArray[np.uint16]
