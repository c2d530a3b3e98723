"""Sector frames of which only the pixels above a floor are left, as a list; and back to frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREATEST_GAP = 65_535


@dataclass(frozen=True, slots=True)
class SuppressedFrames:
    """The listed pixels of sector frames; all others are at or below their floors (counting.floors).

    Attributes
    ----------
    listed : (m, 2) uint16, C-contiguous
        A row for each listed pixel, in the order of the flat (n, rows, width) array: its gap (how many pixels lie
        between it and the one before it; before the first one, between it and the array's beginning), and its value in
        detector counts, before corrections. A gap of more than 65,535 is bridged by rows (65,535, 0).
    shape : (n, rows, width)
        Shape of the array of sector frames.

    Raises
    ------
    ValueError
        The list has another dtype, shape or memory layout. That its pixels lie within the frames is for its maker to
        see to (topics.suppressed does so): looking at all of them would take as long as counting a part of them. What
        lies beyond is not counted.
    """

    listed: NDArray[np.uint16]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        _check(self.listed, self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self, unlisted: NDArray[np.uint16] | int = 0) -> NDArray[np.uint16]:
        """Give frames again, with one value or one a pixel in place of what was left out.

        Parameters
        ----------
        unlisted : (rows, width) uint16 or int, detector counts
            What pixels that are not listed get.

        Returns
        -------
        (n, rows, width) uint16, detector counts

        Raises
        ------
        ValueError
            The list goes beyond the last frame.
        """
        frames = np.empty(self.shape, np.uint16)
        frames[...] = unlisted
        gaps, values = self.listed[:, 0], self.listed[:, 1]
        pixels = np.cumsum(gaps, dtype=np.int64) + np.arange(len(gaps))
        if len(pixels) and pixels[-1] >= frames.size:
            raise ValueError(f"listed: expected pixels within frames of shape {self.shape}, got pixel {pixels[-1]}")
        frames.reshape(-1)[pixels[values > 0]] = values[values > 0]
        return frames


def _check(listed: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401
    if not isinstance(listed, np.ndarray) or listed.dtype != np.uint16 or listed.shape[1:] != (2,):
        raise ValueError(
            "listed: expected an (m, 2) array of uint16, "
            f"got {getattr(listed, 'shape', '')} {getattr(listed, 'dtype', type(listed).__name__)}"
        )
    if not listed.flags.c_contiguous:
        raise ValueError(f"listed: expected a C-contiguous array, got strides {listed.strides}")
    if len(shape) != 3 or min(shape) < 0:
        raise ValueError(f"shape: expected (n, rows, width), got {shape}")


def check_sectors(sectors: Sequence[SuppressedFrames]) -> None:
    """Refuse sectors that do not make up a frame.

    Parameters
    ----------
    sectors : sequence of S SuppressedFrames
        The sector frames, one object a sector.

    Raises
    ------
    ValueError
        No sector, or sectors of unequal rows or width.
    """
    if len(sectors) == 0:
        raise ValueError("sectors: expected at least one, got none")
    for m, sector in enumerate(sectors):
        if sector.shape[1:] != sectors[0].shape[1:]:
            raise ValueError(
                f"sectors[{m}]: expected rows and width of sectors[0], {sectors[0].shape[1:]}, got {sector.shape[1:]}"
            )
