"""When live scans begin and end, and what is counted of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from producers.chunker import FilledChunk
from producers.feed_format import FeedHeader
from producers.live_feed import LiveFrame
from producers.live_sector import LiveOptions, LiveSector
from producers.scan_shape import ScanShape, SizeFields
from topics.geometry import FRAME_WIDTH, SECTOR_ROWS, ScanGeometry
from topics.marker import EndReason, Ledger

PIXELS = {value: np.full((SECTOR_ROWS, FRAME_WIDTH), value, np.uint16) for value in range(3)}


@dataclass
class Recorded:
    """A scan that keeps what it is given: frame number -> first pixel."""

    geometry: ScanGeometry
    ordinal: int
    frames: dict[int, int] = field(default_factory=dict)
    chunks: list[int] = field(default_factory=list)
    ended: tuple[EndReason, Ledger] | None = None
    already: set[int] = field(default_factory=set)

    def publish(self, filled: FilledChunk) -> None:
        self.chunks.append(filled.index)
        first = filled.index * self.geometry.frames_per_chunk
        assert filled.sector_frames.shape[1] == SECTOR_ROWS
        for slot in np.flatnonzero(filled.present):
            self.frames[first + int(slot)] = int(filled.pixels[slot, 0, 0])

    def is_published(self, chunk_index: int) -> bool:
        return chunk_index in self.already

    def end(self, reason: EndReason, counted: Ledger) -> None:
        self.ended = (reason, counted)


class Feed:
    """A sector with its clock; keeps the scans that it began."""

    def __init__(self, options: LiveOptions | None = None) -> None:
        self.scans: list[Recorded] = []
        self.shapes: list[tuple[int, ScanShape]] = []
        self.held = 0
        self.now = 1000.0
        self.lost: dict[int, int] = {}
        self.discarded: dict[str, int] = {"late": 0, "repeated": 0}
        self.sector = LiveSector(
            options or LiveOptions(reorder_window=64),
            self._begin,
            self._release,
            lambda n: self.lost.pop(n, 0),
            self._discard,
        )

    def _begin(self, number: int, shape: ScanShape) -> Recorded:
        self.shapes.append((number, shape))
        geometry = ScanGeometry(
            width=shape.width,
            height=shape.height,
            frames_per_position=shape.frames_per_position,
            frames_per_chunk=4,
            partitions=2,
        )
        self.scans.append(Recorded(geometry, len(self.scans)))
        return self.scans[-1]

    def _discard(self, reason: str, frames: int) -> None:
        self.discarded[reason] += frames

    def _release(self) -> None:
        self.held -= 1

    def send(
        self, number: int, frames: Iterable[int], shape: ScanShape, *, value: int = 1, fields_less: int = 0
    ) -> None:
        for f in frames:
            y, x = divmod(f // shape.frames_per_position, shape.width)
            header = FeedHeader(number, f, 0, shape.width - fields_less, shape.height - fields_less, x, y, 0, 0)
            self.held += 1
            self.sector.take(LiveFrame(0, header, 1, PIXELS[value]), self.now)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            self.sector.tick(self.now)


SHAPE = ScanShape(6, 5, 1)


def reason(scan: Recorded) -> EndReason:
    assert scan.ended is not None
    return scan.ended[0]


def ledger(scan: Recorded) -> Ledger:
    assert scan.ended is not None
    return scan.ended[1]


def test_a_complete_scan_ends_with_its_last_frame() -> None:
    feed = Feed()
    feed.send(7, range(29), SHAPE)
    assert feed.scans[0].ended is None
    feed.send(7, [29], SHAPE)
    assert reason(feed.scans[0]) is EndReason.COMPLETE
    assert sorted(feed.scans[0].frames) == list(range(30))
    assert feed.shapes == [(7, SHAPE)]
    assert feed.held == 0


@pytest.mark.parametrize("seed", range(5))
def test_frames_out_of_order_make_the_same_chunks_in_order(seed: int) -> None:
    feed = Feed()
    delays = random.Random(seed)
    order = sorted(range(30), key=lambda f: f + delays.uniform(0, 12))
    feed.send(1, order, SHAPE)
    assert reason(feed.scans[0]) is EndReason.COMPLETE
    assert feed.scans[0].chunks == sorted(feed.scans[0].chunks)
    assert sorted(feed.scans[0].frames) == list(range(30))


def test_an_aborted_scan_ends_when_nothing_comes_for_the_idle_timeout() -> None:
    feed = Feed()
    feed.send(1, range(12), SHAPE)
    feed.wait(9.5)
    assert feed.scans[0].ended is None
    feed.wait(1)
    assert reason(feed.scans[0]) is EndReason.IDLE
    assert sorted(feed.scans[0].frames) == list(range(12))


def test_a_next_scan_ends_the_one_before_after_a_second_and_loses_nothing() -> None:
    feed = Feed()
    feed.send(1, range(12), SHAPE)
    feed.send(2, range(20), SHAPE, value=2)
    assert len(feed.scans) == 1
    feed.send(1, range(12, 14), SHAPE)  # still comes, slightly late
    feed.wait(1.5)
    assert reason(feed.scans[0]) is EndReason.NEXT_SCAN
    assert sorted(feed.scans[0].frames) == list(range(14))
    feed.send(2, range(20, 30), SHAPE, value=2)
    assert reason(feed.scans[1]) is EndReason.COMPLETE
    assert set(feed.scans[1].frames.values()) == {2}
    assert feed.held == 0


def test_the_cameras_counter_may_come_back_to_a_number() -> None:
    feed = Feed()
    feed.send(1, range(30), SHAPE)
    feed.wait(3)
    feed.send(1, range(30), SHAPE, value=2)
    assert [reason(scan) for scan in feed.scans] == [EndReason.COMPLETE] * 2
    assert set(feed.scans[1].frames.values()) == {2}


def test_frames_that_come_twice_after_the_end_make_no_scan() -> None:
    feed = Feed()
    feed.send(1, range(30), SHAPE)
    feed.send(1, [28, 29, 29], SHAPE)
    feed.wait(3)
    feed.send(2, range(30), SHAPE)
    assert [number for number, _ in feed.shapes] == [1, 2]
    assert feed.discarded == {"late": 0, "repeated": 3}
    assert feed.held == 0


def test_a_frame_missing_at_the_end_of_its_scan_is_late_afterwards() -> None:
    feed = Feed()
    feed.send(1, [f for f in range(30) if f != 11], SHAPE)
    feed.wait(11)
    feed.send(1, [11], SHAPE)
    feed.wait(3)
    assert len(feed.scans) == 1
    assert feed.discarded == {"late": 1, "repeated": 0}
    assert feed.held == 0


def test_the_ledger_counts_what_came_twice_late_wrong_and_lost() -> None:
    feed = Feed(LiveOptions(reorder_window=8))
    feed.lost[1] = 5
    feed.send(1, [*range(3), *range(4, 20), 5, 19, 3], SHAPE)  # 5 and 19 come twice, 3 is late
    wrong = FeedHeader(1, 25, 0, 6, 5, 0, 0, 0, 0)  # the number of another position
    feed.held += 1
    feed.sector.take(LiveFrame(0, wrong, 1, PIXELS[0]), feed.now)
    feed.wait(11)
    counted = ledger(feed.scans[0])
    assert (counted.late, counted.repeated, counted.refused, counted.lost) == (1, 2, 1, 5)
    published = len(feed.scans[0].frames)
    assert counted.received == published + counted.late + counted.repeated + counted.refused + counted.lost


@pytest.mark.parametrize("k", [1, 3])
def test_size_fields_of_one_less_are_seen_from_the_data(k: int) -> None:
    shape = ScanShape(6, 5, k)
    feed = Feed()
    feed.send(1, range(30 * k), shape, fields_less=1)
    assert feed.shapes == [(1, shape)]
    assert reason(feed.scans[0]) is EndReason.COMPLETE


def test_the_flyback_column_is_dropped_if_asked() -> None:
    options = LiveOptions(size_fields=SizeFields.NUMBER, drop_flyback=True, reorder_window=64)
    feed = Feed(options)
    feed.send(1, range(30), SHAPE)
    scan = feed.scans[0]
    assert (scan.geometry.width, scan.geometry.height) == (5, 5)
    assert reason(scan) is EndReason.COMPLETE
    assert sorted(scan.frames) == list(range(25))
    feed.wait(2)  # the last one dropped came after the end
    assert feed.held == 0
    assert len(feed.scans) == 1


def test_a_scan_of_one_position_is_taken_when_it_is_quiet() -> None:
    feed = Feed()
    shape = ScanShape(1, 1, 5)
    feed.send(1, range(5), shape)
    feed.wait(1.5)
    assert feed.shapes == [(1, shape)]
    assert reason(feed.scans[0]) is EndReason.COMPLETE


def test_a_resumed_scan_takes_what_is_missing_and_ends_by_itself() -> None:
    feed = Feed()
    geometry = ScanGeometry(width=6, height=5, frames_per_chunk=4, partitions=2)
    resumed = Recorded(geometry, 9, already={0, 1})
    feed.sector.resume(4, resumed, feed.now)
    feed.send(4, [6, *range(20, 30)], SHAPE)
    assert feed.sector.ordinal == 9
    feed.wait(11)
    assert sorted(resumed.frames) == list(range(20, 30))
    assert reason(resumed) is EndReason.IDLE
    assert ledger(resumed).repeated == 1


def test_a_resumed_scan_without_its_flyback_column_keeps_all_others() -> None:
    feed = Feed(LiveOptions(drop_flyback=True, reorder_window=64))
    geometry = ScanGeometry(width=5, height=5, frames_per_chunk=4, partitions=2)
    resumed = Recorded(geometry, 9)
    feed.sector.resume(4, resumed, feed.now)
    feed.send(4, range(30), SHAPE)  # six columns, the last is the flyback
    assert sorted(resumed.frames) == list(range(25))
    assert reason(resumed) is EndReason.COMPLETE


def test_a_refused_frame_closes_no_chunk() -> None:
    feed = Feed(LiveOptions(reorder_window=8))
    feed.send(1, range(12), SHAPE)
    nonsense = FeedHeader(1, 4_000_000, 0, 6, 5, 1, 1, 0, 0)
    feed.held += 1
    feed.sector.take(LiveFrame(0, nonsense, 1, PIXELS[0]), feed.now)
    feed.send(1, range(12, 30), SHAPE)
    assert reason(feed.scans[0]) is EndReason.COMPLETE
    assert ledger(feed.scans[0]).refused == 1
    assert feed.held == 0


def test_a_scan_that_missed_its_beginning_can_be_sent_again_later() -> None:
    feed = Feed()
    feed.send(1, range(10, 30), SHAPE)
    feed.wait(11)
    feed.wait(11)
    feed.send(1, range(30), SHAPE, value=2)
    assert [reason(scan) for scan in feed.scans] == [EndReason.IDLE, EndReason.COMPLETE]


def test_a_size_that_no_scan_has_opens_none() -> None:
    feed = Feed()
    header = FeedHeader(1, 2**32 - 1, 0, 65_535, 65_535, 0, 0, 0, 0)
    feed.held += 1
    feed.sector.take(LiveFrame(0, header, 1, PIXELS[0]), feed.now)
    feed.wait(3)
    feed.send(2, range(30), SHAPE)
    assert [number for number, _ in feed.shapes] == [2]
    assert feed.held == 0


def test_a_reading_that_was_learnt_late_holds_for_the_next_scan() -> None:
    feed = Feed(LiveOptions(most_opening=3, reorder_window=64))
    feed.send(1, range(30), SHAPE, fields_less=1)
    feed.wait(11)
    feed.send(2, range(30), SHAPE, fields_less=1)
    assert feed.shapes[1] == (2, SHAPE)
    assert reason(feed.scans[1]) is EndReason.COMPLETE


def test_a_scan_whose_last_frame_came_too_late_ends_at_once_but_is_not_complete() -> None:
    feed = Feed(LiveOptions(reorder_window=8))
    feed.send(1, [*range(3), *range(4, 30), 3], SHAPE)
    assert reason(feed.scans[0]) is EndReason.SOURCE_ENDED
    assert 3 not in feed.scans[0].frames


def test_closing_by_hand_publishes_what_is_there() -> None:
    feed = Feed()
    feed.send(1, range(10), SHAPE)
    feed.sector.end(EndReason.CLOSED, feed.now)
    assert reason(feed.scans[0]) is EndReason.CLOSED
    assert sorted(feed.scans[0].frames) == list(range(10))


def test_flushing_publishes_and_leaves_the_scan_open() -> None:
    feed = Feed()
    feed.send(1, range(10), SHAPE)
    feed.sector.flush()
    assert feed.scans[0].ended is None
    assert sorted(feed.scans[0].frames) == list(range(10))


def frame_values(scan: Recorded) -> NDArray[np.int64]:
    return np.array([scan.frames[f] for f in sorted(scan.frames)])


def test_many_scans_in_a_row_keep_their_own_frames() -> None:
    feed = Feed()
    for number in range(1, 13):
        feed.send(number, range(30), SHAPE, value=number % 3)
    assert len(feed.scans) == 12
    for number, scan in enumerate(feed.scans, 1):
        assert (frame_values(scan) == number % 3).all()
        assert reason(scan) is EndReason.COMPLETE
