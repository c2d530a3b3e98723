"""What a receiver is told about zero suppression. Without numba, which only suppression itself needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topics.reference import sha256_of
from topics.scan_log import ZeroSuppression


@dataclass(frozen=True, slots=True, eq=False)
class SuppressionSettings:
    """``floor`` in counts after corrections, None: found in each scan. ``keep_full``: see SectorPublisher."""

    floor: float | None
    dark: NDArray[np.float32] | None = None
    gain: NDArray[np.float32] | None = None
    keep_full: int = 0

    @property
    def references(self) -> list[NDArray[np.float32]]:
        """Those that there are."""
        return [pixels for pixels in (self.dark, self.gain) if pixels is not None]

    @property
    def stated(self) -> ZeroSuppression:
        """What the scan log says of it."""
        return ZeroSuppression(
            floor=self.floor,
            dark=None if self.dark is None else sha256_of(self.dark),
            gain=None if self.gain is None else sha256_of(self.gain),
        )
