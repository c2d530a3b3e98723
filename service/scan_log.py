"""Reading and writing the scan log."""

from __future__ import annotations

import time
from types import TracebackType

from service.catalogue import Catalogue
from service.errors import FaultError
from service.kafka import (
    REQUEST_TIMEOUT_S,
    KafkaError,
    Message,
    TopicPartition,
    consumer,
    partition_bounds,
    poll_batch,
    producer,
    raise_for,
)
from service.logs import get_logger
from topics.errors import DecodeError
from topics.registry import SCANS
from topics.scan_log import LogRecord, decode

RECORDS_A_POLL = 501


class ScanLog:
    """The scan log with its catalogue: :meth:`append` a record, :meth:`poll` for new ones, :meth:`catch_up`."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.catalogue = Catalogue()
        self.next_offset = 0  # nothing of the log is ever deleted
        self._last_offset = -1  # of the last record that was acknowledged
        self._failure: KafkaError | None = None
        self._producer = producer(bootstrap, "scan-log")
        self._consumer = consumer(bootstrap, "scan-log", **{"isolation.level": "read_uncommitted"})
        # Not OFFSET_BEGINNING: the client would stand still for half a second before it asks where that is.
        self._consumer.assign([TopicPartition(SCANS, 0, self.next_offset)])

    def __enter__(self) -> ScanLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def append(self, record: LogRecord) -> int:
        """Write a record; returns its offset once it is acknowledged.

        Raises
        ------
        FaultError
            The broker does not acknowledge it.
        """
        self.append_later(record)
        self.flush()
        return self._last_offset

    def append_later(self, record: LogRecord) -> None:
        """Write a record whose offset nobody waits for; :meth:`flush` or a later call says if it failed."""
        self._producer.produce(SCANS, record.encode(), partition=0, on_delivery=self._delivered)
        self._producer.poll(0)
        self._raise_if_failed()

    def flush(self) -> None:
        """Wait until all records are acknowledged; FaultError if they are not."""
        if self._producer.flush(3 * REQUEST_TIMEOUT_S):
            raise FaultError("the scan log did not take a record: no answer")
        self._raise_if_failed()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
        else:
            self._last_offset = int(message.offset())  # type: ignore[arg-type]  # an acknowledged message has one

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            raise FaultError(f"the scan log did not take a record: {self._failure.str()}")

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Take in what is new; whether there was anything."""
        messages = poll_batch(self._consumer, timeout_s, RECORDS_A_POLL)
        for message in messages:
            if not raise_for(message):
                continue
            offset = int(message.offset())  # type: ignore[arg-type]  # a message without error has one
            self.next_offset = offset + 1
            try:
                record = decode(message.value())
            except DecodeError as error:
                get_logger().error("scan log record left out", offset=offset, reason=str(error))
                continue
            self.catalogue.apply(offset, message.timestamp()[1], record)
        return bool(messages)

    def catch_up(self) -> Catalogue:
        """Read up to the present end of the log and return the catalogue.

        Raises
        ------
        FaultError
            The broker does not answer.
        """
        low, end = partition_bounds(self._consumer, SCANS, 0)
        self.next_offset = max(self.next_offset, low)
        self.read_to(end - 1)
        return self.catalogue

    def read_to(self, offset: int) -> None:
        """Read until the record at this offset is taken in; FaultError if the broker does not answer."""
        deadline = time.monotonic() + 3 * REQUEST_TIMEOUT_S
        while self.next_offset <= offset:
            if self.poll(0.1):
                deadline = time.monotonic() + 3 * REQUEST_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise FaultError(f"the scan log cannot be read beyond offset {self.next_offset} to {offset}")
