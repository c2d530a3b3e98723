"""Which thresholds a count has, and where references lie: the first record holds."""

from __future__ import annotations

from typing import Any

import pytest

from service.catalogue import Count
from tests.golden.values import RECORDS
from tests.service.memory_log import Log
from topics.scan_log import AutoThreshold, CountSettings, CountStarted, LogRecord, ReferenceStored

AUTO = CountSettings(auto_threshold=AutoThreshold())


@pytest.fixture
def log() -> Log:
    return Log()


def started(log: Log, settings: CountSettings) -> Count:
    ordinal = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3)
    assert ordinal is not None
    log.append(CountStarted(ordinal=ordinal, settings=settings, version="1"))
    return log.scans[ordinal].counts["live"]


def found(count: Count, **changes: Any) -> LogRecord:  # noqa: ANN401
    return RECORDS["log1_thresholds_found"].model_copy(update={"count": count.offset, **changes})


def test_given_thresholds_hold_at_once_and_whatever_is_found(log: Log) -> None:
    count = started(log, CountSettings(background=28, xray=2000))
    assert count.thresholds == (28, 2000)
    log.append(found(count))
    assert count.thresholds == (28, 2000)


def test_automatic_thresholds_are_unknown_until_the_first_ones_are_found(log: Log) -> None:
    count = started(log, AUTO)
    assert count.thresholds is None
    log.append(found(count, background=34.5, xray=2150.75))
    log.append(found(count, background=1, xray=2))
    assert count.thresholds == (34.5, 2150.75)


def test_nothing_is_found_for_a_count_that_was_abandoned(log: Log) -> None:
    count = started(log, AUTO)
    log.abandon_count(next(iter(log.scans)), count.offset)
    log.append(found(count))
    assert count.thresholds is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (AUTO, None),
        (AUTO.model_copy(update={"row_dark": "mean"}), 12.0),
        (AUTO.model_copy(update={"row_dark": "mean", "optimized_mean": 9.5}), 9.5),
        (CountSettings(background=1, xray=2, row_dark="median", optimized_mean=7), 7),
    ],
)
def test_row_dark_scales_to_what_was_said_or_else_found(
    log: Log, settings: CountSettings, expected: float | None
) -> None:
    count = started(log, settings)
    log.append(found(count, optimized_mean=12.0))
    assert count.optimized_mean == expected


def test_a_reference_lies_where_it_was_stored_first(log: Log) -> None:
    log.append(ReferenceStored(sha256="a" * 64, offset=3))
    log.append(ReferenceStored(sha256="a" * 64, offset=5))
    log.append(ReferenceStored(sha256="b" * 64, offset=4))
    assert log.catalogue.references == {"a" * 64: 3, "b" * 64: 4}
