"""How one sector's chunks become payloads when only the pixels above a floor are sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import counting
from counting import Corrections
from counting.thresholds import ThresholdError
from producers.suppression import SuppressionSettings
from service.errors import InputError
from service.logs import get_logger
from topics import suppressed
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS


def make_suppressor(settings: SuppressionSettings, sector: int) -> Suppressor:
    """Suppressor of one sector of one scan.

    Raises
    ------
    InputError
        Pixels cannot be suppressed with these references.
    """
    try:
        suppressor = Suppressor(sector, settings.floor, Corrections(dark=settings.dark, gain=settings.gain))
        suppressor.prepare()
    except ValueError as error:
        raise InputError(f"zero suppression: {error}") from error
    return suppressor


@dataclass(slots=True)
class Suppressor:
    """Zero suppression of one sector of one scan.

    ``floor`` None: it is found in the sector's first chunk that has noise; what comes before is sent in full.
    ``corrections`` are those that the scan will be counted with: the floor is one of corrected pixels.
    """

    sector: int
    floor: float | None
    corrections: Corrections
    _floors: NDArray[np.uint16] | None = None

    def prepare(self) -> None:
        """Find the floor of each pixel, if the floor is known; ValueError if the references do not allow it."""
        if self.floor is not None:
            floors = counting.pixel_floors(self.floor, self.corrections, (FRAME_HEIGHT, FRAME_WIDTH))
            first_row = self.sector * SECTOR_ROWS
            self._floors = np.ascontiguousarray(floors[first_row : first_row + SECTOR_ROWS])

    def compress(self, sector_frames: NDArray[np.uint16]) -> tuple[bytes, float] | None:
        """Payload of a chunk's sector frames, (n, 144, 576) uint16, and its floor; None while no floor is found."""
        if self.floor is None:
            try:
                self.floor = counting.auto_floor(sector_frames, self.corrections, self.sector * SECTOR_ROWS)
            except ThresholdError as error:
                get_logger().warning("no floor found, the chunk is sent in full", sector=self.sector, reason=str(error))
                return None
            get_logger().info("floor found", sector=self.sector, floor=self.floor)
            self.prepare()
        assert self._floors is not None
        return suppressed.compress(counting.suppress(sector_frames, self._floors).listed), self.floor
