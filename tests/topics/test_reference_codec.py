"""The reference: pixels that numpy reads, and the hash that anybody can compute."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from tests.golden.values import REFERENCES
from tests.topics.strategies import references
from topics import reference
from topics.errors import DecodeError
from topics.registry import topic

DARK = REFERENCES["ref1_dark"]


@settings(max_examples=10, deadline=None)
@given(pixels=references())
def test_a_decoded_reference_is_what_was_encoded_to_the_bit(pixels: NDArray[np.float32]) -> None:
    decoded = reference.decode(reference.encode(pixels))
    assert decoded.dtype == np.float32
    assert decoded.shape == (576, 576)
    assert decoded.tobytes() == pixels.tobytes()


def test_a_decoded_reference_is_an_array_of_its_own_in_c_order() -> None:
    decoded = reference.decode(reference.encode(DARK))
    assert decoded.flags.c_contiguous
    assert decoded.flags.aligned
    assert decoded.flags.writeable


def test_numpy_reads_what_follows_the_id() -> None:
    message = reference.encode(DARK)
    assert message[:4] == b"ref1"
    assert np.array_equal(np.load(io.BytesIO(message[4:])), DARK)


def test_what_follows_the_id_is_what_numpy_writes() -> None:
    file = io.BytesIO()
    np.save(file, DARK)
    assert reference.encode(DARK)[4:] == file.getvalue()


def test_the_memory_order_and_byte_order_of_the_pixels_make_no_difference() -> None:
    assert reference.encode(np.asfortranarray(DARK)) == reference.encode(DARK)
    assert reference.sha256_of(np.asfortranarray(DARK)) == reference.sha256_of(DARK)
    assert reference.sha256_of(DARK.astype(">f4")) == reference.sha256_of(DARK)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((576, 577), np.float32),
        np.zeros((1, 576, 576), np.float32),
        np.zeros((576, 576), np.float64),
        np.zeros((576, 576), np.uint16),
        np.full((576, 576), np.nan, np.float32),
        np.full((576, 576), np.inf, np.float32),
    ],
    ids=lambda pixels: f"{pixels.shape} {pixels.dtype} {pixels.flat[0]}",
)
def test_what_nobody_could_decode_is_not_encoded(pixels: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="a reference is"):
        reference.encode(pixels)


def test_the_hash_is_that_of_the_bytes_of_the_array() -> None:
    assert reference.sha256_of(DARK) == hashlib.sha256(DARK.astype("<f4").tobytes()).hexdigest()
    assert reference.sha256_of(DARK) == "562dab89c3709ab8dbc62799cc73083a10cce6864f9423ac798d26cbdd7a494a"


def test_the_hash_knows_the_sign_of_a_zero_and_where_a_pixel_lies() -> None:
    one, other, zeros = (np.zeros((576, 576), np.float32) for _ in range(3))
    one[0, 1], other[1, 0] = 1, 1
    assert len({reference.sha256_of(pixels) for pixels in (one, other, zeros, -zeros)}) == 4


def test_a_refused_pixel_is_named_by_y_and_x() -> None:
    message = bytearray(reference.encode(DARK))
    at = 4 + 128 + 4 * (3 * 576 + 7)
    message[at : at + 4] = np.float32(np.nan).tobytes()
    with pytest.raises(DecodeError, match="pixel y 3, x 7 is nan"):
        reference.decode(bytes(message))


def test_no_message_is_no_reference() -> None:
    with pytest.raises(DecodeError):
        reference.decode(None)


def test_a_reference_fits_into_its_topic() -> None:
    assert len(reference.encode(DARK)) == reference.MESSAGE_BYTES < topic("references").max_message_bytes
