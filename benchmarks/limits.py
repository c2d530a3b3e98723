"""What the machine, the sockets and the broker alone can do: no pipeline on it is faster.

``memcpy`` and ``np.max`` on frames in memory, a TCP connection over the loopback, and messages of the sizes of
chunks through the broker, with this project's client settings and nothing else.
"""

import multiprocessing
import socket
import time
import uuid
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it is there

from benchmarks.accounting import CpuMeter
from benchmarks.context import Context
from benchmarks.peers.stopwatch import cpu_seconds
from benchmarks.spread import summarise
from benchmarks.system import Broker, broker_up
from service.kafka import TopicPartition, consumer, poll_batch, producer, raise_for
from topics.geometry import SECTOR_FRAME_BYTES

MEMORY_BYTES = 2**28
SOCKET_BLOCK_BYTES = 2**20
COMPRESSION = 3.0  # of chunks, about: messages are of this size
PARTITIONS = 8
MAX_MESSAGE_BYTES = 2**24
TIMEOUT_S = 120.0


def measure(context: Context) -> dict[str, Any]:
    """Measure memory, the loopback, and the broker at each chunk size of the plan."""
    results: dict[str, Any] = {
        "memory": summarise(context.repeat(memory)),
        "loopback": summarise(context.repeat(lambda: loopback(context.plan.limit_megabytes))),
    }
    for name, summary in results.items():
        context.say(f"limits: {name}: {shown(summary)}")
    with broker_up(context.scratch) as broker:
        results["broker"] = [through(context, broker, frames) for frames in context.plan.chunk_sizes]
    return results


def shown(summary: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value['median']:.2f}" for name, value in summary.items())


def memory() -> dict[str, float]:
    """GB/s of one core, read or copied."""
    source = np.ones(MEMORY_BYTES // 2, np.uint16)
    target = np.empty_like(source)
    target[:] = 0  # so that its pages are there
    return {
        "memcpy_gigabytes_per_second": MEMORY_BYTES / 1e9 / _seconds(lambda: np.copyto(target, source)),
        "max_gigabytes_per_second": MEMORY_BYTES / 1e9 / _seconds(source.max),
    }


def _seconds(call: Any) -> float:  # noqa: ANN401
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def loopback(megabytes: int) -> dict[str, float]:
    """One TCP connection between two processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here, there = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        sender = spawn.Process(target=_send, args=(server.getsockname()[1], megabytes, there))
        sender.start()
        connection, _ = server.accept()
        block = bytearray(SOCKET_BLOCK_BYTES)
        begin, cpu = time.perf_counter(), cpu_seconds()
        with connection:
            received = 0
            while size := connection.recv_into(block):
                received += size
        seconds, used = time.perf_counter() - begin, cpu_seconds() - cpu
        used += here.recv()
        sender.join()
    return {"megabytes_per_second": received / 1e6 / seconds, "cpu_seconds_per_gb": used / (received / 1e9)}


def _send(port: int, megabytes: int, pipe: Connection) -> None:
    block = bytes(SOCKET_BLOCK_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        cpu = cpu_seconds()
        for _ in range(megabytes * 1_000_000 // SOCKET_BLOCK_BYTES):
            connection.sendall(block)
    pipe.send(cpu_seconds() - cpu)


def through(context: Context, broker: Broker, frames_per_chunk: int) -> dict[str, Any]:
    """Messages as large as chunks of so many sector frames, produced, then consumed."""
    size = int(frames_per_chunk * SECTOR_FRAME_BYTES / COMPRESSION)
    number = max(PARTITIONS, context.plan.limit_megabytes * 1_000_000 // size)
    message = np.random.default_rng(0).bytes(size)  # does not compress
    summary = summarise(context.repeat(lambda: there_and_back(broker, message, number)))
    for way, figures in summary.items():
        context.say(f"limits: {way} messages of {size} bytes: {shown(figures)}")
    return {"frames_per_chunk": frames_per_chunk, "message_bytes": size, **summary}


def there_and_back(broker: Broker, message: bytes, number: int) -> dict[str, dict[str, float]]:
    """Produce messages into a topic of their own, then consume them."""
    topic = f"benchmark-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result()
    figures = {"produce": produce(broker, topic, message, number), "consume": consume(broker, topic, number)}
    admin.delete_topics([topic])[topic].result()
    return figures


def produce(broker: Broker, topic: str, message: bytes, number: int) -> dict[str, float]:
    """Acknowledged messages; figures per GB of messages."""
    client = producer(broker.bootstrap, "benchmark")
    client.list_topics(topic)  # connected
    begin = _Begin(broker)
    for index in range(number):
        while True:
            try:
                client.produce(topic, message, partition=index % PARTITIONS)
                break
            except BufferError:
                client.poll(0.05)
    if client.flush(TIMEOUT_S):
        raise RuntimeError("the broker did not take all messages")
    return begin.figures(number * len(message))


def consume(broker: Broker, topic: str, number: int) -> dict[str, float]:
    """All messages, CRCs checked; figures per GB of messages."""
    client = consumer(broker.bootstrap, "benchmark")
    begin = _Begin(broker)
    client.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    received = messages = 0
    while messages < number:
        for message in poll_batch(client, 1.0, 32):
            if raise_for(message):
                messages += 1
                received += len(message.value() or b"")
        if time.perf_counter() - begin.wall > TIMEOUT_S:
            raise RuntimeError(f"{messages} of {number} messages came")
    figures = begin.figures(received)
    client.close()
    return figures


class _Begin:
    """When a transfer began, and what broker and client had used then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = CpuMeter({"broker": broker.process})
        self._client, self.wall = cpu_seconds(), time.perf_counter()

    def figures(self, size: int) -> dict[str, float]:
        seconds, client = time.perf_counter() - self.wall, cpu_seconds() - self._client
        return {
            "megabytes_per_second": size / 1e6 / seconds,
            "broker_cpu_seconds_per_gb": self._broker.seconds()["broker"] / (size / 1e9),
            "client_cpu_seconds_per_gb": client / (size / 1e9),
        }
