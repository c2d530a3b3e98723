"""Message keys. They are for people and tools: partitions are chosen explicitly (:meth:`ScanGeometry.partition_of`)."""

from __future__ import annotations

from topics.geometry import ScanGeometry


def chunk_key(ordinal: int, geometry: ScanGeometry, chunk_index: int) -> bytes:
    """Key of a raw chunk and of the events counted from it: scan ordinal / first scan position."""
    return f"{ordinal}/{geometry.first_position(chunk_index)}".encode()


def marker_key(ordinal: int, kind: str) -> bytes:
    """Key of a marker: scan ordinal / kind."""
    return f"{ordinal}/{kind}".encode()
