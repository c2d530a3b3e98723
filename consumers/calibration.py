"""Automatic thresholds: the first frames of a scan, read ahead of the counting from all partitions.

The owner of partition 0 does this once for a count; the other counters wait for the record in the scan log. It starts
where the group of counters stands and rejoins as they do, so the frames are the same whoever does it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from consumers.chunk_pixels import Decompressor
from consumers.counts import Counts
from consumers.rejoin import JoinedChunk, JoinedEnd, PartitionMerge, position_of
from counting import Corrections, SuppressedFrames, thresholds
from counting.thresholds import ThresholdError, Thresholds, ThresholdSamples
from service.catalogue import Count, Scan
from service.kafka import (
    COUNTER_GROUP,
    REQUEST_TIMEOUT_S,
    Message,
    TopicPartition,
    consumer,
    poll_batch,
    raise_for,
    start_of_group,
)
from service.references import store_calibration
from topics import raw
from topics.calibration import MAX_BINS, Calibration
from topics.errors import DecodeError
from topics.marker import ResumeMarker
from topics.registry import RAW_TOPICS
from topics.scan_log import FRAMES_A_BLOCK, AutoThreshold, CountAbandoned, ThresholdsFound

MESSAGES_A_POLL = 32


def warm_up() -> None:
    """Make ready what the first scan would wait for."""
    thresholds.warm_up()


class SampleReader:
    """Reads the sample frames of one scan, a little at each :meth:`poll`."""

    def __init__(self, bootstrap: str, counts: Counts, scan: Scan, count: Count, corrections: Corrections) -> None:
        assert count.settings.auto_threshold is not None
        self.scan, self.count = scan, count
        self.samples = ThresholdSamples(corrections)
        self._counts = counts
        self._wanted = sample_frames(count.settings.auto_threshold, scan.geometry.frames)
        self._decompressor = Decompressor()
        self._consumer = consumer(bootstrap, COUNTER_GROUP, **{"isolation.level": "read_uncommitted"})
        chunks = range(int(self._wanted[-1]) // scan.geometry.frames_per_chunk + 1)
        self._last_chunk = {scan.geometry.partition_of(chunk): chunk for chunk in chunks}  # of each partition
        self._merges: dict[int, PartitionMerge] = {}
        self._reading: set[tuple[str, int]] = set()
        self._start()

    def _start(self) -> None:
        """Start where the group's counters would, with the merges as they left them."""
        places = [TopicPartition(topic, partition) for topic in RAW_TOPICS for partition in self._last_chunk]
        committed = self._consumer.committed(places, timeout=REQUEST_TIMEOUT_S)
        for partition in self._last_chunk:
            states = [place.metadata for place in committed if place.partition == partition]
            self._merges[partition] = PartitionMerge.restored(states)
        self._reading.update((place.topic, place.partition) for place in committed)
        self._consumer.assign([self._start_of(place) for place in committed])

    def _start_of(self, place: TopicPartition) -> TopicPartition:
        return start_of_group(self._consumer, COUNTER_GROUP, place, "uncounted messages")

    def poll(self, timeout_s: float) -> bool:
        """Take in what has come; whether all samples are there, or no more will come."""
        for message in poll_batch(self._consumer, timeout_s, MESSAGES_A_POLL):
            self._take_in(message)
        for partition, merge in list(self._merges.items()):
            for joined in merge.pop():
                if self._is_past(partition, joined):
                    del self._merges[partition]
                    break
        return not self._merges

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _take_in(self, message: Message) -> None:
        if not raise_for(message):
            return
        topic, partition, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        merge = self._merges.get(partition)
        if merge is None or (topic, partition) not in self._reading:  # fetched before it was left
            return
        sector = RAW_TOPICS.index(topic)
        try:
            decoded = raw.decode(value)
            self._counts.check_place(decoded, sector, partition)
        except DecodeError:  # the counter of this partition sets it aside
            merge.skip(sector, offset)
            return
        if merge.push(sector, offset, decoded, len(value or b"")) is not None or isinstance(decoded, ResumeMarker):
            return
        if position_of(decoded) >= (self.scan.ordinal, self._last_chunk[partition]):
            self._reading.discard((topic, partition))  # what comes after it would only fill the memory
            self._consumer.incremental_unassign([TopicPartition(topic, partition)])

    def _is_past(self, partition: int, joined: JoinedChunk | JoinedEnd) -> bool:
        """Take samples from a chunk; whether the partition has no more of them."""
        if joined.ordinal != self.scan.ordinal or isinstance(joined, JoinedEnd):
            return joined.ordinal >= self.scan.ordinal
        if joined.index <= self._last_chunk[partition]:
            self._add(joined)
        return joined.index >= self._last_chunk[partition]

    def _add(self, chunk: JoinedChunk) -> None:
        pixels = self._decompressor.decompress(chunk)
        first = chunk.index * chunk.geometry.frames_per_chunk
        sampled = np.isin(np.arange(first, first + len(pixels.complete)), self._wanted)
        slots = np.ascontiguousarray(pixels.slots[sampled[pixels.complete]])
        full = [sector for sector in pixels.sectors if not isinstance(sector, SuppressedFrames)]
        if len(full) == len(pixels.sectors):  # thresholds of a zero-suppressed scan are not asked for
            self.samples.add(full, slots)


