"""Arrow streams that are no electrons, or contradict themselves."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pyarrow as pa

from tests.golden.values import EVENTS, GEOMETRY, MARKERS, encoded
from tests.hostile_json import HOSTILE_NAMES, MARKER_LIES, NAN, broken_json, dump


def unreadable_arrow() -> dict[str, bytes]:
    """Arrow that is not ours, or contradicts itself. The sound message has 6 rows with 5 electrons."""
    sound = encoded()["evt1_electrons"]
    with pa.ipc.open_stream(sound) as reader:
        schema, batch = reader.schema, reader.read_next_batch()
    lists, masks = batch.columns
    metadata = schema.metadata
    electrons, missing = schema

    def stream(*batches: pa.RecordBatch, schema: pa.Schema = schema) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            for one in batches:
                writer.write_batch(one)
        return bytes(sink.getvalue())

    def columns(fields: list[pa.Field], arrays: list[pa.Array]) -> bytes:
        other = pa.schema(fields, metadata=metadata)
        return stream(pa.RecordBatch.from_arrays(arrays, schema=other), schema=other)

    def rows(offsets: list[int], indices: list[int] | None = None) -> bytes:
        """The sound message with other offsets and values in it, as Arrow itself would not write them."""
        values = EVENTS.indices if indices is None else np.array(indices, np.uint32)
        changed = replaced(sound, EVENTS.offsets.astype(np.int32).tobytes(), np.array(offsets, np.int32).tobytes())
        return replaced(changed, EVENTS.indices.tobytes(), values.tobytes())

    def headed(header: bytes | None) -> bytes:
        other = schema.with_metadata(None if header is None else {b"stemstream": header})
        return stream(pa.RecordBatch.from_arrays(batch.columns, schema=other), schema=other)

    def header(**changes: Any) -> bytes:  # noqa: ANN401
        return headed(dump(json.loads(EVENTS.header.encode()) | changes))

    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)
    six_rows = struct.pack("<q", 6)
    return (
        {f"cut after {cut} bytes": sound[:cut] for cut in (1, 4, 8, 12, 100, len(sound) // 2, len(sound) * 3 // 4)}
        | {f"header: {name}": headed(message) for name, message in broken_json(EVENTS.header.encode()).items()}
        | {f"header: count name {name!r}": header(count_name=name) for name in HOSTILE_NAMES}
        | {
            "another column name": columns([electrons.with_name("hits"), missing], [lists, masks]),
            "a column name that is not UTF-8": replaced(sound, b"missing_sectors", b"missing\xffsectors"),
            "a further column": columns([electrons, missing, pa.field("x", pa.uint8())], [lists, masks, masks]),
            "no masks": columns([electrons], [lists]),
            "no columns": columns([], []),
            "columns the other way round": columns([missing, electrons], [masks, lists]),
            "the same column twice": columns([electrons, electrons], [lists, lists]),
            "signed indices": columns(
                [pa.field("electrons", pa.list_(pa.int32()), nullable=False), missing],
                [lists.cast(pa.list_(pa.int32())), masks],
            ),
            "long lists": columns(
                [pa.field("electrons", pa.large_list(pa.uint32()), nullable=False), missing],
                [lists.cast(pa.large_list(pa.uint32())), masks],
            ),
            "flat indices": columns([electrons.with_type(pa.uint8()), missing], [masks, masks]),
            "masks of 64 bits": columns([electrons, missing.with_type(pa.int64())], [lists, masks.cast(pa.int64())]),
            "dictionary masks": columns(
                [electrons, pa.field("missing_sectors", pa.dictionary(pa.int8(), pa.uint8()), nullable=False)],
                [lists, masks.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.uint8()))],
            ),
            "a row too few": stream(batch.slice(0, 5)),
            "a row too many": stream(
                pa.RecordBatch.from_arrays(
                    [pa.concat_arrays([lists, lists[:1]]), pa.concat_arrays([masks, masks[:1]])], schema=schema
                )
            ),
            "no rows": stream(batch.slice(0, 0)),
            "no batch": stream(),
            "two batches": stream(batch, batch),
            "2**40 rows": replaced(sound, six_rows, struct.pack("<q", 2**40)),
            "-1 rows": replaced(sound, six_rows, struct.pack("<q", -1)),
            "a null mask": stream(
                pa.RecordBatch.from_arrays([lists, pa.array([0, 2, None, 0, 0, 8], pa.uint8())], schema=schema)
            ),
            "a null row": stream(
                pa.RecordBatch.from_arrays(
                    [pa.array([[0], None, [], [7], [], []], electrons.type), masks], schema=schema
                )
            ),
            "a null index": stream(
                pa.RecordBatch.from_arrays(
                    [pa.array([[0, None], [], [], [7], [], []], electrons.type), masks], schema=schema
                )
            ),
            "a mask of five sectors": stream(
                pa.RecordBatch.from_arrays([lists, pa.array([0, 2, 16, 0, 0, 8], pa.uint8())], schema=schema)
            ),
            "an index past the frame": rows([0, 3, 3, 3, 5, 5, 5], [0, 575, 331_776, 7, 8]),
            "the greatest index": rows([0, 3, 3, 3, 5, 5, 5], [0, 575, 2**32 - 1, 7, 8]),
            "offsets that fall": rows([0, 3, 1, 3, 5, 5, 5]),
            "offsets past the values": rows([0, 3, 3, 3, 5, 5, 6]),
            "offsets far past the values": rows([0, 3, 3, 3, 5, 5, 2**31 - 1]),
            "a first offset of -1": rows([-1, 3, 3, 3, 5, 5, 5]),
            "a last offset of -1": rows([0, 3, 3, 3, 5, 5, -1]),
            "no metadata": headed(None),
            "empty header": headed(b""),
            "header of a marker": headed(MARKERS["mrk1_start"].encode()),
            "header that is not JSON": headed(b"\xff\xfe"),
            "chunk past the scan": header(chunk_index=GEOMETRY.chunks),
            "chunk far past the scan": header(chunk_index=2**70),
            "another chunk, of 8 frames": header(chunk_index=0),
            "payload bytes of three sectors": header(payload_bytes=[1, 2, 3]),
            "epochs of five sectors": header(epochs=[1, 2, 3, 4, 5]),
            "ordinal NaN": header(ordinal=NAN),
            "absurd geometry": header(**MARKER_LIES["absurd geometry"]),
            "Arrow's file format": bytes(file.getvalue()),
            "metadata of 2 GiB - 1": sound[:4] + struct.pack("<i", 2**31 - 1) + sound[8:],
            "metadata of -1 bytes": sound[:4] + struct.pack("<i", -1) + sound[8:],
            "an end at once": sound[:4] + bytes(4),
            "the first four bytes alone": sound[:4],
            "all ones": b"\xff" * 300,
            "zeros behind the first four bytes": sound[:4] + bytes(300),
        }
    )


def replaced(message: bytes, part: bytes, by: bytes) -> bytes:
    """The message with other bytes in place of these, which it must have."""
    assert part in message
    return message.replace(part, by)
