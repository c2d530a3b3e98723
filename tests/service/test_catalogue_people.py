"""The catalogue: what people say in the scan log, and how they name a scan."""

from __future__ import annotations

import pytest

from service.catalogue import Scan
from tests.service.memory_log import Log
from topics.scan_log import CloseRequested, ScanAnnotated, SessionEnded, SessionStarted


@pytest.fixture
def log() -> Log:
    return Log()


def new_scan(log: Log, number: int = 1) -> Scan:
    """A scan of one sector, filed under the current session, as a receiver does it."""
    ordinal = log.state(log.receiver(0), 0, number=number, session=log.catalogue.session)
    assert ordinal is not None
    return log.scans[ordinal]


def annotate(log: Log, scan: Scan, **fields: str) -> None:
    log.append(ScanAnnotated(ordinal=scan.ordinal, fields=fields))


# Sessions.


def test_without_a_session_it_is_the_default_one(log: Log) -> None:
    assert log.catalogue.session == "default"


def test_a_session_holds_for_scans_that_begin_afterwards(log: Log) -> None:
    scans = [new_scan(log, 1)]
    log.append(SessionStarted(name="monday"))
    scans.append(new_scan(log, 2))
    log.append(SessionStarted(name="tuesday"))
    scans.append(new_scan(log, 3))
    log.append(SessionEnded(name="tuesday"))
    scans.append(new_scan(log, 4))
    assert [scan.session for scan in scans] == ["default", "monday", "tuesday", "default"]


# Annotations.


def test_annotations_are_merged_and_the_later_text_holds(log: Log) -> None:
    scan = new_scan(log)
    annotate(log, scan, sample="gold", kV="300")
    annotate(log, scan, sample="gold on carbon", camera="110 mm")
    assert scan.annotations == {"sample": "gold on carbon", "kV": "300", "camera": "110 mm"}


def test_an_empty_text_removes_an_annotation(log: Log) -> None:
    scan = new_scan(log)
    annotate(log, scan, sample="gold", kV="300")
    annotate(log, scan, sample="", never="")
    assert scan.annotations == {"kV": "300"}


def test_an_annotation_of_a_scan_that_nobody_stated_is_left_out(log: Log) -> None:
    other = new_scan(log)
    log.append(ScanAnnotated(ordinal=4711, fields={"sample": "gold"}))
    assert not other.annotations


def test_a_finished_scan_whose_file_lacks_an_annotation_is_named(log: Log) -> None:
    running, finished = new_scan(log, 1), new_scan(log, 2)
    log.finish_count(finished.ordinal, log.start_count(finished.ordinal))
    assert log.catalogue.annotated({}) == []
    for scan in (running, finished):
        annotate(log, scan, sample="gold")
    assert log.catalogue.annotated({}) == [finished]
    assert log.catalogue.annotated({finished.ordinal: {"sample": "gold"}}) == []
    annotate(log, finished, sample="")
    assert log.catalogue.annotated({finished.ordinal: {"sample": "gold"}}) == [finished]


# Closing.


def test_closing_concerns_the_scan_that_was_named_only(log: Log) -> None:
    new_scan(log, 1)
    scan = new_scan(log, 2)
    assert log.catalogue.to_close == set()
    log.append(CloseRequested(ordinal=scan.ordinal))
    assert log.catalogue.to_close == {scan.ordinal}


# Names of scans.


def test_a_scan_is_found_by_its_ordinal_its_label_and_as_the_last_one(log: Log) -> None:
    first, second = new_scan(log, 7), new_scan(log, 8)
    find = log.catalogue.find
    assert find(str(first.ordinal)) is first
    assert find("default/7") is first
    assert find("default/8") is find("last") is second


def test_a_label_that_came_again_names_the_newest_scan(log: Log) -> None:
    older, newer = new_scan(log, 7), new_scan(log, 7)
    assert log.catalogue.find("default/7") is newer
    assert log.catalogue.find(str(older.ordinal)) is older


@pytest.mark.parametrize("name", ["", "4711", "7", "default/9", "monday/7", "Last", "default", "-1"])
def test_what_names_no_scan_finds_none(log: Log, name: str) -> None:
    assert log.catalogue.find("last") is None
    new_scan(log, 7)
    assert log.catalogue.find(name) is None


# State and files.


def test_the_state_of_a_scan_is_that_of_its_live_count(log: Log) -> None:
    scan = new_scan(log)
    assert (scan.state, scan.files) == ("running", [])
    count = log.start_count(scan.ordinal)
    log.start_count(scan.ordinal, "again")
    assert (scan.state, scan.files) == ("running", [])
    log.finish_count(scan.ordinal, count, "/out/a.h5")
    assert (scan.state, scan.files) == ("incomplete", ["/out/a.h5"])  # the account lacks a sector
    assert scan.counts["again"].state == "running"


def test_a_scan_whose_count_was_abandoned_has_failed_until_it_is_counted_anew(log: Log) -> None:
    scan = new_scan(log)
    log.abandon_count(scan.ordinal, log.start_count(scan.ordinal))
    states = [scan.state]
    log.start_count(scan.ordinal)
    assert [*states, scan.state] == ["failed", "running"]


def test_a_scan_that_was_given_up_before_any_count_has_failed(log: Log) -> None:
    scan = new_scan(log)
    log.abandon_count(scan.ordinal, None)
    assert (scan.state, scan.files) == ("failed", [])
