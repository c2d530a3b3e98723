"""Publish one sector of a scan: markers and chunks, in order, with the ledger of what was published."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from producers.chunker import FilledChunk
from producers.tail import PartitionTail
from service.errors import FaultError
from service.kafka import KafkaError, Message, Producer
from service.metrics import Metrics
from service.process import StopFlag
from topics import chunk
from topics.chunk import NO_FLOOR, ChunkHeader
from topics.codec import Codec, compress
from topics.geometry import SECTOR_FRAME_BYTES, ScanGeometry
from topics.keys import chunk_key, marker_key
from topics.marker import EndMarker, EndReason, Ledger, Marker, PartitionPublished, ResumeMarker, StartMarker
from topics.registry import archive_topic, raw_topic

if TYPE_CHECKING:
    from producers.suppressor import Suppressor

FLUSH_TIMEOUT_S = 8.0
Delivered = Callable[[KafkaError | None, Message], None]


class Interrupted(Exception):  # noqa: N818  # no error: the process was asked to stop
    """The process was asked to stop while it waited for the broker."""


class SectorPublisher:
    """One sector of one scan on its way to Kafka. The only writer of its topic."""

    def __init__(
        self,
        producer: Producer,
        metrics: Metrics,
        stop: StopFlag,
        *,
        sector: int,
        ordinal: int,
        epoch: int,
        geometry: ScanGeometry,
        suppressor: Suppressor | None = None,
        keep_full: int = 0,
    ) -> None:
        """``keep_full``: every so many-th chunk of a zero-suppressed scan is archived in full, too; 0: none."""
        self.sector, self.ordinal, self.epoch, self.geometry = sector, ordinal, epoch, geometry
        self.first_offsets = [-1] * geometry.partitions
        self.last_offsets = [-1] * geometry.partitions
        self.last_published_ns = 0  # when the last chunk was handed to the client
        self.first_frame_ns = 0
        self._published = [PartitionPublished() for _ in range(geometry.partitions)]
        self._producer, self._metrics, self._stop = producer, metrics, stop
        self._topic = raw_topic(sector)
        self._suppressor, self._keep_full = suppressor, keep_full
        self._unacknowledged = 0
        self._failure: KafkaError | None = None

    def start(self) -> None:
        """Write the start marker to every partition."""
        self._mark_all(lambda fields: StartMarker(**fields), self._published)

    def resume(self, tails: list[PartitionTail], started_ns: int) -> None:
        """Go on where an earlier receiver of this sector stopped: take over its totals and mark the place.

        ``started_ns`` is when the scan began: its first frame came to the earlier receiver.
        """
        self.first_frame_ns = started_ns
        for partition, tail in enumerate(tails):
            if tail.ordinal == self.ordinal:
                self._published[partition] = tail.published
                self.first_offsets[partition] = tail.published.start_offset
        self._mark_all(lambda fields: ResumeMarker(**fields), self._published)

    def is_published(self, chunk_index: int) -> bool:
        """Whether this chunk is past: it was published, or a later one of its partition was."""
        return chunk_index <= self._published[self.geometry.partition_of(chunk_index)].last_chunk

    def publish(self, filled: FilledChunk) -> None:
        """Compress a chunk and hand it to the client; one that is in the topic already is passed over.

        Raises
        ------
        Interrupted
            The process was asked to stop while the broker took nothing.
        FaultError
            The broker refuses for good.
        """
        partition = self.geometry.partition_of(filled.index)
        self.first_frame_ns = self.first_frame_ns or filled.first_frame_ns
        if self.is_published(filled.index):
            return
        before = self._with_start(partition)
        sector_frames = filled.sector_frames
        suppressed = self._suppressor.compress(sector_frames) if self._suppressor else None
        payload, floor = suppressed or (compress(sector_frames), NO_FLOOR)
        after = PartitionPublished(
            chunks=before.chunks + 1,
            sector_frames=before.sector_frames + len(sector_frames),
            payload_bytes=before.payload_bytes + len(payload),
            last_chunk=filled.index,
            start_offset=before.start_offset,
        )
        header = ChunkHeader(
            sector=self.sector,
            ordinal=self.ordinal,
            epoch=self.epoch,
            geometry=self.geometry,
            chunk_index=filled.index,
            present=filled.present,
            published=after,
            first_frame_ns=filled.first_frame_ns,
            codec=Codec.ZERO_SUPPRESSED if suppressed else Codec.BLOSC2,
            floor=floor,
        )
        key = chunk_key(self.ordinal, self.geometry, filled.index)
        if suppressed and self._keep_full and filled.index % self._keep_full == 0:
            # First: a receiver that resumes passes over what is in the raw topic, and would not archive it any more.
            full = dataclasses.replace(header, codec=Codec.BLOSC2, floor=NO_FLOOR)
            self._archive(partition, key, chunk.encode(full, compress(sector_frames)))
        self._produce(partition, key, chunk.encode(header, payload))
        self._published[partition] = after
        self.last_published_ns = time.time_ns()

    def end(self, reason: EndReason, counted: Ledger) -> Ledger:
        """Write the end marker to every partition; returns the ledger.

        ``counted`` has what the receiver counted besides: received, repeated, late, refused, lost.
        """
        ledger = self.ledger(counted)
        published = [self._with_start(partition) for partition in range(self.geometry.partitions)]
        self._mark_all(lambda fields: EndMarker(**fields, reason=reason, ledger=ledger), published)
        return ledger

    def ledger(self, counted: Ledger) -> Ledger:
        """Totals over the partitions, with what the receiver counted besides."""
        published = sum(p.sector_frames for p in self._published)
        return counted.model_copy(
            update={
                "published": published,
                "received": max(counted.received, published),
                "chunks": sum(p.chunks for p in self._published),
                "raw_bytes": published * SECTOR_FRAME_BYTES,
                "payload_bytes": sum(p.payload_bytes for p in self._published),
                "first_frame_ns": self.first_frame_ns,
                "last_published_ns": self.last_published_ns,
            }
        )

    @property
    def acknowledged(self) -> bool:
        """Whether the broker has all that was handed to the client."""
        return self._unacknowledged == 0

    def wait_until_acknowledged(self) -> None:
        """Wait until it has; see :meth:`_wait_until`."""
        self._wait_until(lambda: self.acknowledged)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Serve the client until the condition holds; :class:`Interrupted` some time after a stop was asked for."""
        asked_at = 0.0
        while not condition():
            self._poll(0.05)
            if self._stop:
                asked_at = asked_at or time.monotonic()
                if time.monotonic() - asked_at > FLUSH_TIMEOUT_S:
                    raise Interrupted

    def _with_start(self, partition: int) -> PartitionPublished:
        """What was published in a partition, with the offset of its first marker, which is waited for."""
        if self._published[partition].start_offset < 0:
            self._wait_until(lambda: self.first_offsets[partition] >= 0)
            start = {"start_offset": self.first_offsets[partition]}
            self._published[partition] = self._published[partition].model_copy(update=start)
        return self._published[partition]

    def _mark_all(self, make: Callable[[dict[str, object]], Marker], published: Sequence[PartitionPublished]) -> None:
        for partition in range(self.geometry.partitions):
            marker = make(
                {
                    "sector": self.sector,
                    "ordinal": self.ordinal,
                    "epoch": self.epoch,
                    "partition": partition,
                    "geometry": self.geometry,
                    "published": published[partition],
                }
            )
            self._produce(partition, marker_key(self.ordinal, marker.kind), marker.encode())

    def _archive(self, partition: int, key: bytes, value: bytes) -> None:
        topic = archive_topic(self.sector)

        def delivered(error: KafkaError | None, _: Message) -> None:
            self._unacknowledged -= 1
            if error is not None:
                self._failure = error
                return
            self._metrics.sent.labels(topic).inc()
            self._metrics.sent_bytes.labels(topic).inc(len(value))

        self._hand_over(topic, partition, key, value, delivered)

    def _produce(self, partition: int, key: bytes, value: bytes) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            self._unacknowledged -= 1
            if error is not None:
                self._failure = error
                return
            offset = int(message.offset())  # type: ignore[arg-type]  # an acknowledged message has one
            if self.first_offsets[partition] < 0:
                self.first_offsets[partition] = offset
            self.last_offsets[partition] = offset
            self._metrics.sent.labels(self._topic).inc()
            self._metrics.sent_bytes.labels(self._topic).inc(len(value))

        self._hand_over(self._topic, partition, key, value, delivered)

    def _hand_over(self, topic: str, partition: int, key: bytes, value: bytes, delivered: Delivered) -> None:
        """Give a message to the client, when it has room for it."""

        def accepted() -> bool:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=delivered)
            except BufferError:
                return False
            return True

        self._wait_until(accepted)
        self._unacknowledged += 1
        self._poll(0.0)

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._metrics.health.beat()
        if self._failure is not None:
            raise FaultError(f"the broker refused a message of {self._topic}: {self._failure.str()}")
