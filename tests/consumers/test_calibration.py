"""Which frames automatic thresholds are found from, and what is said when they give none."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.calibration import SampleReader, calibrate, sample_frames
from consumers.counts import Counts
from consumers.rejoin import PartitionMerge
from counting import NO_CORRECTIONS
from counting.thresholds import ThresholdSamples
from service.catalogue import Count, Scan
from service.kafka import Message, TopicPartition
from service.scan_log import ScanLog
from tests.service.memory_log import GEOMETRY, Log
from topics import chunk
from topics.chunk import ChunkHeader
from topics.marker import PartitionPublished
from topics.scan_log import AutoThreshold, CountAbandoned, CountSettings, CountStarted, ThresholdsFound

AUTO = CountSettings(auto_threshold=AutoThreshold())
FOUND = {"background": 30, "xray": 2000, "mean": 12, "std": 11, "optimized_mean": 12, "optimized_std": 4}


def test_stempys_production_values_take_the_first_1200_frames() -> None:
    assert sample_frames(AutoThreshold(), 65_536).tolist() == list(range(1200))


def test_a_short_scan_is_taken_whole() -> None:
    assert sample_frames(AutoThreshold(), 100).tolist() == list(range(100))


def test_fewer_samples_are_spread_evenly_over_the_blocks() -> None:
    assert sample_frames(AutoThreshold(samples=4, blocks=2), 1000).tolist() == [0, 30, 60, 90]


@given(samples=st.integers(1, 3000), blocks=st.integers(1, 50), frames=st.integers(1, 5000))
def test_samples_are_distinct_frames_of_the_first_blocks(samples: int, blocks: int, frames: int) -> None:
    taken = sample_frames(AutoThreshold(samples=samples, blocks=blocks), frames)
    population = min(frames, blocks * 60)
    assert len(taken) == min(samples, population)
    assert (np.diff(taken) > 0).all()
    assert taken[0] == 0
    assert taken[-1] < population
    assert np.diff(taken, append=population).max(initial=0) <= -(-population // len(taken))  # no gap wider than needed


class Read:
    """What a reader of samples has read: frames that are all black."""

    def __init__(self, scan: Scan, count: Count) -> None:
        self.scan, self.count = scan, count
        self.samples = ThresholdSamples(NO_CORRECTIONS)
        black = np.zeros((2, 144, 576), np.uint16)
        self.samples.add([black] * 4, np.zeros((2, 4), np.int64))


@pytest.fixture
def log() -> Log:
    return Log()


def auto_count(log: Log, session: str, settings: CountSettings = AUTO) -> tuple[Scan, Count]:
    ordinal = log.state(log.receiver(0, 1, 2, 3), 0, 1, 2, 3, session=session)
    assert ordinal is not None
    log.append(CountStarted(ordinal=ordinal, settings=settings, version="1"))
    return log.scans[ordinal], log.scans[ordinal].counts["live"]


def found(log: Log, scan: Scan, count: Count, **changes: float) -> None:
    fields = {"ordinal": scan.ordinal, "count": count.offset, "source": "calibration", "frames": 9, "calibration": 7}
    log.append(ThresholdsFound.model_validate(fields | FOUND | changes))


def outcome(log: Log, scan: Scan, count: Count) -> ThresholdsFound | CountAbandoned:
    counts = Counts(cast("ScanLog", log), AUTO)
    return calibrate("no broker", counts, cast("SampleReader", Read(scan, count)))


def test_a_scan_that_gives_none_takes_the_sessions_last_thresholds_and_says_why(log: Log) -> None:
    found(log, *auto_count(log, "gold"), background=28)
    found(log, *auto_count(log, "gold"), background=31)
    found(log, *auto_count(log, "other"), background=50)
    scan, count = auto_count(log, "gold")
    taken = outcome(log, scan, count)
    assert isinstance(taken, ThresholdsFound)
    assert (taken.ordinal, taken.count, taken.source) == (scan.ordinal, count.offset, "session")
    assert (taken.background, taken.xray) == (31, 2000)
    assert taken.why
    log.append(taken)
    assert count.thresholds == (31, 2000)


def test_thresholds_found_with_other_references_or_sigmas_are_no_help(log: Log) -> None:
    found(log, *auto_count(log, "gold", AUTO.model_copy(update={"dark": "d" * 64})))
    wider = AUTO.model_copy(update={"auto_threshold": AutoThreshold(background_sigmas=9)})
    found(log, *auto_count(log, "gold", wider))
    scan, count = auto_count(log, "gold")
    assert isinstance(outcome(log, scan, count), CountAbandoned)


def test_thresholds_that_were_themselves_taken_over_are_not_taken_for_found(log: Log) -> None:
    scan, count = auto_count(log, "gold")
    fields = {"ordinal": scan.ordinal, "count": count.offset, "source": "session", "frames": 9, "calibration": 7}
    log.append(ThresholdsFound.model_validate(fields | FOUND))
    assert isinstance(outcome(log, *auto_count(log, "gold")), CountAbandoned)


def test_without_any_thresholds_the_count_is_abandoned_with_the_reason(log: Log) -> None:
    scan, count = auto_count(log, "gold")
    abandoned = outcome(log, scan, count)
    assert isinstance(abandoned, CountAbandoned)
    assert abandoned.why.startswith("no automatic thresholds: ")
    assert "session gold" in abandoned.why
    log.append(abandoned)
    assert scan.state == "failed"


def test_row_dark_takes_no_mean_that_would_scale_everything_away(log: Log) -> None:
    dark = AUTO.model_copy(update={"dark": "d" * 64})
    found(log, *auto_count(log, "gold", dark), optimized_mean=-0.3)
    scaled = dark.model_copy(update={"row_dark": "median"})
    assert isinstance(outcome(log, *auto_count(log, "gold", scaled)), CountAbandoned)
    given = scaled.model_copy(update={"optimized_mean": 12.0})
    assert isinstance(outcome(log, *auto_count(log, "gold", given)), ThresholdsFound)


class Consumed:
    """What a consumer does for a reader of samples: notes which partitions are left."""

    def __init__(self) -> None:
        self.left: list[tuple[str, int]] = []

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.left += [(place.topic, place.partition) for place in places]


class Delivered:
    """A message of sector 0, as a consumer delivers it."""

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "raw.sector.0"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value


def chunk_of(ordinal: int, index: int, epoch: int) -> bytes:
    header = ChunkHeader(
        sector=0,
        ordinal=ordinal,
        epoch=epoch,
        geometry=GEOMETRY,
        chunk_index=index,
        present=np.ones(GEOMETRY.frames_in_chunk(index), bool),
        published=PartitionPublished(last_chunk=index),
        first_frame_ns=0,
    )
    return chunk.encode(header, b"payload")


def test_what_a_superseded_receiver_wrote_does_not_end_the_search(log: Log) -> None:
    scan, count = auto_count(log, "gold")
    reader = SampleReader.__new__(SampleReader)
    consumed = Consumed()
    merges = {0: PartitionMerge(epochs=(9,) * 4)}
    fields = {
        "scan": scan,
        "count": count,
        "_counts": Counts(cast("ScanLog", log), AUTO),
        "_consumer": consumed,
        "_merges": merges,
        "_reading": {("raw.sector.0", 0)},
        "_last_chunk": {0: 0},
    }
    for name, value in fields.items():
        setattr(reader, name, value)
    reader._take_in(cast("Message", Delivered(5, chunk_of(scan.ordinal, 0, epoch=3))))  # of an old epoch
    assert consumed.left == []
    reader._take_in(cast("Message", Delivered(6, chunk_of(scan.ordinal, 0, epoch=9))))
    assert consumed.left == [("raw.sector.0", 0)]
    assert merges[0].waiting_bytes(0) > 0
