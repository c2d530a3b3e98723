"""Whatever lies in a topic, a decoder gives a message or a DecodeError: nothing else, and no memory by request."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import hostile
from tests.golden.values import encoded
from tests.hostile_chunks import FIXED_BYTES
from topics import calibration, dead_letter, event, raw, reference, scan_log
from topics.chunk import Chunk
from topics.errors import DecodeError
from topics.geometry import SECTOR_FRAME_BYTES

Decoder = Callable[[bytes], object]

RAW = hostile.unreadable_raw_messages()
PAYLOADS = hostile.chunks_with_unreadable_payload()
EVENTS = hostile.unreadable_events()
RECORDS = hostile.unreadable_records()
DEAD_LETTERS = hostile.unreadable_dead_letters()
REFERENCES = hostile.unreadable_references()
CALIBRATIONS = hostile.unreadable_calibrations()

DECODERS: dict[str, Decoder] = {
    "chk1": raw.decode,
    "mrk1": raw.decode,
    "evt1": event.decode,
    "evm1": event.decode,
    "log1": scan_log.decode,
    "ref1": reference.decode,
    "cal1": calibration.decode,
    "dlt1": dead_letter.decode,
}
SOUND = encoded()


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fail if Python, numpy or Arrow allocate more than this at a time."""
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(default)
    assert peak <= limit_bytes


def assert_refused(decode: Decoder, message: bytes) -> None:
    with at_most(2_000_000), pytest.raises(DecodeError) as refused:
        decode(message)
    assert str(refused.value)
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("name", RAW)
def test_a_raw_message_that_is_none_is_refused(name: str) -> None:
    assert_refused(raw.decode, RAW[name])


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_message_that_is_none_is_refused(name: str) -> None:
    assert_refused(event.decode, EVENTS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_a_scan_log_record_that_is_none_is_refused(name: str) -> None:
    assert_refused(scan_log.decode, RECORDS[name])


@pytest.mark.parametrize("name", DEAD_LETTERS)
def test_a_dead_letter_that_is_none_is_refused(name: str) -> None:
    assert_refused(dead_letter.decode, DEAD_LETTERS[name])


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_that_is_none_is_refused(name: str) -> None:
    assert_refused(reference.decode, REFERENCES[name])


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_a_calibration_that_is_none_is_refused(name: str) -> None:
    assert_refused(calibration.decode, CALIBRATIONS[name])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_lies_is_refused_when_it_is_opened(name: str) -> None:
    decoded = raw.decode(PAYLOADS[name])
    assert isinstance(decoded, Chunk)
    memory = np.full(5 * SECTOR_FRAME_BYTES, 7, np.uint8)
    with at_most(2_000_000), pytest.raises(DecodeError):
        decoded.sector_frames(memory[: 4 * SECTOR_FRAME_BYTES])
    assert (memory[4 * SECTOR_FRAME_BYTES :] == 7).all()


def test_a_chunk_message_cut_anywhere_is_refused() -> None:
    message = SOUND["chk1_incomplete"]
    for cut in range(len(message)):
        with pytest.raises(DecodeError):
            raw.decode(message[:cut])


BINARY = {"chk1_full", "chk1_incomplete", "chk1_suppressed", "dlt1_chunk", "evt1_electrons", "ref1_dark"}


@pytest.mark.parametrize("name", sorted(set(SOUND) - BINARY))
def test_a_json_message_cut_anywhere_is_refused(name: str) -> None:
    message = SOUND[name]
    for cut in range(len(message)):
        with pytest.raises(DecodeError):
            DECODERS[name[:4]](message[:cut])


def test_an_event_message_cut_before_its_last_electron_is_refused() -> None:
    message = SOUND["evt1_electrons"]
    for cut in range(message.index(np.uint32(331_775).tobytes()) + 4):
        with pytest.raises(DecodeError):
            event.decode(message[:cut])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_chunk_with_a_bit_flipped_anywhere_is_refused(data: st.DataObject) -> None:
    with pytest.raises(DecodeError):
        raw.decode(flipped(SOUND["chk1_incomplete"], data, 1))


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SOUND)), data=st.data())
def test_a_message_with_flipped_bits_is_read_or_refused(name: str, data: st.DataObject) -> None:
    with at_most(5_000_000), suppress(DecodeError):
        DECODERS[name[:4]](flipped(SOUND[name], data, 3))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_payload_with_flipped_bits_and_a_hash_that_fits_is_read_or_refused(data: st.DataObject) -> None:
    message = SOUND["chk1_incomplete"]
    mask_ends = FIXED_BYTES + 1
    decoded = raw.decode(hostile.sealed(message[:mask_ends] + flipped(message[mask_ends:], data, 3)))
    assert isinstance(decoded, Chunk)
    memory = np.full(5 * SECTOR_FRAME_BYTES, 7, np.uint8)
    with suppress(DecodeError):
        assert decoded.sector_frames(memory[: 4 * SECTOR_FRAME_BYTES]).shape == (4, 144, 576)
    assert (memory[4 * SECTOR_FRAME_BYTES :] == 7).all()


@settings(max_examples=100, deadline=None)
@given(message=st.binary(max_size=200), begin=st.sampled_from([b"", b"chk1", b"dlt1", b"\xff\xff\xff\xff", b"{"]))
def test_any_bytes_are_refused_by_all_decoders(message: bytes, begin: bytes) -> None:
    for decode in set(DECODERS.values()):
        with pytest.raises(DecodeError):
            decode(begin + message)


def flipped(message: bytes, data: st.DataObject, most: int) -> bytes:
    bits = data.draw(st.sets(st.integers(0, 8 * len(message) - 1), min_size=1, max_size=most))
    changed = bytearray(message)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
