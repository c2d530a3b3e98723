"""Markers in the raw topics: where a scan starts, is resumed and ends, in every partition of a sector.

They make a partition without chunks, a missed scan and a lost tail visible to whoever rejoins the sectors.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from topics.geometry import ScanGeometry
from topics.json_message import Count, JsonMessage, Offset, Sector, TimeNs, decode_json


class EndReason(StrEnum):
    """Why a receiver ended its sector of a scan."""

    COMPLETE = "complete"  # all frame numbers are there
    SOURCE_ENDED = "source ended"  # nothing more will come, though not all was published
    NEXT_SCAN = "next scan"  # another scan began, and no frame of this one came for a while
    IDLE = "idle timeout"  # no frame came for long
    CLOSED = "closed by hand"  # as a record in the scan log asked for
    ABANDONED = "abandoned"  # a later start found it open


class Ledger(JsonMessage):
    """What one sector's receivers did with a scan, all partitions together.

    ``received`` sector frames = ``published`` + ``repeated`` + ``late`` + ``refused`` + ``lost``, unless a receiver
    was killed: what a killed one received and did not publish nobody knows.
    """

    received: Count = 0
    published: Count = 0
    repeated: Count = 0  # the frame number was there already
    late: Count = 0  # its chunk had been published
    refused: Count = 0  # its number does not fit its scan position
    lost: Count = 0  # the buffer was full
    chunks: Count = 0
    raw_bytes: Count = 0
    payload_bytes: Count = 0
    first_frame_ns: TimeNs = 0
    last_published_ns: TimeNs = 0


class PartitionPublished(JsonMessage):
    """What this sector has published of the scan in this partition: before a marker, or up to and with a chunk.

    ``start_offset`` is where the scan starts here: the offset of its first marker (-1 in that marker itself).
    """

    chunks: Count = 0
    sector_frames: Count = 0
    payload_bytes: Count = 0
    last_chunk: int = -1
    start_offset: int = -1


class _Marker(JsonMessage):
    schema_id: Literal["mrk1"] = "mrk1"
    sector: Sector
    ordinal: Offset
    epoch: Offset
    partition: Count
    geometry: ScanGeometry
    published: PartitionPublished = PartitionPublished()


class StartMarker(_Marker):
    """First message of a scan in a partition."""

    kind: Literal["start"] = "start"


class ResumeMarker(_Marker):
    """A restarted receiver goes on with the scan from here."""

    kind: Literal["resume"] = "resume"


class EndMarker(_Marker):
    """Last message of a scan in a partition."""

    kind: Literal["end"] = "end"
    reason: EndReason
    ledger: Ledger


Marker = StartMarker | ResumeMarker | EndMarker
_ADAPTER: TypeAdapter[Marker] = TypeAdapter(Annotated[Marker, Field(discriminator="kind")])


def decode(message: bytes) -> Marker:
    """Decode a marker.

    Raises
    ------
    DecodeError
        The bytes are no marker of this version.
    """
    marker: Marker = decode_json(_ADAPTER, message, "marker")
    return marker
