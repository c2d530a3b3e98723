"""Sort sector frames into chunks of consecutive frame numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from producers.sector_frames import SectorFrames
from topics.geometry import FRAME_WIDTH, SECTOR_ROWS, ScanGeometry


@dataclass(slots=True)
class FilledChunk:
    """A chunk as it is filled.

    ``pixels`` is (frames of the chunk, 144, 576) uint16, ``present`` (frames,) bool says which of them came.
    """

    index: int
    present: NDArray[np.bool_]
    pixels: NDArray[np.uint16]
    first_frame_ns: int

    @property
    def sector_frames(self) -> NDArray[np.uint16]:
        """The frames that came: (present, 144, 576) uint16, without a copy when none is missing."""
        return self.pixels if self.present.all() else self.pixels[self.present]


class Chunker:
    """Chunks of one sector of one scan, in order. Frames may come out of order within ``reorder_window`` frames.

    A chunk is closed when it is full and those before it are closed, or when a frame came whose number is
    ``reorder_window`` or more past its end: what comes for it afterwards is late. Counts what it cannot use:
    ``repeated``, ``late``, ``refused``.
    """

    def __init__(self, geometry: ScanGeometry, reorder_window: int) -> None:
        self.received = self.repeated = self.late = self.refused = 0
        self._geometry = geometry
        self._window = reorder_window
        self._next = 0  # chunks below are closed
        self._open: dict[int, FilledChunk] = {}
        self._free: list[NDArray[np.uint16]] = []

    def add(self, frames: SectorFrames) -> Iterator[FilledChunk]:
        """Take frames in; yields chunks as they close. A chunk's pixels are valid until the next is asked for."""
        self.received += len(frames.frame_numbers)
        fits = self._fits(frames)
        self.refused += int(np.count_nonzero(~fits))
        numbers = frames.frame_numbers if fits.all() else frames.frame_numbers[fits]
        pixels = frames.pixels if fits.all() else frames.pixels[fits]
        if not len(numbers):
            return
        indices = numbers // self._geometry.frames_per_chunk
        for index in np.unique(indices).tolist():
            mine = indices == index
            if index < self._next:
                self.late += int(np.count_nonzero(mine))
            else:
                self._fill(index, numbers[mine], pixels if mine.all() else pixels[mine])
        yield from self.closed_by(int(numbers.max()))

    def add_one(self, number: int, x: int, y: int, pixels: NDArray[np.uint16], received_ns: int) -> bool:
        """Take in one frame, (144, 576) uint16; whether its number fits its position. Closes nothing."""
        self.received += 1
        geometry = self._geometry
        position, inside = y * geometry.width + x, x < geometry.width and y < geometry.height
        if not inside or number // geometry.frames_per_position != position:
            self.refused += 1
            return False
        index, slot = divmod(number, geometry.frames_per_chunk)
        if index < self._next:
            self.late += 1
            return True
        chunk = self._open.get(index) or self._open_chunk(index, received_ns)
        if chunk.present[slot]:
            self.repeated += 1
        else:
            chunk.pixels[slot] = pixels
            chunk.present[slot] = True
        return True

    def closed_by(self, number: int) -> Iterator[FilledChunk]:
        """Chunks that close because a frame of this number came."""
        yield from self._close(below=(number + 1 - self._window) // self._geometry.frames_per_chunk)

    def finish(self) -> Iterator[FilledChunk]:
        """Close what is still open."""
        yield from self._close(below=self._geometry.chunks)

    def _fits(self, frames: SectorFrames) -> NDArray[np.bool_]:
        """Which frames have the (x, y) of their number."""
        geometry = self._geometry
        positions = frames.y * geometry.width + frames.x
        fits: NDArray[np.bool_] = (
            (frames.x < geometry.width)
            & (frames.y < geometry.height)
            & (frames.frame_numbers // geometry.frames_per_position == positions)
        )
        return fits

    def _fill(self, index: int, numbers: NDArray[np.int64], pixels: NDArray[np.uint16]) -> None:
        chunk = self._open.get(index) or self._open_chunk(index, time.time_ns())
        slots = numbers - index * self._geometry.frames_per_chunk
        unique, first = np.unique(slots, return_index=True)
        new = first[~chunk.present[unique]]
        self.repeated += len(slots) - len(new)
        if len(new) == len(slots) and (np.diff(slots) == 1).all():
            chunk.pixels[slots[0] : slots[-1] + 1] = pixels
        else:
            chunk.pixels[slots[new]] = pixels[new]
        chunk.present[slots[new]] = True

    def _open_chunk(self, index: int, now_ns: int) -> FilledChunk:
        frames = self._geometry.frames_in_chunk(index)
        chunk = self._open[index] = FilledChunk(index, np.zeros(frames, bool), self._buffer()[:frames], now_ns)
        return chunk

    def _close(self, below: int) -> Iterator[FilledChunk]:
        """Close the next chunks in order: all below this index, and those that are full."""
        while self._open and (self._next < below or self._is_full(self._next)):
            chunk = self._open.pop(self._next, None)
            self._next += 1
            if chunk is not None:
                yield chunk
                self._free.append(chunk.pixels if chunk.pixels.base is None else chunk.pixels.base)
        self._next = max(self._next, below)

    def _is_full(self, index: int) -> bool:
        chunk = self._open.get(index)
        return chunk is not None and bool(chunk.present.all())

    def _buffer(self) -> NDArray[np.uint16]:
        if self._free:
            return self._free.pop()
        return np.empty((self._geometry.frames_per_chunk, SECTOR_ROWS, FRAME_WIDTH), np.uint16)
