"""The raw chunk message: what goes in comes out, and others can open the payload."""

from __future__ import annotations

import re

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.golden.values import CHUNKS
from tests.topics.strategies import chunk_headers
from topics import chunk, codec
from topics.chunk import Chunk, ChunkHeader
from topics.codec import compress, decompress
from topics.errors import DecodeError
from topics.geometry import SECTOR_FRAME_BYTES, ScanGeometry
from topics.registry import MAX_MESSAGE_BYTES

FIELDS = [name for name in ChunkHeader.__dataclass_fields__ if name != "present"]


def assert_same_header(found: ChunkHeader, expected: ChunkHeader) -> None:
    assert {name: getattr(found, name) for name in FIELDS} == {name: getattr(expected, name) for name in FIELDS}
    assert found.present.dtype == bool
    assert found.present.tolist() == expected.present.tolist()


def pixels_of(decoded: Chunk) -> NDArray[np.uint16]:
    return decoded.sector_frames(np.empty(decoded.header.sector_frames * SECTOR_FRAME_BYTES, np.uint8))


@settings(max_examples=100, deadline=None)
@given(header=chunk_headers(), payload=st.binary(max_size=300))
def test_a_decoded_chunk_is_what_was_encoded(header: ChunkHeader, payload: bytes) -> None:
    decoded = chunk.decode(chunk.encode(header, payload))
    assert_same_header(decoded.header, header)
    assert decoded.payload == payload


@pytest.mark.parametrize("limit", [1, 40, 65_535])
def test_pixels_come_back_as_they_were(limit: int) -> None:
    pixels = np.random.default_rng(limit).integers(0, limit, (3, 144, 576), np.uint16, endpoint=True)
    payload = compress(pixels)
    memory = np.full(4 * SECTOR_FRAME_BYTES, 7, np.uint8)
    found = decompress(memoryview(payload), 3, memory)
    assert np.array_equal(found, pixels)
    assert np.shares_memory(found, memory)
    assert (memory[3 * SECTOR_FRAME_BYTES :] == 7).all()


def test_blosc2_alone_opens_the_payload_where_the_second_field_says() -> None:
    header, pixels = CHUNKS["chk1_incomplete"]
    message = chunk.encode(header, compress(pixels))
    start = int.from_bytes(message[4:8], "little")
    opened = np.frombuffer(blosc2.decompress2(message[start:]), "<u2").reshape(-1, 144, 576)
    assert np.array_equal(opened, pixels)


def test_the_payload_is_bitshuffled_lz4_of_two_byte_values() -> None:
    payload = compress(CHUNKS["chk1_full"].pixels)
    assert payload[3] == 2  # bytes a value
    assert [f for f in payload[16:22] if f] == [blosc2.Filter.BITSHUFFLE.value]
    assert payload[2] >> 5 == blosc2.Codec.LZ4.value


def test_pixels_that_do_not_compress_fit_the_stated_limit() -> None:
    geometry = ScanGeometry(width=4, height=4, frames_per_chunk=16, partitions=1)
    header = ChunkHeader(
        sector=0,
        ordinal=0,
        epoch=0,
        geometry=geometry,
        chunk_index=0,
        present=np.ones(16, bool),
        published=CHUNKS["chk1_full"].header.published,
        first_frame_ns=0,
    )
    noise = np.random.default_rng(1).integers(0, 65_535, (16, 144, 576), np.uint16, endpoint=True)
    message = chunk.encode(header, compress(noise))
    assert len(noise.tobytes()) < len(message) <= chunk.max_message_bytes(16) < MAX_MESSAGE_BYTES


def test_less_memory_than_the_pixels_need_is_never_written_beyond() -> None:
    payload = compress(CHUNKS["chk1_full"].pixels)
    memory = np.zeros(8 * SECTOR_FRAME_BYTES, np.uint8)
    with pytest.raises(ValueError, match="out has 165888 bytes, 8 sector frames need 1327104"):
        decompress(memoryview(payload), 8, memory[:SECTOR_FRAME_BYTES])
    assert not memory[SECTOR_FRAME_BYTES:].any()


def test_every_codec_id_has_a_name_that_is_never_reused() -> None:
    assert {c.name: c.value for c in codec.Codec} == {"BLOSC2": 1, "ZERO_SUPPRESSED": 2}


# The table in the docstring is what somebody with another language reads.

SIZES = {"u8": 1, "u16": 2, "u32": 4, "i64": 8, "u64": 8, "f64": 8}


def layout_table() -> list[tuple[int, int, str]]:
    """First byte, last byte and text of each line of the table."""
    rows = re.findall(r"^ +(\d+)(?:- *(\d+)?)? +(.+)$", chunk.__doc__ or "", re.MULTILINE)
    return [(int(first), int(last or first), text) for first, last, text in rows]


def values_at(message: bytes, first: int, last: int, text: str) -> list[float]:
    kind = text.split(maxsplit=1)[0]
    size = SIZES[kind]
    code = {"u": "<u", "i": "<i", "f": "<f"}[kind[0]] + str(size)
    return np.frombuffer(message[first : last + 1], code).tolist()  # type: ignore[no-any-return]


def test_the_layout_table_has_no_gap_and_ends_where_the_mask_begins() -> None:
    *table, mask = layout_table()
    assert table[0][0] == 0
    assert [first for first, _, _ in table[1:]] == [last + 1 for _, last, _ in table[:-1]]
    assert table[-1][1] + 1 == 120
    assert (mask[0], mask[2][:10]) == (120, "frame mask")


def test_the_layout_table_says_where_each_field_lies() -> None:
    header, _ = CHUNKS["chk1_incomplete"]
    payload = b"payload"
    message = chunk.encode(header, payload)
    _, *fields, _, _ = layout_table()  # without id, hash and mask
    found = [values_at(message, first, last, text) for first, last, text in fields]
    geometry, published = header.geometry, header.published
    expected = [
        [121],
        [1],
        [0],
        [0],
        [2**40],
        [2**40 - 1],
        [geometry.width, geometry.height, geometry.frames_per_position, geometry.frames_per_chunk, geometry.partitions],
        [3],
        [4],
        [12.5],
        [len(payload)],
        [published.chunks],
        [published.sector_frames],
        [published.payload_bytes],
        [published.start_offset],
        [header.first_frame_ns],
    ]
    assert found == expected
    assert message[:4] == b"chk1"
    assert message[120:] == bytes([0b101101]) + payload


def test_the_hash_is_xxh3_of_all_other_bytes() -> None:
    import xxhash

    message = chunk.encode(CHUNKS["chk1_full"].header, b"payload")
    assert int.from_bytes(message[112:120], "little") == xxhash.xxh3_64_intdigest(message[:112] + message[120:])


def test_a_buffer_that_promises_nothing_but_uninitialised_values_is_refused() -> None:
    """Decompression would leave in the memory what was there before: another chunk's pixels."""
    header = bytearray(compress(np.zeros((1, 144, 576), np.uint16))[:32])
    header[12:16] = (32).to_bytes(4, "little")
    header[31] = 4 << 4
    with pytest.raises(DecodeError, match="uninitialised"):
        decompress(memoryview(bytes(header)), 1, np.empty(SECTOR_FRAME_BYTES, np.uint8))
