"""The topics as anybody reads and writes them: with confluent_kafka, and none of this project's decoders."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from service.kafka import partition_bounds


def read_topic(
    bootstrap: str, topic: str, first: Sequence[int] | None = None, last: Sequence[int] | None = None
) -> list[Message]:
    """Committed messages of a topic, partition by partition in order: all, or those between two offsets in each."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.partition.eof": True})
    try:
        partitions = range(len(consumer.list_topics(topic, timeout=10).topics[topic].partitions))
        first, last = first or [0 for _ in partitions], last or [sys.maxsize for _ in partitions]
        consumer.assign([TopicPartition(topic, partition, first[partition]) for partition in partitions])
        messages: list[Message] = []
        done: set[int] = set()
        deadline = time.monotonic() + 20
        while len(done) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in consumer.consume(100, 0.1):
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if not message.error() and offset <= last[partition]:
                    messages.append(message)
                if message.error() or offset >= last[partition]:
                    done.add(partition)
    finally:
        consumer.close()
    return sorted(messages, key=lambda message: (message.partition(), message.offset()))


def scan_log(bootstrap: str) -> list[dict[str, Any]]:
    return [json.loads(record) for record in values(read_topic(bootstrap, "scans"))]


def chunks_of(bootstrap: str, sector: int, ordinal: int) -> list[tuple[Message, bytes]]:
    """The chunks of one sector of a scan, with their bytes, from where the scan log says that they lie."""
    (ended,) = [
        record
        for record in scan_log(bootstrap)
        if (record["kind"], record.get("ordinal"), record.get("sector")) == ("sector ended", ordinal, sector)
    ]
    messages = read_topic(bootstrap, f"raw.sector.{sector}", ended["first_offsets"], ended["last_offsets"])
    return [(message, value) for message, value in zip(messages, values(messages), strict=True) if value[:4] == b"chk1"]


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
