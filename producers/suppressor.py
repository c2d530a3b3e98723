"""How one sector's chunks become payloads when only the pixels above a floor are sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import counting
from counting import Corrections
from counting.thresholds import ThresholdError
from producers.suppression import SuppressionSettings
from service.errors import InputError
from service.logs import get_logger
from topics import suppressed
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS, SECTORS

# An automatic floor that is not found in a chunk is looked for again in every so many-th.
_RETRY_CHUNKS = 16


def check_suppression(settings: SuppressionSettings) -> None:
    """Refuse references with which pixels cannot be suppressed, and make ready what the first chunk would wait for.

    Raises
    ------
    InputError
        No floor could be used with these references.
    """
    try:
        _floors_of_frame(settings, 0.0 if settings.floor is None else settings.floor)
    except ValueError as error:
        raise InputError(f"zero suppression: {error}") from error
    noise = np.random.default_rng(0).normal(1000, 5, (1, SECTOR_ROWS, FRAME_WIDTH)).astype(np.uint16)
    for sector in range(SECTORS):
        Suppressor(sector, settings).compress(noise)


@dataclass(slots=True)
class Suppressor:
    """Zero suppression of one sector of one scan, with settings that were checked.

    An automatic floor is found in the sector's first chunk that has noise; what comes before is sent in full.
    """

    sector: int
    settings: SuppressionSettings
    _floor: float | None = None
    _floors: NDArray[np.uint16] | None = None
    _tried: int = 0

    def compress(self, sector_frames: NDArray[np.uint16]) -> tuple[bytes, float] | None:
        """Payload of a chunk's sector frames, (n, 144, 576) uint16, and its floor; None while no floor is found."""
        if self._floors is None:
            self._tried += 1
            if self._tried % _RETRY_CHUNKS == 1:
                self._find_floors(sector_frames)
        if self._floors is None or self._floor is None:
            return None
        return suppressed.compress(counting.suppress(sector_frames, self._floors).listed), self._floor

    def _find_floors(self, sector_frames: NDArray[np.uint16]) -> None:
        rows = slice(self.sector * SECTOR_ROWS, (self.sector + 1) * SECTOR_ROWS)
        floor = self.settings.floor
        try:
            if floor is None:
                floor = counting.auto_floor(sector_frames, _corrections(self.settings), rows.start)
            self._floors = np.ascontiguousarray(_floors_of_frame(self.settings, floor)[rows])
            self._floor = floor
        except (ThresholdError, ValueError) as error:
            get_logger().warning("no floor found, chunks are sent in full", sector=self.sector, reason=str(error))


@lru_cache(1)
def _corrections(settings: SuppressionSettings) -> Corrections:
    return Corrections(dark=settings.dark, gain=settings.gain)


@lru_cache(8)
def _floors_of_frame(settings: SuppressionSettings, floor: float) -> NDArray[np.uint16]:
    """(576, 576) uint16: the floor of each pixel, kept as it is the same in every scan."""
    return counting.pixel_floors(floor, _corrections(settings), (FRAME_HEIGHT, FRAME_WIDTH))
