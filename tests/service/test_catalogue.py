"""The catalogue: how records of the scan log make scans, their sectors and the epochs of these."""

from __future__ import annotations

from typing import Any

import pytest

from service.catalogue import IDLE_TIMEOUT_MS
from tests.service.memory_log import GEOMETRY, Log
from topics.marker import EndReason
from topics.scan_log import ZeroSuppression


@pytest.fixture
def log() -> Log:
    return Log()


# Statements make scans.


def test_the_ordinal_of_a_scan_is_the_offset_of_its_first_statement(log: Log) -> None:
    epoch = log.receiver(0, 1)
    log.now_ms = 5
    ordinal = log.state(epoch, 0, 1, session="monday", number=7, feed="f")
    assert ordinal == epoch + 2
    scan = log.scans[ordinal]
    assert (scan.ordinal, scan.session, scan.number, scan.feed) == (ordinal, "monday", 7, "f")
    assert (scan.geometry, scan.stated, scan.started_ms) == (GEOMETRY, {0, 1}, 5)


def test_four_receivers_state_one_scan(log: Log) -> None:
    epochs = [log.receiver(sector) for sector in range(4)]
    ordinals = [log.state(epochs[sector], sector) for sector in (2, 0, 3, 1)]
    assert len(log.scans) == 1
    assert set(ordinals) == set(log.scans)
    assert log.scans[next(iter(log.scans))].stated == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "other",
    [{"session": "tuesday"}, {"number": 2}, {"feed": "b"}, {"geometry": GEOMETRY.model_copy(update={"width": 5})}],
    ids=lambda change: next(iter(change)),
)
def test_a_statement_that_differs_is_another_scan(log: Log, other: dict[str, Any]) -> None:
    epochs = [log.receiver(0), log.receiver(1)]
    first, second = log.state(epochs[0], 0), log.state(epochs[1], 1, **other)
    assert first != second
    assert [scan.stated for scan in log.scans.values()] == [{0}, {1}]


def test_a_label_that_comes_again_in_the_same_sector_is_another_scan(log: Log) -> None:
    epoch = log.receiver(0, 1, 2, 3)
    first = log.state(epoch, 0, 1, 2, 3)
    for sector in range(4):
        log.end(epoch, first, sector)
    second = log.state(epoch, 0, 1, 2, 3)
    assert list(log.scans) == [first, second]


def test_when_the_counter_of_the_camera_restarts_all_sectors_meet_in_the_new_scan(log: Log) -> None:
    epochs = [log.receiver(sector) for sector in range(4)]
    first = {log.state(epochs[sector], sector) for sector in range(4)}
    # Sector 2 sees the new scan first; no sector has said that the old one ended.
    second = {log.state(epochs[sector], sector) for sector in (2, 0, 1, 3)}
    assert len(first) == len(second) == 1
    assert first != second
    assert [scan.stated for scan in log.scans.values()] == [{0, 1, 2, 3}] * 2


def test_a_folder_that_is_sent_twice_is_two_scans_even_at_once(log: Log) -> None:
    first = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3, feed="run-1")
    second = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3, feed="run-2")
    assert list(log.scans) == [first, second]


def test_a_sector_that_stated_a_later_scan_does_not_join_an_older_one(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1)]
    older = log.state(epochs[0], 0, number=1)
    later = log.state(epochs[1], 1, number=2)
    again = log.state(epochs[1], 1, number=1)
    assert list(log.scans) == [older, later, again]


def test_a_sector_that_missed_a_scan_joins_the_newest_of_the_label(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1)]
    log.state(epochs[0], 0)
    newest = log.state(epochs[0], 0)
    assert log.state(epochs[1], 1) == newest


def test_a_scan_between_of_other_sectors_does_not_keep_a_sector_from_joining(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1), log.receiver(2)]
    first = log.state(epochs[0], 0, number=1)
    log.state(epochs[2], 2, number=2)
    assert log.state(epochs[1], 1, number=1) == first


def test_several_sectors_join_together_or_not_at_all(log: Log) -> None:
    epoch = log.receiver(0, 1, 2)
    first = log.state(epoch, 0)
    second = log.state(epoch, 0, 1)  # sector 0 has been in the first one
    assert first != second
    assert log.state(epoch, 2) == second


# A scan stays open for further sectors until all of its own have ended, and the idle timeout after that.


