"""Kafka clients with this project's settings, and its errors put into words. The door to confluent_kafka."""

from __future__ import annotations

from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from service.errors import FaultError
from service.logs import get_logger
from topics.registry import MAX_MESSAGE_BYTES, MIB

__all__ = [
    "COUNTER_GROUP",
    "OFFSET_BEGINNING",
    "SINK_GROUP",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "Producer",
    "TopicPartition",
    "ask_again",
    "consumer",
    "is_passing",
    "partition_bounds",
    "poll_batch",
    "producer",
    "raise_for",
    "start_of_group",
    "transactional_producer",
]

COUNTER_GROUP = "counters"
SINK_GROUP = "sink"

REQUEST_TIMEOUT_S = 10.0
SESSION_TIMEOUT_MS = 6_000
TRANSACTION_TIMEOUT_MS = 5_000
# A fetch takes at most this much of one partition: an uncompressible chunk of 16 sector frames and its header.
FETCH_BYTES_A_PARTITION = 3 * MIB
PREFETCH_KIB = 64 * 1024
PUBLISH_QUEUE_KIB = 64 * 1024

_COMMON: dict[str, Any] = {
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,  # the client's own lines; what it reports as an error comes to _log_error
}

# Errors that pass by themselves: a broker is away, or it has just begun to lead a partition or a group.
_PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._PARTITION_EOF,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


def _log_error(error: KafkaError) -> None:
    get_logger().warning("Kafka client", error=error.str())


def producer(bootstrap: str, role: str, **config: Any) -> Producer:  # noqa: ANN401
    """Idempotent, ordered, acknowledged by all replicas; waits for an absent broker instead of skipping."""
    return Producer(
        _COMMON
        | {
            "error_cb": _log_error,
            "bootstrap.servers": bootstrap,
            "client.id": role,  # quotas are set by it
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0,
            "linger.ms": 0,
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "batch.size": MAX_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": PUBLISH_QUEUE_KIB,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 500,
        }
        | config
    )


def transactional_producer(bootstrap: str, transactional_id: str) -> Producer:
    """Producer for a counter's transactions; an older process with the same id is fenced off.

    Raises
    ------
    FaultError
        The transaction coordinator does not answer.
    """
    made = producer(
        bootstrap,
        "counter",
        **{
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
            # A transaction that follows at once waits this long for the last one's markers: 6 ms instead of 100.
            "retry.backoff.ms": 2,
        },
    )
    try:
        made.init_transactions(6 * REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise FaultError(f"no transactions as {transactional_id}: {error.args[0].str()}") from error
    return made


def consumer(bootstrap: str, group: str, **config: Any) -> Consumer:  # noqa: ANN401
    """Consumer that never commits by itself, checks CRCs, and stops rather than jump to another offset."""
    return Consumer(
        _COMMON
        | {
            "error_cb": _log_error,
            "bootstrap.servers": bootstrap,
            "client.id": group,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "allow.auto.create.topics": False,
            "partition.assignment.strategy": "range",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 3,
            "fetch.message.max.bytes": FETCH_BYTES_A_PARTITION,
            "queued.max.messages.kbytes": PREFETCH_KIB,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 50,
        }
        | config
    )


def is_passing(error: KafkaError) -> bool:
    """Whether the client mends this error by itself."""
    return bool(error.code() in _PASSING or (error.retriable() and not error.fatal()))


def raise_for(message: Message) -> bool:
    """Whether a polled message is one: False for a passing error.

    Raises
    ------
    FaultError
        An error that does not pass, with topic, partition and offset.
    """
    error = message.error()
    if error is None:
        return True
    if is_passing(error):
        return False
    where = f"{message.topic()}[{message.partition()}] offset {message.offset()}" if message.topic() else "the broker"
    raise FaultError(f"reading {where}: {error.str()}")


def poll_batch(client: Consumer, timeout_s: float, most: int) -> list[Message]:
    """Wait for a message, then take what else has come; consume() alone would wait for a full batch."""
    first = client.poll(timeout_s)
    return [] if first is None else [first, *client.consume(most - 1, 0)]


def _is_passing_exception(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and is_passing(error.args[0])


# For requests that may be asked again: a topic or group that was just made answers with passing errors at first.
ask_again = retry(
    retry=retry_if_exception(_is_passing_exception),
    stop=stop_after_delay(REQUEST_TIMEOUT_S),
    wait=wait_exponential(0.02, max=1),
    reraise=True,
)


@ask_again
def partition_bounds(client: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """First offset that is there and the next one to be written; KafkaException if no answer comes in time."""
    low, high = client.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_S)
    return int(low), int(high)


def start_of_group(client: Consumer, group: str, committed: TopicPartition, what: str) -> TopicPartition:
    """Where a group goes on in a partition: at its committed offset; without one at the oldest message.

    ``what`` names the messages in the error.

    Raises
    ------
    FaultError
        The topic does not reach back to the committed offset any more, or not as far as it.
    """
    low, high = partition_bounds(client, committed.topic, committed.partition)
    if committed.offset < 0:
        return TopicPartition(committed.topic, committed.partition, low)
    if not low <= committed.offset <= high:
        raise FaultError(
            f"{committed.topic}[{committed.partition}]: {what} from offset {committed.offset} are gone, the topic has "
            f"{low} to {high}; to go on with what is there, delete the offsets of the group {group}"
        )
    return TopicPartition(committed.topic, committed.partition, committed.offset)
