"""The payload of zero-suppressed chunks: what goes in comes out, and bytes that lie are refused."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from topics import suppressed
from topics.errors import DecodeError

PIXELS = 144 * 576
LIMIT = 4 * PIXELS  # bytes that the pixels of one sector frame may take

rows = st.tuples(st.integers(0, 40) | st.integers(0, 2000), st.integers(1, 300) | st.integers(1, 65_535))


def listed(*pairs: tuple[int, int]) -> NDArray[np.uint16]:
    return np.array(pairs, np.uint16).reshape(-1, 2)


def random_pixels(count: int, seed: int = 0) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    return np.stack([rng.geometric(0.03, count) - 1, rng.integers(28, 300, count)], axis=1).astype(np.uint16)


def packed(pairs: NDArray[np.generic], **changes: object) -> memoryview:
    """A Blosc2 buffer as a stranger would make it."""
    return memoryview(blosc2.compress2(pairs, typesize=4, **changes))


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fail if Python or numpy allocate more than this at a time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit_bytes


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(rows, max_size=40))
def test_pixels_survive_the_round_trip(pairs: list[tuple[int, int]]) -> None:
    pixels = listed(*pairs)
    decoded = suppressed.decompress(memoryview(suppressed.compress(pixels)), 1)
    assert decoded.dtype == np.uint16
    assert decoded.shape == (len(pairs), 2)
    assert np.array_equal(decoded, pixels)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 12_345, 65_536, 65_537, 200_001])
def test_any_number_of_pixels_survives_the_round_trip(count: int) -> None:
    pixels = random_pixels(count)
    assert np.array_equal(suppressed.decompress(memoryview(suppressed.compress(pixels)), 1024), pixels)


def test_every_pixel_of_a_chunk_survives_the_round_trip() -> None:
    pixels = np.stack([np.zeros(16 * PIXELS), np.arange(16 * PIXELS) % 65_535 + 1], axis=1).astype(np.uint16)
    assert np.array_equal(suppressed.decompress(memoryview(suppressed.compress(pixels)), 16), pixels)


def test_the_payload_is_a_plain_blosc2_buffer() -> None:
    pixels = random_pixels(3000)
    opened = np.frombuffer(blosc2.decompress2(suppressed.compress(pixels)), "<u2").reshape(-1, 2)
    assert np.array_equal(opened, pixels)


def test_a_chunk_takes_less_than_two_bytes_a_pixel() -> None:
    assert len(suppressed.compress(random_pixels(12_000))) < 2.0 * 12_000


@pytest.mark.parametrize(
    "pixels",
    [
        listed((65_535, 0), (PIXELS - 65_537, 1)),
        listed((65_535, 5)),
        listed((65_535, 0)),
    ],
    ids=["the last pixel", "a pixel behind the greatest gap", "a bridge alone"],
)
def test_pixels_up_to_the_last_one_are_read(pixels: NDArray[np.uint16]) -> None:
    assert np.array_equal(suppressed.decompress(packed(pixels), 1), pixels)


@pytest.mark.parametrize(
    ("pixels", "sector_frames"),
    [
        (listed((65_535, 0), (PIXELS - 65_536, 1)), 1),
        (listed((65_535, 0), (65_535, 1)), 1),
        (listed(*[(65_535, 0)] * 3), 2),
        (listed(*[(0, 1)] * PIXELS, (0, 1)), 1),
        (listed(*[(65_535, 1)] * 60_000), 47_000),
    ],
    ids=["the pixel behind the last", "far behind the last", "bridges", "one pixel too many", "beyond 32 bits"],
)
def test_a_pixel_beyond_the_last_sector_frame_is_refused(pixels: NDArray[np.uint16], sector_frames: int) -> None:
    with pytest.raises(DecodeError):
        suppressed.decompress(packed(pixels), sector_frames)


@pytest.mark.parametrize("gap", [0, 1, 65_534])
def test_a_pixel_of_value_0_is_refused(gap: int) -> None:
    with pytest.raises(DecodeError, match="1 listed pixels are 0"):
        suppressed.decompress(packed(listed((3, 4), (gap, 0))), 1)


SOUND = suppressed.compress(random_pixels(2000))
EMPTY = suppressed.compress(listed())
OF_SIZE = {2000: SOUND, 30: suppressed.compress(random_pixels(30)), 0: EMPTY}


def lie(at: int, value: int, payload: bytes = SOUND) -> bytes:
    lying = bytearray(payload)
    struct.pack_into("<I", lying, at, value)
    return bytes(lying)


PAYLOADS = {
    "nothing": b"",
    "one byte": SOUND[:1],
    "all but a byte of the header": SOUND[:31],
    "the header alone": SOUND[:32],
    "the last byte cut off": SOUND[:-1],
    "a byte too many": SOUND + b"\0",
    "zeros": bytes(len(SOUND)),
    "ones": b"\xff" * len(SOUND),
    "text": b"no pixels at all; " * 20,
    "fewer bytes": lie(4, 1999 * 4),
    "more bytes": lie(4, 2001 * 4),
    "half a row": lie(4, 2000 * 4 + 2),
    "a row more than there are pixels": lie(4, LIMIT + 4),
    "2 GiB - 4": lie(4, 2**31 - 4),
    "4 GiB - 4": lie(4, 2**32 - 4),
    "blocks of no bytes": lie(8, 0),
    "blocks of 4 GiB - 1": lie(8, 2**32 - 1),
    "fewer compressed bytes": lie(12, len(SOUND) - 1),
    "4 GiB - 1 compressed bytes": lie(12, 2**32 - 1),
    "a block that starts behind the payload": lie(32, len(SOUND) + 4),
    "a block that starts before the payload": lie(32, 2**32 - 1),
    "a stream longer than the payload": lie(36, 2**31 - 1),
    "a stream of no bytes": lie(36, 0),
    "a delta filter": SOUND[:16] + b"\x03" + SOUND[17:],
    "an unknown filter": SOUND[:16] + b"\x1f" + SOUND[17:],
    "an unknown codec": SOUND[:2] + bytes([SOUND[2] | 0xE0]) + SOUND[3:],
    "pixels of a chunk without any": lie(4, 4, EMPTY),
    "all pixels as one run of zeros": bytes(blosc2.compress2(np.zeros((PIXELS, 2), np.uint16), typesize=4)),
    "rows and a half": blosc2.compress2(np.ones(2001, np.uint16), typesize=2),
    "full frames": blosc2.compress2(np.arange(PIXELS, dtype=np.uint16), typesize=2),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_lies_is_refused(name: str) -> None:
    with at_most(2_000_000), pytest.raises(DecodeError) as refused:
        suppressed.decompress(memoryview(PAYLOADS[name]), 1)
    assert 0 < len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["a delta filter", "an unknown filter", "an unknown codec"])
def test_what_blosc2_should_not_see_is_refused_before(name: str) -> None:
    with pytest.raises(DecodeError, match="Blosc2 buffer with flags"):
        suppressed.decompress(memoryview(PAYLOADS[name]), 1)


def test_a_payload_cut_anywhere_is_refused() -> None:
    for cut in range(len(SOUND)):
        with pytest.raises(DecodeError):
            suppressed.decompress(memoryview(SOUND[:cut]), 1)


def assert_read_or_refused(payload: bytes) -> None:
    with at_most(2_000_000), suppress(DecodeError):
        pixels = suppressed.decompress(memoryview(payload), 1)
        assert int(pixels[:, 0].astype(np.int64).sum()) + len(pixels) <= PIXELS
        assert (pixels[pixels[:, 1] == 0, 0] == 65_535).all()


@settings(max_examples=300, deadline=None)
@given(data=st.data(), size=st.sampled_from(sorted(OF_SIZE)))
def test_a_payload_with_flipped_bits_is_read_or_refused(data: st.DataObject, size: int) -> None:
    payload = OF_SIZE[size]
    bits = data.draw(st.sets(st.integers(0, 8 * len(payload) - 1), min_size=1, max_size=4))
    changed = bytearray(payload)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    assert_read_or_refused(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(header=st.binary(min_size=48, max_size=48), keep=st.sets(st.integers(0, 47), max_size=44))
def test_a_payload_with_another_beginning_is_read_or_refused(header: bytes, keep: set[int]) -> None:
    begin = bytes(SOUND[i] if i in keep else header[i] for i in range(48))
    assert_read_or_refused(begin + SOUND[48:])


@settings(max_examples=200, deadline=None)
@given(pairs=npst.arrays(np.uint16, st.tuples(st.integers(0, 9), st.just(2)), elements=st.integers(0, 65_535)))
def test_any_rows_are_read_or_refused(pairs: NDArray[np.uint16]) -> None:
    assert_read_or_refused(bytes(packed(pairs)))