@pytest.mark.parametrize(("later_ms", "joins"), [(0, True), (IDLE_TIMEOUT_MS, True), (IDLE_TIMEOUT_MS + 1, False)])
def test_an_ended_scan_takes_further_sectors_until_the_idle_timeout(log: Log, later_ms: int, joins: bool) -> None:
    epochs = [log.receiver(0), log.receiver(1), log.receiver(2)]
    first = log.state(epochs[0], 0)
    log.state(epochs[1], 1)
    log.end(epochs[0], first, 0)
    log.now_ms += 3_600_000
    log.end(epochs[1], first, 1)  # the timeout runs from the last end
    log.now_ms += later_ms
    assert (log.state(epochs[2], 2) == first) is joins


def test_a_scan_with_a_sector_that_has_not_ended_stays_open(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1), log.receiver(2)]
    first = log.state(epochs[0], 0)
    log.state(epochs[1], 1)
    log.end(epochs[0], first, 0)
    log.now_ms += 24 * 3_600_000
    assert log.state(epochs[2], 2) == first


def test_a_closed_scan_hides_older_ones_of_its_label(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1), log.receiver(2)]
    log.state(epochs[0], 0)  # stays open
    closed = log.state(epochs[0], 0)
    log.end(epochs[0], closed, 0)
    log.now_ms += IDLE_TIMEOUT_MS + 1
    fresh = log.state(epochs[1], 1)
    assert len(log.scans) == 3
    assert log.state(epochs[2], 2) == fresh


# Ends.


def test_the_first_end_of_a_sector_holds(log: Log) -> None:
    epoch = log.receiver(0, 1)
    ordinal = log.state(epoch, 0, 1)
    assert ordinal is not None
    log.end(epoch, ordinal, 0, EndReason.COMPLETE)
    ended_at = log.now_ms
    log.now_ms += 500
    log.end(epoch, ordinal, 0, EndReason.IDLE)
    assert {s: record.reason for s, record in log.scans[ordinal].ended.items()} == {0: EndReason.COMPLETE}
    assert log.scans[ordinal].last_end_ms == ended_at


def test_the_end_of_a_scan_that_nobody_stated_is_left_out(log: Log) -> None:
    log.end(log.receiver(0), 4711, 0)
    assert not log.scans


def test_a_newer_receiver_ends_what_an_older_one_began(log: Log) -> None:
    ordinal = log.state(log.receiver(0), 0)
    assert ordinal is not None
    log.end(log.receiver(0), ordinal, 0, EndReason.ABANDONED)
    assert log.scans[ordinal].ended[0].reason is EndReason.ABANDONED


# Epochs.


def test_the_epoch_of_a_sector_is_the_offset_of_the_newest_receiver(log: Log) -> None:
    first, second = log.receiver(0, 1), log.receiver(1, 2)
    assert log.catalogue.epochs == {0: first, 1: second, 2: second}


def test_the_statement_of_a_superseded_receiver_is_void(log: Log) -> None:
    old = log.receiver(0)
    log.receiver(0)
    assert log.state(old, 0) is None
    assert not log.scans


def test_a_statement_is_void_when_one_of_its_sectors_has_a_newer_receiver(log: Log) -> None:
    old = log.receiver(0, 1)
    log.receiver(1)
    assert log.state(old, 0, 1) is None
    assert log.state(old, 0) is not None


def test_the_end_by_a_superseded_receiver_is_void(log: Log) -> None:
    old = log.receiver(0)
    ordinal = log.state(old, 0)
    assert ordinal is not None
    new = log.receiver(0)
    log.end(old, ordinal, 0)
    assert not log.scans[ordinal].ended
    log.end(new, ordinal, 0)
    assert set(log.scans[ordinal].ended) == {0}


def test_the_newer_receiver_of_one_sector_does_not_void_what_the_older_says_of_others(log: Log) -> None:
    old = log.receiver(0, 1)
    ordinal = log.state(old, 0, 1)
    assert ordinal is not None
    log.receiver(1)
    log.end(old, ordinal, 0)
    log.end(old, ordinal, 1)
    assert set(log.scans[ordinal].ended) == {0}


def test_the_newest_scan_of_a_sector_is_the_last_one_it_stated(log: Log) -> None:
    epochs = [log.receiver(0), log.receiver(1)]
    first = log.state(epochs[0], 0, number=1)
    log.state(epochs[1], 1, number=2)
    newest = log.catalogue.newest_of_sector(0)
    assert newest is not None
    assert newest.ordinal == first
    assert log.catalogue.newest_of_sector(3) is None


def test_sectors_that_are_suppressed_differently_are_no_common_scan(log: Log) -> None:
    first, second = log.receiver(0, 1), log.receiver(2, 3)
    suppressed = ZeroSuppression(floor=27)
    ordinal = log.state(first, 0, 1, zero_suppression=suppressed)
    assert log.state(second, 2, zero_suppression=suppressed) == ordinal
    assert log.state(second, 3) != ordinal
