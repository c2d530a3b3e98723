"""What lies at the end of a sector's raw topic: how far an earlier receiver came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from service.errors import FaultError
from service.kafka import REQUEST_TIMEOUT_S, Consumer, TopicPartition, consumer, partition_bounds, raise_for
from service.logs import get_logger
from topics import raw
from topics.chunk import Chunk
from topics.errors import DecodeError
from topics.marker import EndMarker, PartitionPublished
from topics.raw import RawMessage
from topics.registry import raw_topic


@dataclass(frozen=True, slots=True)
class PartitionTail:
    """Last message of a partition: the scan it belongs to and what was published of it so far."""

    ordinal: int = -1
    published: PartitionPublished = field(default_factory=PartitionPublished)
    ended: bool = False


def read_tails(bootstrap: str, sector: int, partitions: int) -> list[PartitionTail]:
    """Tail of each partition of a sector's topic.

    Raises
    ------
    FaultError
        The broker does not answer.
    """
    reader = consumer(bootstrap, "receiver-tail", **{"isolation.level": "read_uncommitted"})
    try:
        return [_read_tail(reader, raw_topic(sector), partition) for partition in range(partitions)]
    finally:
        reader.close()


def _read_tail(reader: Consumer, topic: str, partition: int) -> PartitionTail:
    low, high = partition_bounds(reader, topic, partition)
    for offset in range(high - 1, low - 1, -1):
        try:
            return _tail(offset, raw.decode(_read_one(reader, TopicPartition(topic, partition, offset))))
        except DecodeError as error:
            get_logger().error(
                "message passed over", topic=topic, partition=partition, offset=offset, reason=str(error)
            )
    return PartitionTail()


def _tail(offset: int, message: RawMessage) -> PartitionTail:
    header = message.header if isinstance(message, Chunk) else message
    published = header.published
    if published.start_offset < 0:  # the scan's first marker does not know its own offset
        published = published.model_copy(update={"start_offset": offset})
    return PartitionTail(header.ordinal, published, isinstance(message, EndMarker))


def _read_one(reader: Consumer, place: TopicPartition) -> bytes | None:
    reader.assign([place])
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        message = reader.poll(0.2)
        if message is not None and raise_for(message):
            value = message.value()
            return value if isinstance(value, bytes) else None
    raise FaultError(f"{place.topic}[{place.partition}] offset {place.offset} cannot be read")
