"""The topics as anybody reads and writes them: with confluent_kafka, and none of this project's decoders."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from service.kafka import partition_bounds


def read_topic(bootstrap: str, topic: str, since: dict[int, int] | None = None) -> list[Message]:
    """All committed messages of a topic, from these offsets or from the beginning, partition by partition in order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        start = dict.fromkeys(partitions, 0) | (since or {})
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in start.items()])
        messages: list[Message] = []
        at_end: set[int | None] = set()
        deadline = time.monotonic() + 20
        while len(at_end) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in consumer.consume(500, 0.1):
                if message.error():
                    at_end.add(message.partition())
                else:
                    messages.append(message)
    finally:
        consumer.close()
    return sorted(messages, key=lambda message: (message.partition(), message.offset()))


def chunks_of(messages: Sequence[Message], ordinal: int) -> list[tuple[Message, bytes]]:
    """Those of a raw topic's messages that are chunks of a scan, with their bytes."""
    pairs = zip(messages, values(messages), strict=True)
    return [(m, v) for m, v in pairs if v[:4] == b"chk1" and struct.unpack_from("<q", v, 12)[0] == ordinal]


def values(messages: Sequence[Message]) -> list[bytes]:
    found = [message.value() for message in messages]
    assert all(isinstance(value, bytes) for value in found)
    return [value for value in found if isinstance(value, bytes)]


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {partition: partition_bounds(consumer, topic, partition)[1] for partition in partitions}
    finally:
        consumer.close()


def write_message(bootstrap: str, topic: str, partition: int, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 16_000_000})
    producer.produce(topic, value, partition=partition)
    assert producer.flush(10) == 0
