"""Which count a scan belongs to: the scan log decides, whatever the counter's own options say."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from consumers.counts import Counts
from service.scan_log import ScanLog
from tests.consumers.streams import sent
from tests.service.memory_log import GEOMETRY, Log
from topics.errors import DecodeError
from topics.geometry import ScanGeometry
from topics.raw import RawMessage
from topics.scan_log import CountSettings, CountStarted, ZeroSuppression

MINE = CountSettings(background=33, xray=1000)


@pytest.fixture
def log() -> Log:
    return Log()


def counts(log: Log) -> Counts:
    return Counts(cast("ScanLog", log), MINE)


def one_scan(log: Log, geometry: ScanGeometry = GEOMETRY) -> int:
    ordinal = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3, geometry=geometry)
    assert ordinal is not None
    return ordinal


def test_a_scan_that_nobody_counts_is_counted_with_my_settings(log: Log) -> None:
    ordinal = one_scan(log)
    count = counts(log).of_scan(ordinal)
    assert count is not None
    assert (count.name, count.settings) == ("live", MINE)
    assert count.offset == log.records[-1][0]
    assert isinstance(log.records[-1][2], CountStarted)


def test_a_count_is_started_once(log: Log) -> None:
    ordinal, mine = one_scan(log), counts(log)
    first = mine.of_scan(ordinal)
    written = len(log.records)
    assert mine.of_scan(ordinal) is first
    assert counts(log).of_scan(ordinal) is first
    assert len(log.records) == written


def test_a_count_that_was_started_keeps_its_settings_and_the_difference_is_logged(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    ordinal = one_scan(log)
    started = log.start_count(ordinal, background=28)
    mine = counts(log)
    for _ in range(2):
        count = mine.of_scan(ordinal)
        assert count is not None
        assert (count.offset, count.settings.background) == (started, 28)
    said = capsys.readouterr()
    assert (said.out + said.err).count("not with mine") == 1


def test_of_two_counters_that_start_at_once_the_first_one_in_the_log_decides(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinal, append = one_scan(log), log.append

    def append_after_another(record: CountStarted) -> int:
        append(record.model_copy(update={"settings": CountSettings(background=28, xray=2000)}))
        return append(record)

    monkeypatch.setattr(log, "append", append_after_another)
    count = counts(log).of_scan(ordinal)
    assert count is not None
    assert count.settings.background == 28


def test_what_is_finished_or_given_up_is_not_counted(log: Log) -> None:
    finished, given_up = one_scan(log), one_scan(log)
    log.finish_count(finished, log.start_count(finished))
    log.abandon_count(given_up, None)
    written = len(log.records)
    assert counts(log).of_scan(finished) is None
    assert counts(log).of_scan(given_up) is None
    assert counts(log).of_scan(4711) is None
    assert len(log.records) == written


DARK, GAIN = "d" * 64, "f" * 64
SUPPRESSED = ZeroSuppression(floor=27.5, dark=DARK)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"background": 27.5, "xray": 2000, "dark": DARK}, None),
        ({"background": 27.25, "xray": 2000, "dark": DARK}, "background threshold 27.25 is below the floor"),
        ({"background": 40, "xray": 2000}, "dark reference d.* is to be counted with None"),
        ({"background": 40, "xray": 2000, "dark": DARK, "gain": GAIN}, "the gain reference None"),
        ({"background": 40, "xray": 60_000, "dark": DARK}, None),
        ({"background": 40, "xray": 60_001, "dark": DARK}, "x-ray threshold may be 60000 at most"),
        ({"auto_threshold": {}, "dark": DARK}, "automatic thresholds need full frames"),
        (
            {"background": 40, "xray": 2000, "dark": DARK, "row_dark": "mean", "optimized_mean": 9},
            "row-dark needs full frames",
        ),
    ],
)
def test_a_zero_suppressed_scan_is_counted_only_if_that_is_exact(
    log: Log, settings: dict[str, Any], said: str | None
) -> None:
    ordinal = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3, zero_suppression=SUPPRESSED)
    assert ordinal is not None
    mine = Counts(cast("ScanLog", log), CountSettings.model_validate(settings))
    count = mine.of_scan(ordinal)
    if said is None:
        assert count is not None
        assert count.running
        return
    assert count is None
    assert log.scans[ordinal].state == "failed"
    assert re.search(said, log.scans[ordinal].counts["live"].abandoned or "")
    written = len(log.records)
    assert mine.of_scan(ordinal) is None
    assert len(log.records) == written


def message(text: str, sector: int = 2) -> RawMessage:
    """Of a scan of 8 x 8 positions in chunks of 2 and 3 partitions; markers are for partition 1."""
    made = sent(0, sector, text).message
    assert made is not None
    return made


@pytest.mark.parametrize("kind", ["/4", " start", " resume", " end"])
def test_a_message_in_its_place_passes_and_in_any_other_it_is_refused(log: Log, kind: str) -> None:
    geometry = ScanGeometry(width=8, height=8, frames_per_chunk=2, partitions=3)
    mine, text = counts(log), f"{one_scan(log, geometry)}{kind}"
    mine.check_place(message(text), 2, 1)
    for sector, partition, said in [(1, 1, "sector 2 lies in the topic of sector 1"), (2, 0, "partition 1 lies in")]:
        with pytest.raises(DecodeError, match=said):
            mine.check_place(message(text), sector, partition)


def test_a_message_of_a_scan_that_the_log_does_not_know_is_refused(log: Log) -> None:
    with pytest.raises(DecodeError, match="no scan of ordinal 7"):
        counts(log).check_place(message("7/4"), 2, 1)


def test_a_message_with_another_geometry_than_its_scan_is_refused(log: Log) -> None:
    ordinal = one_scan(log)
    with pytest.raises(DecodeError, match="is not that of scan"):
        counts(log).check_place(message(f"{ordinal}/4"), 2, 1)
