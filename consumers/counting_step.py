"""From a rejoined chunk to its events: decompress, find the complete frames, count them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import counting
from consumers.rejoin import JoinedChunk
from topics.errors import DecodeError
from topics.event import EventHeader, Events
from topics.geometry import FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS
from topics.scan_log import CountSettings


class CountingStep:
    """Counts chunk after chunk into the same buffers, one of decompressed pixels a sector."""

    def __init__(self) -> None:
        self._pixels: list[NDArray[np.uint8]] = [np.empty(0, np.uint8) for _ in range(SECTORS)]
        counting.warm_up()

    def count(self, chunk: JoinedChunk, count: int, name: str, settings: CountSettings) -> tuple[Events, list[str]]:
        """Count the electrons of a chunk's complete frames; an incomplete frame has no electrons and a mask.

        Returns
        -------
        events
            The electrons and masks of all frames of the chunk.
        damaged
            A line for each sector whose pixels could not be decompressed; it counts as missing.
        """
        frames = chunk.geometry.frames_in_chunk(chunk.index)
        sectors, present, damaged = self._decompress(chunk, frames)
        complete = present.all(axis=0)
        # Where a frame's sector frame lies among those the sector sent: frames that are missing were not sent.
        slots = (np.cumsum(present, axis=1) - 1)[:, complete].T
        indices, of_complete = counting.count_sectors(
            sectors, np.ascontiguousarray(slots), settings.background, settings.xray, engine=settings.engine
        )
        electrons = np.zeros(frames, np.int64)
        electrons[complete] = np.diff(of_complete)
        header = EventHeader(
            ordinal=chunk.ordinal,
            count=count,
            count_name=name,
            geometry=chunk.geometry,
            chunk_index=chunk.index,
            payload_bytes=[len(c.payload) if c else None for c in chunk.sectors],
            epochs=[c.header.epoch if c else None for c in chunk.sectors],
        )
        missing = np.packbits(~present, axis=0, bitorder="little")[0]
        return Events(header, indices, np.concatenate(([0], np.cumsum(electrons))), missing), damaged

    def _decompress(
        self, chunk: JoinedChunk, frames: int
    ) -> tuple[list[NDArray[np.uint16]], NDArray[np.bool_], list[str]]:
        """Pixels (n, 144, 576) of each sector, and which frames each has: (sectors, frames) bool."""
        present = np.zeros((SECTORS, frames), bool)
        pixels = [np.empty((0, SECTOR_ROWS, FRAME_WIDTH), np.uint16) for _ in range(SECTORS)]
        damaged = []
        for sector, part in enumerate(chunk.sectors):
            if part is None:
                continue
            try:
                pixels[sector] = part.sector_frames(self._buffer(sector, part.header.sector_frames))
            except DecodeError as error:
                damaged.append(f"chunk {chunk.index} of sector {sector}: {error}")
                continue
            present[sector] = part.header.present
        return pixels, present, damaged

    def _buffer(self, sector: int, sector_frames: int) -> NDArray[np.uint8]:
        needed = sector_frames * SECTOR_FRAME_BYTES
        if len(self._pixels[sector]) < needed:
            self._pixels[sector] = np.empty(needed, np.uint8)
        return self._pixels[sector]
