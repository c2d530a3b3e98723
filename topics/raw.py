"""What lies in a raw topic: chunks and markers, told apart by their first bytes."""

from __future__ import annotations

from topics import chunk, marker
from topics.chunk import CHUNK_ID, Chunk
from topics.errors import DecodeError
from topics.marker import Marker

RawMessage = Chunk | Marker


def decode(message: bytes | None) -> RawMessage:
    """Decode a message of a raw topic.

    Raises
    ------
    DecodeError
        It is neither a chunk nor a marker of this version.
    """
    if not message:
        raise DecodeError("empty message")
    if message[:4] == CHUNK_ID:
        return chunk.decode(message)
    return marker.decode(message)
