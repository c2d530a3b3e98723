"""Simulated frames, made by a thread of its own ahead of those who send them.

A small scan is made as a whole before its first frame is sent, so that simulating does not disturb the sending. Of a
large one as many frames as are allowed in memory; the rest follows while they are sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from producers.simulator import Simulation, Truth
from topics.geometry import SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS

BATCH_FRAMES: Final = 64
MEMORY_BYTES: Final = 2 * 2**30
FRAME_BYTES: Final = SECTORS * SECTOR_FRAME_BYTES

_CHECK_INTERVAL_S = 0.1


class FramesAhead:
    """The first ``frames`` frames of a simulation; at most ``memory_bytes`` of them are kept.

    A sector asks for its frames nearly in order, and says which it does not need any more. With a ``pool`` only so many
    different frames are made, and used in turn: for rates at which a large scan cannot be simulated.
    """

    def __init__(
        self, simulation: Simulation, frames: int, *, pool: int | None = None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.made = min(frames, pool or frames)
        if self.made < frames and self.made * FRAME_BYTES > memory_bytes:
            raise ValueError(f"a pool of {pool} frames is too large: {memory_bytes // FRAME_BYTES} fit in memory")
        self._simulation = simulation
        self._in_turn = self.made < frames
        self._batches = -(-self.made // BATCH_FRAMES)
        self._kept = self._batches if self._in_turn else memory_bytes // (BATCH_FRAMES * FRAME_BYTES)
        self._pixels: dict[int, NDArray[np.uint16]] = {}  # by batch
        self._truths: list[Truth] = []
        self._needed = [0] * SECTORS  # the first batch that each sector still needs
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = ThreadPoolExecutor(1)
        self._making: Future[None] = self._thread.submit(self._make)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.shutdown()
        self._pixels.clear()

    def wait_until_ahead(self, progress: Callable[[int], None] | None = None) -> None:
        """Wait until all frames are made, or as many as may be kept."""
        enough = min(self._batches, self._kept)
        while not self._is_made(lambda: len(self._truths) >= enough):
            if progress is not None:
                progress(len(self._truths) * BATCH_FRAMES)
        if progress is not None:
            progress(min(enough * BATCH_FRAMES, self.made))

    def sector_frame(self, sector: int, frame_number: int) -> NDArray[np.uint16]:
        """(144, 576) uint16, detector counts; waits until the frame is made."""
        batch, place = divmod(frame_number % self.made, BATCH_FRAMES)
        while batch not in self._pixels:
            self._is_made(lambda: batch in self._pixels)
        return self._pixels[batch][place, sector * SECTOR_ROWS : (sector + 1) * SECTOR_ROWS]

    def release(self, sector: int, below: int | None) -> None:
        """Forget what no sector needs: this one needs no frame number below that any more; None: no frame at all."""
        first = self._batches if below is None else max(0, below) // BATCH_FRAMES
        if self._in_turn or first <= self._needed[sector]:
            return
        with self._changed:
            self._needed[sector] = first
            for batch in [made for made in self._pixels if made < min(self._needed)]:
                del self._pixels[batch]
            self._changed.notify_all()

    def truth(self) -> Truth:
        """What hit the detector in all these frames."""
        self._making.result()
        return Truth.join(self._truths)

    def _make(self) -> None:
        for batch in range(self._batches):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or batch - min(self._needed) < self._kept)  # noqa: B023
                if self._stopped:
                    return
            first = batch * BATCH_FRAMES
            # Fresh memory each time: sockets may still hold the frames of earlier batches.
            pixels, truth = self._simulation.frames(first, min(BATCH_FRAMES, self.made - first))
            with self._changed:
                self._truths.append(truth)
                if batch >= min(self._needed):
                    self._pixels[batch] = pixels
                self._changed.notify_all()

    def _is_made(self, made: Callable[[], bool]) -> bool:
        """Wait a moment for it; raises what ended the making."""
        if self._making.done():
            self._making.result()
            if not made():
                raise RuntimeError("a frame was asked for that is released already, or never made")
        with self._changed:
            return self._changed.wait_for(made, _CHECK_INTERVAL_S)
