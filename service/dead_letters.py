"""Set aside a message that cannot be used: what every consumer says, counts and keeps of it."""

from __future__ import annotations

from service.logs import get_logger
from service.metrics import Metrics
from topics import dead_letter


def set_aside(
    metrics: Metrics, service: str, topic: str, partition: int, offset: int, *, value: bytes, reason: str
) -> tuple[bytes, bytes]:
    """Log and count the message; returns key and bytes of its dead letter, for the caller's own producer."""
    get_logger().error("message set aside", topic=topic, partition=partition, offset=offset, reason=reason)
    metrics.discarded.labels("dead letter").inc()
    origin = dead_letter.Origin(
        topic=topic, partition=partition, offset=offset, service=service, reason=reason[:2000], size=len(value)
    )
    return f"{topic}/{partition}/{offset}".encode(), dead_letter.encode(origin, value)
