"""The dead letter: a message that could not be decoded, with where it came from and why (topic ``dead-letters``).

Layout: the id ``dlt1``, u32 size of the origin (little endian), the origin as JSON, the message's own bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from topics.errors import DecodeError
from topics.json_message import Count, JsonMessage, Offset, decode_json

DEAD_LETTER_ID = b"dlt1"
MAX_KEPT_BYTES = 1024 * 1024


class Origin(JsonMessage):
    """Where a dead letter lay, why it was refused and by whom."""

    schema_id: Literal["dlt1"] = "dlt1"
    topic: Annotated[str, Field(max_length=249)]
    partition: Count
    offset: Offset
    service: Annotated[str, Field(max_length=64)]
    reason: Annotated[str, Field(max_length=2000)]
    size: Count  # of the message; what is kept may be shorter


def encode(origin: Origin, message: bytes) -> bytes:
    """Bytes of the dead letter; of a message above 1 MiB the beginning is kept."""
    encoded = origin.encode()
    return DEAD_LETTER_ID + len(encoded).to_bytes(4, "little") + encoded + message[:MAX_KEPT_BYTES]


def decode(message: bytes) -> tuple[Origin, bytes]:
    """Origin and kept bytes of a dead letter.

    Raises
    ------
    DecodeError
        The bytes are no dead letter of this version.
    """
    size = int.from_bytes(message[4:8], "little")
    if message[:4] != DEAD_LETTER_ID or len(message) < 8 + size:
        raise DecodeError("no dead letter")
    origin: Origin = decode_json(TypeAdapter(Origin), message[8 : 8 + size], "origin of a dead letter")
    return origin, message[8 + size :]
