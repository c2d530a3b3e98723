"""From a rejoined chunk to its events: decompress, find the complete frames, correct and count them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import counting
from consumers.chunk_pixels import ChunkPixels, Decompressor, floors
from consumers.rejoin import JoinedChunk
from counting import Corrections, Electrons, SuppressedFrames
from counting.floors import values_that_count_as_zero
from service.catalogue import Count
from topics.event import EventHeader, Events
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS

# References of so many counts are kept: replays and live scans may alternate.
_CORRECTIONS_KEPT = 8

FetchReference = Callable[[str], NDArray[np.float32]]


class CountingStep:
    """Counts chunk after chunk into the same buffers. ``fetch_reference`` gets the reference of a SHA-256."""

    def __init__(self, fetch_reference: FetchReference) -> None:
        self._decompressor = Decompressor()
        self._fetch_reference = lru_cache(_CORRECTIONS_KEPT)(fetch_reference)
        self._corrections = lru_cache(_CORRECTIONS_KEPT)(self._load_corrections)
        counting.warm_up()

    def count(self, chunk: JoinedChunk, count: Count) -> tuple[Events, list[str]]:
        """Count the electrons of a chunk's complete frames; an incomplete frame has no electrons and a mask.

        Parameters
        ----------
        chunk
            The chunk, as its four sectors were rejoined.
        count
            Its count, whose thresholds are known.

        Returns
        -------
        events
            The electrons and masks of all frames of the chunk.
        damaged
            A line for each sector whose pixels could not be decompressed; it counts as missing.

        Raises
        ------
        FaultError
            A reference cannot be had.
        """
        assert count.thresholds is not None
        pixels = self._decompressor.decompress(chunk)
        found_floors = floors(chunk)
        indices, of_complete = self._count(pixels, found_floors, count)
        electrons = np.zeros(pixels.present.shape[1], np.int64)
        electrons[pixels.complete] = np.diff(of_complete)
        header = EventHeader(
            ordinal=chunk.ordinal,
            count=count.offset,
            count_name=count.name,
            geometry=chunk.geometry,
            chunk_index=chunk.index,
            payload_bytes=[len(c.payload) if c else None for c in chunk.sectors],
            epochs=[c.header.epoch if c else None for c in chunk.sectors],
            floors=found_floors,
        )
        missing = np.packbits(~pixels.present, axis=0, bitorder="little")[0]
        return Events(header, indices, np.concatenate(([0], np.cumsum(electrons))), missing), pixels.damaged

    def _count(self, pixels: ChunkPixels, found_floors: list[float | None] | None, count: Count) -> Electrons:
        """Electrons of the complete frames; zero-suppressed pixels are filled up only beside full ones."""
        assert count.thresholds is not None
        settings = count.settings
        corrections = self._corrections(settings.dark, settings.gain, settings.row_dark, count.optimized_mean)
        sectors = pixels.sectors
        listed = [sector for sector in sectors if isinstance(sector, SuppressedFrames)]
        if found_floors is not None and len(listed) == len(sectors):
            return counting.count_suppressed(
                listed,
                pixels.slots,
                *count.thresholds,
                floor=max(floor for floor in found_floors if floor is not None),
                corrections=corrections,
                engine=settings.engine,
            )
        full = [
            sector.dense(self._unlisted(m, corrections)) if isinstance(sector, SuppressedFrames) else sector
            for m, sector in enumerate(sectors)
        ]
        return counting.count_sectors(
            full, pixels.slots, *count.thresholds, corrections=corrections, engine=settings.engine
        )

    @staticmethod
    def _unlisted(sector: int, corrections: Corrections) -> NDArray[np.uint16]:
        """(144, 576) uint16: what a sector's pixels that were not sent count as."""
        values = values_that_count_as_zero(corrections, (FRAME_HEIGHT, FRAME_WIDTH))
        return values[sector * SECTOR_ROWS : (sector + 1) * SECTOR_ROWS]

    def corrections_of_samples(self, count: Count) -> Corrections:
        """What is done to the frames that thresholds are found in: as in stempy all but row-dark, which needs them."""
        return self._corrections(count.settings.dark, count.settings.gain, None, None)

    def _load_corrections(
        self,
        dark: str | None,
        gain: str | None,
        row_dark: Literal["mean", "median"] | None,
        optimized_mean: float | None,
    ) -> Corrections:
        return Corrections(
            dark=None if dark is None else self._fetch_reference(dark),
            gain=None if gain is None else self._fetch_reference(gain),
            row_dark=row_dark,
            optimized_mean=optimized_mean,
        )
