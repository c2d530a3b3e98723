"""When live scans begin and end, for one sector: a state machine over frames and time. No sockets and no Kafka in it.

A scan begins with its first frames, as soon as they show its shape. It ends when all frame numbers are there; when a
next scan has begun and no frame of this one came for a while; when nothing came for long; or by hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from producers.chunker import Chunker, FilledChunk
from producers.live_feed import LiveFrame
from producers.scan_shape import ScanShape, ScanShapeFinder, SizeFields
from service.logs import get_logger
from topics.geometry import MAX_SCAN_EDGE, ScanGeometry
from topics.marker import EndReason, Ledger

QUIET_S = 1.0  # no frame of a scan for so long, and the next one has begun
# Frames of a scan that has just ended come again: so many of them, and it is a new scan of the same number.
NEW_SCAN_FRAMES = 32
MAX_LIVE_FRAMES = 2**28  # an hour at the camera's full rate; a header that says more is nonsense


class LiveScan(Protocol):
    """A sector's scan on its way out, as the receiver has it."""

    geometry: ScanGeometry
    ordinal: int

    def publish(self, filled: FilledChunk) -> None:
        """Publish a chunk."""

    def is_published(self, chunk_index: int) -> bool:
        """Whether an earlier receiver published this chunk."""

    def end(self, reason: EndReason, counted: Ledger) -> None:
        """End the sector."""


class ScanKey(NamedTuple):
    """What all frames of a scan have in common."""

    number: int
    width_field: int
    height_field: int


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How live scans are read."""

    size_fields: SizeFields = SizeFields.AUTO
    drop_flyback: bool = False
    reorder_window: int = 400  # frames by which one may come late
    idle_timeout_s: float = 10.0
    most_opening: int = 256  # frames held until a scan's shape is certain


@dataclass(slots=True)
class _Opening:
    """The first frames of a scan whose shape is not certain yet."""

    key: ScanKey
    finder: ScanShapeFinder
    frames: list[LiveFrame] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A scan that has begun."""

    key: ScanKey
    shape: ScanShape  # as the detector counts, with the flyback column
    scan: LiveScan
    chunker: Chunker
    seen: NDArray[np.bool_]
    to_come: int


