"""The counter: raw chunks in, events out, exactly once.

One transaction carries events, end markers and the consumed offsets with the merge's position; that position is the
counter's only state. When its partitions are taken away it aborts, and whoever gets them starts at the offsets.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.calibration import SampleReader, calibrate, warm_up
from consumers.chunk_pixels import floors
from consumers.counting_step import CountingStep
from consumers.counts import Counts, below_floor
from consumers.rejoin import Joined, JoinedChunk, JoinedEnd, PartitionMerge
from service.catalogue import Count
from service.dead_letters import set_aside
from service.errors import FaultError
from service.kafka import (
    COUNTER_GROUP,
    REQUEST_TIMEOUT_S,
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
    consumer,
    poll_batch,
    raise_for,
    start_of_group,
    transactional_producer,
)
from service.logs import get_logger
from service.metrics import Metrics
from service.process import CommonSettings, StopFlag, run_service
from service.references import store_reference
from service.scan_log import ScanLog
from service.topic_admin import deployment_partitions
from topics import event, raw
from topics.errors import DecodeError
from topics.event import CountEnd
from topics.geometry import SECTOR_FRAME_BYTES
from topics.keys import chunk_key, marker_key
from topics.registry import DEAD_LETTERS, EVENTS, MIB, RAW_TOPICS
from topics.scan_log import CountAbandoned, CountSettings, ThresholdsFound

# A transaction is committed this long after its first message, and at once after the end of a scan.
COMMIT_INTERVAL_S = 0.1
IDLE_COMMIT_INTERVAL_S = 1.0  # for offsets that moved without events
POLL_TIMEOUT_S = 0.05
MESSAGES_A_POLL = 32
# What of one sector's partition may wait for the other sectors; more, and that partition is paused.
WAITING_BYTES_LIMIT = 8 * MIB
WAITING_BYTES_ALL = 256 * MIB  # of all sectors and partitions: so much waits while thresholds are not found


@dataclass(frozen=True, slots=True)
class CounterSettings:
    """What a counter is told. ``slot`` names its transactions: no two counters at a time may share one."""

    common: CommonSettings
    count: CountSettings
    references: Sequence[NDArray[np.float32]] = ()  # those that ``count`` names
    slot: str = ""


def run_counter(settings: CounterSettings) -> int:
    """Run the process; returns its exit code."""
    return run_service("counter", settings.common, lambda metrics, stop: _Counter(settings, metrics).run(stop))


class _Counter:
    def __init__(self, settings: CounterSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        bootstrap = settings.common.bootstrap
        deployment_partitions(bootstrap)  # refuses topics that cannot be rejoined
        self._bootstrap = bootstrap
        log = ScanLog(bootstrap)
        for pixels in settings.references:
            store_reference(log, pixels)
        self._counts = Counts(log, settings.count)
        self._step = CountingStep(self._counts.fetch_reference)
        self._samples: SampleReader | None = None  # while thresholds are being found
        if settings.count.auto_threshold is not None:
            warm_up()
        slot = settings.slot or f"{platform.node()}-{os.getpid()}"
        self._producer: Producer = transactional_producer(bootstrap, f"counter-{slot}")
        self._consumer: Consumer = consumer(bootstrap, COUNTER_GROUP, **{"isolation.level": "read_uncommitted"})
        self._merges: dict[int, PartitionMerge] = {}
        self._paused: set[tuple[str, int]] = set()
        self._changed: set[int] = set()  # partitions whose offsets go with the next commit
        self._transaction_since: float | None = None
        self._committed_at = time.monotonic()
        self._frames = metrics.counter("counted_frames", "Frames counted or found incomplete", "state")
        self._electrons = metrics.counter("electrons", "Electrons counted")
        self._thresholds = metrics.counter("found_thresholds", "Searches for automatic thresholds that ended", "source")
        self._raw_bytes = metrics.counter("counted_raw_bytes", "Pixel bytes of the chunks that were counted")

    def run(self, stop: StopFlag) -> int:
        """Count until asked to stop."""
        self._consumer.subscribe(list(RAW_TOPICS), on_assign=self._on_assign, on_revoke=self._on_revoke)
        try:
            while not stop:
                self._metrics.health.beat()
                for message in poll_batch(self._consumer, 0 if self._samples else POLL_TIMEOUT_S, MESSAGES_A_POLL):
                    self._take_in(message)
                for partition, merge in list(self._merges.items()):
                    for joined in merge.pop(self._counts.is_settled):
                        self._emit(partition, joined)
                        self._commit_if_due()
                self._find_thresholds()
                self._pause_or_resume()
                self._commit_if_due()
            self._commit()
        finally:
            self._consumer.close()
        return 0

    # Partitions come and go.

    def _on_assign(self, client: Consumer, assigned: list[TopicPartition]) -> None:
        """Start each partition at its committed offset, or at the oldest message of a group that has none."""
        committed = client.committed(assigned, timeout=REQUEST_TIMEOUT_S) if assigned else []
        for partition in {place.partition for place in committed}:
            states = [place.metadata for place in committed if place.partition == partition]
            self._merges[partition] = PartitionMerge.restored(states)
        client.assign([start_of_group(client, COUNTER_GROUP, place, "uncounted messages") for place in committed])
        self._metrics.health.set_ready(True)
        get_logger().info("partitions assigned", partitions=sorted(self._merges))

    def _on_revoke(self, client: Consumer, revoked: list[TopicPartition]) -> None:
        self._abort()
        self._merges.clear()
        self._paused.clear()
        self._changed.clear()
        self._leave_samples()
        self._metrics.health.set_ready(False, "no partitions assigned")

    # Automatic thresholds.

    def _find_thresholds(self) -> None:
        """As the owner of partition 0, find the thresholds that the counters of all partitions wait for."""
        merge = self._merges.get(0)
        place = merge.next_place() if merge else None
        count = self._counts.of_scan(place[0]) if place else None
        if self._samples is not None and self._samples.count is not count:
            self._leave_samples()  # the partition was taken away, or the count was abandoned
        if place is None or count is None or count.thresholds is not None:
            return
        if self._samples is None:
            scan = self._counts.scan(place[0])
            assert scan is not None
            corrections = self._step.corrections_of_samples(count)
            self._samples = SampleReader(self._bootstrap, self._counts, scan, count, corrections)
            get_logger().info("finding thresholds", ordinal=scan.ordinal, count=count.offset)
        if self._samples.poll(POLL_TIMEOUT_S):
            try:
                outcome = calibrate(self._bootstrap, self._counts, self._samples)
            except ValueError as error:
                outcome = CountAbandoned(ordinal=place[0], count=count.offset, name=count.name, why=str(error)[:400])
            self._thresholds.labels(outcome.source if isinstance(outcome, ThresholdsFound) else "none").inc()
            self._counts.settle(outcome)
            self._leave_samples()
            get_logger().info(outcome.kind, **outcome.model_dump(exclude={"schema_id", "kind"}))

    def _leave_samples(self) -> None:
        if self._samples is not None:
            self._samples.close()
            self._samples = None

    # Messages come in.

    def _take_in(self, message: Message) -> None:
        if not raise_for(message):
            return
        topic, partition, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        merge = self._merges.get(partition)
        if merge is None:  # revoked since it was fetched
            return
        size = len(value or b"")
        self._metrics.received.labels(topic).inc()
        self._metrics.received_bytes.labels(topic).inc(size)
        sector = RAW_TOPICS.index(topic)
        self._changed.add(partition)
        try:
            decoded = raw.decode(value)
            self._counts.check_place(decoded, sector, partition)
        except DecodeError as error:
            merge.skip(sector, offset)
            key, letter = set_aside(
                self._metrics, "counter", topic, partition, offset, value=value or b"", reason=str(error)
            )
            self._produce(DEAD_LETTERS, 0, key, letter)
            return
        refusal = merge.push(sector, offset, decoded, size)
        if refusal is not None:
            self._metrics.discarded.labels(refusal.value).inc()
            get_logger().warning("message discarded", topic=topic, partition=partition, offset=offset, reason=refusal)

    def _pause_or_resume(self) -> None:
        """Hold back sectors that are ahead, so that waiting chunks do not fill the memory."""
        limit = min(WAITING_BYTES_LIMIT, WAITING_BYTES_ALL // max(len(self._merges) * len(RAW_TOPICS), 1))
        for partition, merge in self._merges.items():
            for sector, topic in enumerate(RAW_TOPICS):
                waiting, place = merge.waiting_bytes(sector), (topic, partition)
                if waiting > limit and place not in self._paused:
                    self._consumer.pause([TopicPartition(*place)])
                    self._paused.add(place)
                elif waiting < limit // 2 and place in self._paused:
                    self._consumer.resume([TopicPartition(*place)])
                    self._paused.discard(place)

    # Events go out.

    def _emit(self, partition: int, joined: Joined) -> None:
        self._changed.add(partition)
        count = self._counts.of_scan(joined.ordinal)
        if count is None:  # finished or abandoned
            self._metrics.discarded.labels("count not running").inc()
            return
        match joined:
            case JoinedChunk():
                if not self._is_above_floor(joined, count):
                    return
                try:
                    events, damaged = self._step.count(joined, count)
                except ValueError as error:  # what no settings should lead to must not stop the scans that follow
                    self._abandon(joined.ordinal, count, str(error))
                    return
                for text in damaged:
                    self._metrics.errors.labels("decompression").inc()
                    get_logger().error("sector counts as missing", ordinal=joined.ordinal, reason=text)
                key = chunk_key(joined.ordinal, joined.geometry, joined.index)
                self._produce(EVENTS, partition, key, event.encode(events))
                self._observe(events, joined)
            case JoinedEnd():
                end = CountEnd(
                    ordinal=joined.ordinal,
                    count=count.offset,
                    count_name=count.name,
                    geometry=joined.geometry,
                    partition=partition,
                    ends=list(joined.ends),
                )
                self._produce(EVENTS, partition, marker_key(joined.ordinal, "end"), end.encode())
                self._commit()

    def _is_above_floor(self, joined: JoinedChunk, count: Count) -> bool:
        """Whether a chunk's floor allows this count; if not, the count is abandoned: it could not be exact."""
        greatest = max((floor for floor in floors(joined) or [] if floor is not None), default=None)
        why = below_floor(count.thresholds[0] if count.thresholds else None, greatest)
        if why is not None:
            self._abandon(joined.ordinal, count, why)
        return why is None

    def _abandon(self, ordinal: int, count: Count, why: str) -> None:
        self._metrics.errors.labels("count abandoned").inc()
        scan = self._counts.scan(ordinal)
        if scan is not None:
            self._counts.abandon(scan, count, why)

    def _observe(self, events: event.Events, joined: JoinedChunk) -> None:
        incomplete = int((events.missing_sectors != 0).sum())
        self._frames.labels("complete").inc(len(events.missing_sectors) - incomplete)
        self._frames.labels("incomplete").inc(incomplete)
        self._electrons.inc(len(events.indices))
        sector_frames = sum(c.header.sector_frames for c in joined.sectors if c is not None)
        self._raw_bytes.inc(sector_frames * SECTOR_FRAME_BYTES)

    def _produce(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        self._begin_if_needed()
        while True:
            try:
                self._producer.produce(topic, value, key, partition)
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)
        self._metrics.sent.labels(topic).inc()
        self._metrics.sent_bytes.labels(topic).inc(len(value))

    # Transactions.

    def _begin_if_needed(self) -> None:
        if self._transaction_since is None:
            self._producer.begin_transaction()
            self._transaction_since = time.monotonic()

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        if self._transaction_since is not None:
            due = now - self._transaction_since > COMMIT_INTERVAL_S
        else:
            due = bool(self._changed) and now - self._committed_at > IDLE_COMMIT_INTERVAL_S
        if due:
            self._commit()

    def _commit(self) -> None:
        """Commit what was produced, with the offsets and the merge's position of the partitions that moved."""
        offsets = [
            TopicPartition(topic, partition, offset, metadata=merge.state())
            for partition in sorted(self._changed)
            if (merge := self._merges.get(partition)) is not None
            for sector, topic in enumerate(RAW_TOPICS)
            if (offset := merge.committable(sector)) is not None
        ]
        if self._transaction_since is None and not offsets:
            return
        try:
            self._begin_if_needed()
            self._producer.send_offsets_to_transaction(
                offsets, self._consumer.consumer_group_metadata(), REQUEST_TIMEOUT_S
            )
            self._producer.commit_transaction(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            # Whatever went wrong, what was counted since the last commit is counted again by whoever starts there.
            raise FaultError(f"the transaction failed: {error.args[0].str()}") from error
        self._transaction_since = None
        self._committed_at = time.monotonic()
        self._changed.clear()
        self._observe_lag(offsets)

    def _observe_lag(self, offsets: list[TopicPartition]) -> None:
        for place in offsets:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), cached=True)
            self._metrics.lag.labels(place.topic, place.partition).set(max(0, high - place.offset))

    def _abort(self) -> None:
        if self._transaction_since is not None:
            try:
                self._producer.abort_transaction(REQUEST_TIMEOUT_S)
            except KafkaException as error:
                raise FaultError(f"the transaction could not be aborted: {error.args[0].str()}") from error
            self._transaction_since = None
