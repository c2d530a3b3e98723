"""The catalogue: the counts of scans; and that all who read the log come to the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalogue import IDLE_TIMEOUT_MS, Catalogue, Count
from tests.service.memory_log import ACCOUNT, GEOMETRY, SETTINGS, Log
from topics.marker import EndReason, Ledger
from topics.scan_log import (
    CountAbandoned,
    CountFinished,
    CountStarted,
    LogRecord,
    ReceiverStarted,
    ScanStarted,
    SectorEnded,
    decode,
)


@pytest.fixture
def log() -> Log:
    return Log()


def one_scan(log: Log) -> int:
    ordinal = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3)
    assert ordinal is not None
    return ordinal


def count_of(log: Log, ordinal: int, name: str = "live") -> Count:
    return log.scans[ordinal].counts[name]


def test_the_first_record_of_a_count_holds_with_its_settings(log: Log) -> None:
    ordinal = one_scan(log)
    first = log.start_count(ordinal, background=28)
    log.start_count(ordinal, background=99)
    count = count_of(log, ordinal)
    assert (count.offset, count.name, count.settings.background) == (first, "live", 28)
    assert count.running


def test_a_scan_may_be_counted_under_several_names(log: Log) -> None:
    ordinal = one_scan(log)
    offsets = [log.start_count(ordinal), log.start_count(ordinal, "again", 40)]
    assert {name: count.offset for name, count in log.scans[ordinal].counts.items()} == {
        "live": offsets[0],
        "again": offsets[1],
    }


def test_a_count_of_a_scan_that_nobody_stated_is_left_out(log: Log) -> None:
    log.start_count(4711)
    assert not log.scans


def test_the_first_finish_of_a_count_holds_and_its_name_is_taken(log: Log) -> None:
    ordinal = one_scan(log)
    count = log.start_count(ordinal)
    log.finish_count(ordinal, count, "/out/first.h5")
    log.finish_count(ordinal, count, "/out/second.h5")
    log.start_count(ordinal, background=99)
    found = count_of(log, ordinal)
    assert found.offset == count
    assert found.finished is not None
    assert found.finished.output == "/out/first.h5"
    assert not found.running


def test_a_finish_of_an_unknown_count_is_left_out(log: Log) -> None:
    ordinal = one_scan(log)
    log.finish_count(ordinal, log.start_count(ordinal) + 1)
    assert count_of(log, ordinal).running


def test_an_abandoned_count_can_be_started_anew(log: Log) -> None:
    ordinal = one_scan(log)
    first = log.start_count(ordinal, background=28)
    log.abandon_count(ordinal, first, "killed")
    assert count_of(log, ordinal).abandoned == "killed"
    assert not count_of(log, ordinal).running
    second = log.start_count(ordinal, background=40)
    assert (count_of(log, ordinal).offset, count_of(log, ordinal).running) == (second, True)


def test_what_is_said_of_an_abandoned_count_does_not_touch_the_new_one(log: Log) -> None:
    ordinal = one_scan(log)
    first = log.start_count(ordinal)
    log.abandon_count(ordinal, first)
    second = log.start_count(ordinal)
    log.finish_count(ordinal, first)
    log.abandon_count(ordinal, first, "once more")
    assert count_of(log, ordinal).running
    log.finish_count(ordinal, second)
    finished = count_of(log, ordinal).finished
    assert finished is not None
    assert finished.count == second


def test_a_finished_count_cannot_be_abandoned(log: Log) -> None:
    ordinal = one_scan(log)
    count = log.start_count(ordinal)
    log.finish_count(ordinal, count)
    log.abandon_count(ordinal, count)
    assert count_of(log, ordinal).finished is not None
    assert count_of(log, ordinal).abandoned is None


def test_a_scan_given_up_before_any_count_takes_none(log: Log) -> None:
    ordinal = one_scan(log)
    log.abandon_count(ordinal, None, "left open")
    log.start_count(ordinal)
    assert log.scans[ordinal].abandoned == "left open"
    assert not log.scans[ordinal].counts


def test_a_scan_that_is_counted_is_not_given_up_as_uncounted(log: Log) -> None:
    ordinal = one_scan(log)
    log.start_count(ordinal)
    log.abandon_count(ordinal, None)
    assert log.scans[ordinal].abandoned is None
    assert count_of(log, ordinal).running


# Whatever the log holds, all who read it come to the same.


def random_records() -> st.SearchStrategy[list[tuple[int, LogRecord]]]:
    """Records whose numbers are small enough to meet, with the ms since the one before."""
    sectors = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)
    offsets = st.integers(0, 6).map(lambda n: 10 + 2 * n)
    record = st.one_of(
        st.builds(ReceiverStarted, sectors=sectors, host=st.just("h"), pid=st.just(1), version=st.just("1")),
        st.builds(
            ScanStarted,
            session=st.just("s"),
            number=st.integers(1, 2),
            geometry=st.just(GEOMETRY),
            sectors=sectors,
            epoch=offsets,
            feed=st.sampled_from("ab"),
        ),
        st.builds(
            SectorEnded,
            ordinal=offsets,
            sector=st.integers(0, 3),
            epoch=offsets,
            reason=st.just(EndReason.IDLE),
            ledger=st.just(Ledger()),
            first_offsets=st.just([]),
            last_offsets=st.just([]),
        ),
        st.builds(
            CountStarted,
            ordinal=offsets,
            name=st.sampled_from(["live", "b"]),
            settings=st.just(SETTINGS),
            version=st.just("1"),
        ),
        st.builds(
            CountFinished,
            ordinal=offsets,
            count=offsets,
            name=st.just("live"),
            output=st.sampled_from("xy"),
            finished_ns=st.just(1),
            account=st.just(ACCOUNT),
        ),
        st.builds(CountAbandoned, ordinal=offsets, count=st.none() | offsets, why=st.sampled_from("xy")),
    )
    return st.lists(st.tuples(st.sampled_from([0, 500, IDLE_TIMEOUT_MS + 1]), record), max_size=16)


def written(records: list[tuple[int, LogRecord]]) -> Log:
    log = Log()
    for later_ms, record in records:
        log.now_ms += later_ms
        log.append(record)
    return log


def read(records: list[tuple[int, int, LogRecord]]) -> Catalogue:
    catalogue = Catalogue()
    for record in records:
        catalogue.apply(*record)
    return catalogue


@settings(max_examples=100, deadline=None)
@given(records=random_records())
def test_a_scan_is_never_stated_twice_by_a_sector_and_keeps_the_offset_of_a_statement(
    records: list[tuple[int, LogRecord]],
) -> None:
    log = written(records)
    by_offset = {offset: record for offset, _, record in log.records}
    stated: dict[int, list[int]] = {}
    for offset, ordinal in log.catalogue.scan_of_statement.items():
        statement = by_offset[offset]
        assert isinstance(statement, ScanStarted)
        assert ordinal <= offset
        stated.setdefault(ordinal, []).extend(statement.sectors)
    assert list(log.scans) == sorted(log.scans) == sorted(stated)
    for ordinal, scan in log.scans.items():
        assert isinstance(by_offset[ordinal], ScanStarted)
        assert sorted(stated[ordinal]) == sorted(scan.stated)


@settings(max_examples=100, deadline=None)
@given(records=random_records(), data=st.data())
def test_what_is_said_of_ends_and_counts_may_be_said_twice(
    records: list[tuple[int, LogRecord]], data: st.DataObject
) -> None:
    log = written(records)
    sayable = (SectorEnded, CountStarted, CountFinished, CountAbandoned)
    repeated: list[tuple[int, int, LogRecord]] = []
    for offset, at_ms, record in log.records:
        repeated.append((offset, at_ms, record))
        if isinstance(record, sayable) and data.draw(st.booleans()):
            repeated.append((offset + 1, at_ms, record))
    once, twice = log.catalogue, read(repeated)
    assert once.scans == twice.scans
    assert once.epochs == twice.epochs
    assert once.scan_of_statement == twice.scan_of_statement


def test_a_record_read_from_its_bytes_counts_like_the_one_that_was_written(log: Log) -> None:
    ordinal = one_scan(log)
    count = log.start_count(ordinal)
    for sector in range(4):
        log.end(log.receiver(sector), ordinal, sector)
    log.finish_count(ordinal, count)
    catalogue = read([(offset, at_ms, decode(record.encode())) for offset, at_ms, record in log.records])
    assert catalogue.scans == log.scans