class LiveSector:
    """One sector of the live feed.

    ``begin`` opens a scan of a number and a shape; ``release`` says that a frame's pixels are not needed any more;
    ``take_lost`` gives the number of frames of a scan that were lost before they came here; ``discard`` is told of
    frames that came after the end of their scan, and why they are of no use.
    """

    def __init__(
        self,
        options: LiveOptions,
        begin: Callable[[int, ScanShape], LiveScan],
        release: Callable[[], None],
        take_lost: Callable[[int], int],
        discard: Callable[[str, int], None],
    ) -> None:
        self._discard = discard
        self._options, self._begin, self._release, self._take_lost = options, begin, release, take_lost
        self._preferred = SizeFields.NUMBER  # of the readings that fit equally well
        self._opening: _Opening | None = None
        self._open: _Open | None = None
        self._ended: _Open | None = None
        self._waiting: deque[LiveFrame] = deque()  # of later scans
        self._last_frame_at = 0.0
        self._last_late_at = 0.0  # when the last scan ended, or the last frame came late for it

    @property
    def ordinal(self) -> int | None:
        """Ordinal of the open scan."""
        return self._open.scan.ordinal if self._open else None

    def take(self, frame: LiveFrame, now: float) -> None:
        """Take in a frame; ``now`` is monotonic time in s."""
        header = frame.header
        key = ScanKey(header.scan_number, header.width_field, header.height_field)
        if self._open is not None:
            if self._open.key.width_field < 0 and key.number == self._open.key.number:
                self._open.key = key  # resumed: the scan's record does not have the feed's fields
            if key == self._open.key:
                self._last_frame_at = now
                self._fill(self._open, frame)
            else:
                self._waiting.append(frame)
        elif self._opening is not None and key != self._opening.key:
            self._waiting.append(frame)
        elif self._opening is None and self._is_late(key, header.frame_number, now):
            self._discard("late", 1)
            self._release()
        else:
            self._last_frame_at = now
            self._hold(key, frame)

    def tick(self, now: float) -> None:
        """End what has to end by now."""
        quiet = now - self._last_frame_at
        over = quiet > self._options.idle_timeout_s or (bool(self._waiting) and quiet > QUIET_S)
        if self._open is not None and over:
            self.end(EndReason.NEXT_SCAN if self._waiting else EndReason.IDLE, now)
        elif self._opening is not None and (over or quiet > QUIET_S):
            self._open_or_drop(self._opening, now)

    def end(self, reason: EndReason, now: float) -> None:
        """End the open scan, if there is one, and go on with the frames that waited for that."""
        if self._open is None:
            return
        ended, self._open, self._ended = self._open, None, self._open
        self._last_late_at = now
        self._publish(ended, ended.chunker.finish())
        ended.scan.end(reason, self._counted(ended))
        waiting, self._waiting = self._waiting, deque()
        for frame in waiting:
            self.take(frame, now)

    def flush(self) -> None:
        """Publish what there is of the open scan, which stays open for the next receiver."""
        if self._opening is not None:
            self._start(self._opening, self._opening.finder.likely())
        if self._open is not None:
            self._publish(self._open, self._open.chunker.finish())

    def resume(self, number: int, scan: LiveScan, now: float) -> None:
        """Go on with a scan that an earlier receiver left open. Frames of published chunks count as come."""
        self._last_frame_at = now
        geometry = scan.geometry
        dropped = 1 if self._options.drop_flyback else 0  # the detector counts the flyback column too
        shape = ScanShape(geometry.width + dropped, geometry.height, geometry.frames_per_position)
        self._open = self._opened(ScanKey(number, -1, -1), shape, scan)
        for index in (i for i in range(geometry.chunks) if scan.is_published(i)):
            first = index * geometry.frames_per_chunk
            self._open.seen[first : first + geometry.frames_in_chunk(index)] = True
        self._open.to_come = int(np.count_nonzero(~self._open.seen))

    def _is_late(self, key: ScanKey, frame_number: int, now: float) -> bool:
        """Whether a frame belongs to the scan that ended not long ago, and was missing there."""
        ended = self._ended
        if ended is None or ended.key != key or frame_number >= len(ended.seen):
            return False
        if now - self._last_late_at > self._options.idle_timeout_s:
            return False
        late = not ended.seen[frame_number]
        self._last_late_at = now if late else self._last_late_at
        return late

    # A scan begins.

    def _hold(self, key: ScanKey, frame: LiveFrame) -> None:
        if self._opening is None:
            finder = ScanShapeFinder(key.width_field, key.height_field, self._options.size_fields, self._preferred)
            self._opening = _Opening(key, finder)
        opening, header = self._opening, frame.header
        opening.frames.append(frame)
        opening.finder.add(header.frame_number, header.x, header.y)
        shape = opening.finder.certain()
        if shape is None and len(opening.frames) >= self._options.most_opening:
            shape = opening.finder.likely()
        if shape is not None and self._is_new(opening, shape):
            self._start(opening, shape)

    def _is_new(self, opening: _Opening, shape: ScanShape) -> bool:
        """Whether it is a scan at all, and not some frames of the last one that came twice, or nonsense."""
        if max(shape.width, shape.height) > MAX_SCAN_EDGE or shape.frames > MAX_LIVE_FRAMES:
            return False
        if self._ended is None or self._ended.key != opening.key:
            return True
        return len({frame.header.frame_number for frame in opening.frames}) >= min(NEW_SCAN_FRAMES, shape.frames)

    def _open_or_drop(self, opening: _Opening, now: float) -> None:
        """No more frames came that would show the shape: take the likely one."""
        shape = opening.finder.likely()
        if self._is_new(opening, shape):
            self._start(opening, shape)
            return
        self._opening = None
        self._discard("repeated", len(opening.frames))
        self._release_all(opening.frames)
        waiting, self._waiting = self._waiting, deque()
        for frame in waiting:
            self.take(frame, now)

    def _start(self, opening: _Opening, shape: ScanShape) -> None:
        self._opening = None
        reading = opening.finder.reading()
        if self._options.size_fields is SizeFields.AUTO and reading is not SizeFields.NUMBER:
            self._preferred = reading
            get_logger().warning(
                "an x or row equal to the size field was seen: the scan is larger by one; if that is a flyback column, "
                "say so with --scan-size-fields flyback",
                width=shape.width,
                height=shape.height,
            )
        kept = ScanShape(shape.width - 1, shape.height, shape.frames_per_position) if self._drops(shape) else shape
        opened = self._open = self._opened(opening.key, shape, self._begin(opening.key.number, kept))
        for frame in opening.frames:
            if self._open is opened:
                self._fill(opened, frame)
            else:  # complete already, this one came twice
                self._discard("repeated", 1)
                self._release()

    def _drops(self, shape: ScanShape) -> bool:
        return self._options.drop_flyback and shape.width > 1

    def _opened(self, key: ScanKey, shape: ScanShape, scan: LiveScan) -> _Open:
        frames = scan.geometry.frames
        chunker = Chunker(scan.geometry, self._options.reorder_window)
        return _Open(key, shape, scan, chunker, np.zeros(frames, bool), frames)

    # Frames come in.

    def _fill(self, opened: _Open, frame: LiveFrame) -> None:
        header = frame.header
        number, x, y = header.frame_number, header.x, header.y
        if self._drops(opened.shape):
            if x == opened.shape.width - 1:
                self._release()
                return
            number -= y * opened.shape.frames_per_position
        chunker = opened.chunker
        if 0 <= number < len(opened.seen) and opened.seen[number]:
            chunker.received += 1
            chunker.repeated += 1
        elif chunker.add_one(number, x, y, frame.pixels, frame.received_ns):
            opened.seen[number] = True
            opened.to_come -= 1
            self._publish(opened, chunker.closed_by(number))
        else:
            self._note_refused(opened, x)
        self._release()
        if opened.to_come == 0:
            # All frame numbers came: nothing to wait for, even if some came too late for their chunk.
            self.end(EndReason.SOURCE_ENDED if chunker.late else EndReason.COMPLETE, self._last_frame_at)

    def _note_refused(self, opened: _Open, x: int) -> None:
        """A frame just behind the last column: the fields say one less, which scans from now on are read with."""
        surprising = x == opened.shape.width and self._preferred is SizeFields.NUMBER
        if self._options.size_fields is SizeFields.AUTO and surprising:
            self._preferred = SizeFields.MINUS_ONE
            get_logger().error(
                "frames are refused: x is equal to the size field; the next scans are read as one larger, and with "
                "--scan-size-fields minus-one (or flyback) all are",
                x=x,
            )

    def _publish(self, opened: _Open, chunks: Iterable[FilledChunk]) -> None:
        for filled in chunks:
            opened.scan.publish(filled)

    def _counted(self, ended: _Open) -> Ledger:
        lost = self._take_lost(ended.key.number)
        chunker = ended.chunker
        return Ledger(
            received=chunker.received + lost,
            repeated=chunker.repeated,
            late=chunker.late,
            refused=chunker.refused,
            lost=lost,
        )

    def _release_all(self, frames: list[LiveFrame]) -> None:
        for _ in frames:
            self._release()
