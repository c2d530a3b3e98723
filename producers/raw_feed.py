"""The raw files of a scan as a live feed: sent again as the detector would."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from producers.feed_sender import FeedScan, OutgoingFrame
from producers.raw_files import RawFiles
from topics.geometry import MAX_FRAMES, SECTORS


def raw_scan(files: RawFiles, scan_number: int | None = None) -> FeedScan:
    """Return the scan as it is to be sent, in the order of its frame numbers.

    ``scan_number`` replaces the one in the files. What the files hold twice is sent twice, what they miss is not sent.
    """
    numbers = np.unique(np.concatenate([files.frame_numbers(sector) for sector in range(SECTORS)]))
    return FeedScan(
        scan_number=files.scan_number if scan_number is None else scan_number,
        frames=files.width * files.height * files.frames_per_position,
        width_field=files.width,
        height_field=files.height,
        sectors=[_sector_frames(files, sector, numbers) for sector in range(SECTORS)],
    )


def _sector_frames(files: RawFiles, sector: int, numbers: NDArray[np.int64]) -> Iterator[OutgoingFrame]:
    """Frames of a sector; a frame's time is the place of its number among those of all sectors."""
    for frames in files.sector_frames(sector, 0, MAX_FRAMES + 1):
        slots = np.searchsorted(numbers, frames.frame_numbers).tolist()
        columns = (frames.frame_numbers.tolist(), frames.x.tolist(), frames.y.tolist())
        for slot, frame_number, x, y, pixels in zip(slots, *columns, frames.pixels, strict=True):
            yield OutgoingFrame(slot, frame_number, x, y, sector, pixels)
