"""Rejoin the four sectors: a merge of four sorted streams, one merge a partition. No Kafka in it.

The messages of a sector's partition are sorted by (scan ordinal, place in the scan). When each of the four streams has
a head, the smallest head is next; a sector whose own head is already past it has lost that chunk. A stream without a
head is waited for: nothing is guessed and no timer runs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from topics.chunk import Chunk
from topics.geometry import SECTORS, ScanGeometry
from topics.marker import EndMarker, Marker, ResumeMarker, StartMarker
from topics.raw import RawMessage

Position = tuple[int, int]  # scan ordinal, place: chunk index, before all chunks or after them

NOWHERE: Position = (-1, -1)
_START_PLACE = -1
_END_PLACE = 2**63 - 1


class Refusal(StrEnum):
    """Why a message does not enter the merge."""

    OLD_EPOCH = "old epoch"  # a superseded receiver wrote it
    OUT_OF_ORDER = "late or repeated"  # the merge, or its own stream, is past it


@dataclass(frozen=True, slots=True)
class JoinedChunk:
    """One chunk of a scan with what each sector has of it; None where a sector lost it."""

    ordinal: int
    geometry: ScanGeometry
    index: int
    sectors: tuple[Chunk | None, ...]


@dataclass(frozen=True, slots=True)
class JoinedEnd:
    """The end of a scan in this partition; None for a sector that missed it."""

    ordinal: int
    geometry: ScanGeometry
    ends: tuple[EndMarker | None, ...]


Joined = JoinedChunk | JoinedEnd


@dataclass(slots=True)
class _Stream:
    """One sector's messages that wait for the others."""

    waiting: deque[tuple[int, Position, RawMessage, int]] = field(default_factory=deque)
    waiting_bytes: int = 0
    newest: Position = NOWHERE
    next_offset: int | None = None  # of the next message to come


class PartitionMerge:
    """The merge of one partition number of the four raw topics."""

    def __init__(self, position: Position = NOWHERE, epochs: tuple[int, ...] = (-1,) * SECTORS) -> None:
        self.position = position
        self.epochs = list(epochs)
        self._streams = tuple(_Stream(newest=position) for _ in range(SECTORS))

    def push(self, sector: int, offset: int, message: RawMessage, size: int) -> Refusal | None:
        """Take in the next message of a sector; says why if it is refused. ``size`` is its bytes in memory."""
        stream = self._streams[sector]
        stream.next_offset = offset + 1
        epoch = _epoch_of(message)
        if epoch < self.epochs[sector]:
            return Refusal.OLD_EPOCH
        self.epochs[sector] = epoch
        if isinstance(message, ResumeMarker):
            return None
        place = position_of(message)
        if place <= max(stream.newest, self.position):
            return Refusal.OUT_OF_ORDER
        stream.newest = place
        stream.waiting.append((offset, place, message, size))
        stream.waiting_bytes += size
        return None

    def skip(self, sector: int, offset: int) -> None:
        """Pass over a message that could not be decoded: its chunk counts as lost once a later one comes."""
        self._streams[sector].next_offset = offset + 1

    def next_place(self) -> Position | None:
        """Place of what can be joined next; None if a sector has to be waited for."""
        if not all(stream.waiting for stream in self._streams):
            return None
        return min(stream.waiting[0][1] for stream in self._streams)

    def pop(self, may_join: Callable[[int], bool] = lambda _: True) -> Iterator[Joined]:
        """Yield what can be joined now, in order, up to a scan that may not be joined yet, by its ordinal."""
        while (smallest := self.next_place()) is not None and may_join(smallest[0]):
            heads = tuple(self._take(stream, smallest) for stream in self._streams)
            self.position = smallest
            joined = _join(smallest, heads)
            if joined is not None:
                yield joined

    def waiting_bytes(self, sector: int) -> int:
        """Bytes of a sector that wait for the others."""
        return self._streams[sector].waiting_bytes

    def committable(self, sector: int) -> int | None:
        """Offset from which a successor has to read this sector; None if nothing was read."""
        stream = self._streams[sector]
        return stream.waiting[0][0] if stream.waiting else stream.next_offset

    def state(self) -> str:
        """What a successor needs besides the offsets: position and newest epochs, as offset metadata.

        Epochs as of the offsets: what waits here is read again, and must not look old to the successor.
        """
        epochs = [
            _epoch_of(stream.waiting[0][2]) if stream.waiting else newest
            for stream, newest in zip(self._streams, self.epochs, strict=True)
        ]
        return json.dumps({"position": self.position, "epochs": epochs}, separators=(",", ":"))

    @classmethod
    def restored(cls, states: Iterable[str | None]) -> PartitionMerge:
        """The merge as a predecessor left it: the newest of the states beside the sectors' offsets."""
        merge = cls()
        for fields in (json.loads(state) for state in states if state):
            merge.position = max(merge.position, tuple(fields["position"]))
            merge.epochs = [max(pair) for pair in zip(merge.epochs, fields["epochs"], strict=True)]
        return cls(merge.position, tuple(merge.epochs))

    @staticmethod
    def _take(stream: _Stream, place: Position) -> RawMessage | None:
        if stream.waiting[0][1] != place:
            return None
        _, _, message, size = stream.waiting.popleft()
        stream.waiting_bytes -= size
        return message


def position_of(message: Chunk | Marker) -> Position:
    """Place of a message in its stream."""
    match message:
        case Chunk():
            return message.header.ordinal, message.header.chunk_index
        case EndMarker():
            return message.ordinal, _END_PLACE
    return message.ordinal, _START_PLACE


def _epoch_of(message: RawMessage) -> int:
    return message.header.epoch if isinstance(message, Chunk) else message.epoch


def _join(place: Position, heads: tuple[RawMessage | None, ...]) -> Joined | None:
    first = next(head for head in heads if head is not None)
    if isinstance(first, Chunk):
        chunks = tuple(head if isinstance(head, Chunk) else None for head in heads)
        return JoinedChunk(place[0], first.header.geometry, place[1], chunks)
    if isinstance(first, EndMarker):
        return JoinedEnd(place[0], first.geometry, tuple(h if isinstance(h, EndMarker) else None for h in heads))
    assert isinstance(first, StartMarker)
    return None
