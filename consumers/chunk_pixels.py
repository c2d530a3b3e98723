"""The pixels of a rejoined chunk, decompressed, and which of its frames are complete."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.rejoin import JoinedChunk
from topics.errors import DecodeError
from topics.geometry import FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS


@dataclass(frozen=True, slots=True)
class ChunkPixels:
    """A chunk's pixels; valid until the next chunk is decompressed.

    Attributes
    ----------
    sectors
        One (n, 144, 576) uint16 array a sector: the sector frames that were sent.
    present
        (sectors, frames) bool: which sector frames are there.
    slots
        (complete frames, sectors) int64: where each complete frame's sector frames lie in ``sectors``.
    damaged
        A line for each sector whose pixels could not be decompressed; it counts as missing.
    """

    sectors: list[NDArray[np.uint16]]
    present: NDArray[np.bool_]
    slots: NDArray[np.int64]
    damaged: list[str]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(frames,) bool: all sectors are there."""
        return np.asarray(self.present.all(axis=0))


class Decompressor:
    """Decompresses chunk after chunk into the same buffers, one a sector."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = [np.empty(0, np.uint8) for _ in range(SECTORS)]

    def decompress(self, chunk: JoinedChunk) -> ChunkPixels:
        """Decompress what each sector has of a chunk."""
        present = np.zeros((SECTORS, chunk.geometry.frames_in_chunk(chunk.index)), bool)
        sectors = [np.empty((0, SECTOR_ROWS, FRAME_WIDTH), np.uint16) for _ in range(SECTORS)]
        damaged = []
        for sector, part in enumerate(chunk.sectors):
            if part is None:
                continue
            try:
                sectors[sector] = part.sector_frames(self._buffer(sector, part.header.sector_frames))
            except DecodeError as error:
                damaged.append(f"chunk {chunk.index} of sector {sector}: {error}")
                continue
            present[sector] = part.header.present
        # Where a frame's sector frame lies among those the sector sent: frames that are missing were not sent.
        slots = (np.cumsum(present, axis=1) - 1)[:, present.all(axis=0)].T
        return ChunkPixels(sectors, present, np.ascontiguousarray(slots), damaged)

    def _buffer(self, sector: int, sector_frames: int) -> NDArray[np.uint8]:
        needed = sector_frames * SECTOR_FRAME_BYTES
        if len(self._buffers[sector]) < needed:
            self._buffers[sector] = np.empty(needed, np.uint8)
        return self._buffers[sector]
