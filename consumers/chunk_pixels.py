"""The pixels of a rejoined chunk, decompressed, and which of its frames are complete."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.rejoin import JoinedChunk
from counting import SuppressedFrames
from topics.chunk import Chunk
from topics.codec import Codec
from topics.errors import DecodeError
from topics.geometry import FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS

SectorPixels = NDArray[np.uint16] | SuppressedFrames
NO_PIXELS = SuppressedFrames(np.empty((0, 2), np.uint16), (0, SECTOR_ROWS, FRAME_WIDTH))


@dataclass(frozen=True, slots=True)
class ChunkPixels:
    """A chunk's pixels; valid until the next chunk is decompressed.

    Attributes
    ----------
    sectors
        The sector frames that were sent, an entry a sector: (n, 144, 576) uint16, or its zero-suppressed pixels; of a
        sector that sent none it is empty.
    present
        (sectors, frames) bool: which sector frames are there.
    slots
        (complete frames, sectors) int64: where each complete frame's sector frames lie in ``sectors``.
    damaged
        A line for each sector whose pixels could not be decompressed; it counts as missing.
    """

    sectors: list[SectorPixels]
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
        sectors: list[SectorPixels] = [np.empty((0, SECTOR_ROWS, FRAME_WIDTH), np.uint16) for _ in range(SECTORS)]
        damaged = []
        for sector, part in enumerate(chunk.sectors):
            if part is None:
                continue
            try:
                sectors[sector] = self._pixels(sector, part)
            except DecodeError as error:
                damaged.append(f"chunk {chunk.index} of sector {sector}: {error}")
                continue
            present[sector] = part.header.present
        if any(isinstance(pixels, SuppressedFrames) for pixels in sectors):
            # So that what sent nothing does not look like a full sector beside zero-suppressed ones.
            sectors = [pixels if len(pixels) else NO_PIXELS for pixels in sectors]
        # Where a frame's sector frame lies among those the sector sent: frames that are missing were not sent.
        slots = (np.cumsum(present, axis=1) - 1)[:, present.all(axis=0)].T
        return ChunkPixels(sectors, present, np.ascontiguousarray(slots), damaged)

    def _pixels(self, sector: int, part: Chunk) -> SectorPixels:
        frames = part.header.sector_frames
        if part.header.codec is Codec.ZERO_SUPPRESSED:
            return SuppressedFrames(part.listed_pixels(), (frames, SECTOR_ROWS, FRAME_WIDTH))
        needed = frames * SECTOR_FRAME_BYTES
        if len(self._buffers[sector]) < needed:
            self._buffers[sector] = np.empty(needed, np.uint8)
        return part.sector_frames(self._buffers[sector])


def floors(chunk: JoinedChunk) -> list[float | None] | None:
    """The floor of each sector's chunk, in counts; None if none is zero-suppressed."""
    found = [
        part.header.floor if part is not None and part.header.codec is Codec.ZERO_SUPPRESSED else None
        for part in chunk.sectors
    ]
    return found if any(floor is not None for floor in found) else None
