"""The event message: the electrons of one chunk's frames (topic ``events``).

A chunk of counted frames is one Arrow IPC stream with one record batch, a row a frame, in frame order:

``electrons`` list<uint32>
    flat pixel indices y · 576 + x, ascending; empty for an incomplete frame
``missing_sectors`` uint8
    bit m is set when sector m of the frame was missing

The schema's metadata has the key ``stemstream``: :class:`EventHeader` as JSON. A partition of a scan ends with
a :class:`CountEnd`, which is JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from topics.errors import DecodeError
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTORS, ScanGeometry
from topics.json_message import Count, JsonMessage, Name, Offset, decode_json
from topics.marker import EndMarker

Floor = Annotated[float, Field(ge=0, le=65_535, description="counts")]
_METADATA_KEY = b"stemstream"
_STREAM_START = b"\xff\xff\xff\xff"  # continuation marker that every Arrow IPC stream begins with
ALL_SECTORS = (1 << SECTORS) - 1


class EventHeader(JsonMessage):
    """Which frames the events are of, and what they were counted from.

    ``payload_bytes``, ``epochs`` and ``floors`` have an entry a sector, None where its chunk was missing. ``floors``
    has the floor of a zero-suppressed chunk, in counts, and None for a full one; it is left out if all were full.
    """

    schema_id: Literal["evt1"] = "evt1"
    ordinal: Offset
    count: Offset
    count_name: Name
    geometry: ScanGeometry
    chunk_index: Count
    payload_bytes: Annotated[list[Count | None], Field(min_length=SECTORS, max_length=SECTORS)]
    epochs: Annotated[list[Offset | None], Field(min_length=SECTORS, max_length=SECTORS)]
    floors: Annotated[
        list[Floor | None] | None,
        Field(min_length=SECTORS, max_length=SECTORS, exclude_if=lambda value: value is None),
    ] = None


@dataclass(frozen=True, slots=True)
class Events:
    """Electrons of one chunk.

    ``indices`` (electrons,) uint32, flat pixel indices; ``offsets`` (frames + 1,) int64, frame i has
    indices[offsets[i]:offsets[i + 1]]; ``missing_sectors`` (frames,) uint8 bit masks.
    """

    header: EventHeader
    indices: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    missing_sectors: NDArray[np.uint8]


class CountEnd(JsonMessage):
    """Last message of a count in a partition.

    ``ends`` has the end marker of each sector, None for a sector that missed the end.
    """

    schema_id: Literal["evm1"] = "evm1"
    ordinal: Offset
    count: Offset
    count_name: Name
    geometry: ScanGeometry
    partition: Count
    ends: Annotated[list[EndMarker | None], Field(min_length=SECTORS, max_length=SECTORS)]


EventMessage = Events | CountEnd
_HEADER = TypeAdapter(EventHeader)
_COUNT_END = TypeAdapter(CountEnd)


def _fields() -> list[pa.Field]:
    return [
        pa.field("electrons", pa.list_(pa.field("item", pa.uint32(), nullable=False)), nullable=False),
        pa.field("missing_sectors", pa.uint8(), nullable=False),
    ]


def encode(events: Events) -> bytes:
    """Bytes of the message."""
    fields = _fields()
    schema = pa.schema(fields, metadata={_METADATA_KEY: events.header.encode()})
    lists = pa.ListArray.from_arrays(
        pa.array(events.offsets.astype(np.int32)), pa.array(events.indices), type=fields[0].type
    )
    batch = pa.record_batch([lists, pa.array(events.missing_sectors)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode(message: bytes | None) -> EventMessage:
    """Decode a message of the events topic.

    Raises
    ------
    DecodeError
        The bytes are neither events nor the end of a count in this version, or they contradict themselves.
    """
    if not message:
        raise DecodeError("empty message")
    if message[:4] != _STREAM_START:
        end: CountEnd = decode_json(_COUNT_END, message, "end of a count")
        return end
    try:
        with pa.ipc.open_stream(message) as reader:
            schema, [batch] = reader.schema, reader
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DecodeError(f"no Arrow IPC stream with one record batch: {error}") from error
    header: EventHeader = decode_json(_HEADER, (schema.metadata or {}).get(_METADATA_KEY, b""), "event header")
    return _checked(header, schema, batch)


def _checked(header: EventHeader, schema: pa.Schema, batch: pa.RecordBatch) -> Events:
    if not schema.equals(pa.schema(_fields())):  # names are not shown: they need not even be UTF-8
        raise DecodeError(f"{len(schema)} columns that are not those of events, or not of their types")
    geometry = header.geometry
    if header.chunk_index >= geometry.chunks or batch.num_rows != geometry.frames_in_chunk(header.chunk_index):
        raise DecodeError(f"{batch.num_rows} rows for chunk {header.chunk_index} of {geometry.chunks}")
    lists, masks = batch.columns
    if lists.null_count or lists.values.null_count or masks.null_count:  # Arrow lets them pass
        raise DecodeError("a row or a value is null")
    offsets = lists.offsets.to_numpy().astype(np.int64)
    indices = lists.values.to_numpy()[offsets[0] : offsets[-1]]
    missing = masks.to_numpy()
    if len(indices) and int(indices.max()) >= FRAME_HEIGHT * FRAME_WIDTH:
        raise DecodeError(f"pixel index {int(indices.max())} lies outside the frame")
    if int(missing.max()) > ALL_SECTORS:
        raise DecodeError(f"mask of missing sectors {int(missing.max())} names more than {SECTORS} sectors")
    return Events(header, indices, offsets - offsets[0], missing)