def sample_frames(how: AutoThreshold, frames: int) -> NDArray[np.int64]:
    """Frame numbers of the samples, ascending: evenly spread over the scan's first blocks, each once.

    Parameters
    ----------
    how
        Numbers of samples and blocks.
    frames
        Of the whole scan.
    """
    population = min(how.blocks * FRAMES_A_BLOCK, frames)
    samples = min(how.samples, population)
    return np.arange(samples, dtype=np.int64) * population // samples


def calibrate(bootstrap: str, counts: Counts, reader: SampleReader) -> ThresholdsFound | CountAbandoned:
    """Find the thresholds in the samples: an outcome in any case.

    Returns
    -------
    ThresholdsFound
        From the samples; if these give none, the last ones found in the session with the same settings.
    CountAbandoned
        There are none, either. The scan's raw data stay.
    """
    scan, count = reader.scan, reader.count
    try:
        found = _find(count, reader.samples)
    except ThresholdError as error:
        last = counts.last_thresholds(scan, count)
        if last is None or _is_useless(count, last.optimized_mean):
            why = f"no automatic thresholds: {error}; and none were found in session {scan.session} before"
            return CountAbandoned(ordinal=scan.ordinal, count=count.offset, name=count.name, why=why[:400])
        changes = {"ordinal": scan.ordinal, "count": count.offset, "source": "session", "why": str(error)[:400]}
        return last.model_copy(update=changes)
    calibration = Calibration(
        ordinal=scan.ordinal,
        count=count.offset,
        frames=found.frames,
        first_bin=found.first_bin,
        histogram=found.histogram[:MAX_BINS].tolist(),  # beyond lie a few x-rays that a small gain made large
        amplitude=found.amplitude,
        optimized_mean=found.optimized_mean,
        optimized_std=found.optimized_std,
        background=found.background,
        xray=found.xray,
    )
    return ThresholdsFound(
        ordinal=scan.ordinal,
        count=count.offset,
        source="calibration",
        background=found.background,
        xray=found.xray,
        mean=found.mean,
        std=found.std,
        optimized_mean=found.optimized_mean,
        optimized_std=found.optimized_std,
        frames=found.frames,
        calibration=store_calibration(bootstrap, calibration),
    )


def _find(count: Count, samples: ThresholdSamples) -> Thresholds:
    how = count.settings.auto_threshold
    assert how is not None
    found = samples.find(how.background_sigmas, how.xray_sigmas)
    if _is_useless(count, found.optimized_mean):
        raise ThresholdError(
            f"row-dark scales to the optimized mean, which is {found.optimized_mean:.4g}; give --optimized-mean"
        )
    return found


def _is_useless(count: Count, optimized_mean: float) -> bool:
    """Whether row-dark would scale all pixels to nothing: with a dark reference, noise has a mean about 0."""
    return count.settings.row_dark is not None and count.settings.optimized_mean is None and optimized_mean <= 0
