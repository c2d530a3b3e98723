"""The dead letter: the message that nobody could read, with its origin."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.values import DEAD_LETTER
from tests.topics.strategies import origins
from topics import dead_letter
from topics.dead_letter import MAX_KEPT_BYTES, Origin
from topics.registry import DEAD_LETTERS, topic


@settings(max_examples=25, deadline=None)
@given(origin=origins, message=st.binary(max_size=100))
def test_a_decoded_dead_letter_is_what_was_encoded(origin: Origin, message: bytes) -> None:
    assert dead_letter.decode(dead_letter.encode(origin, message)) == (origin, message)


def test_of_a_long_message_the_beginning_is_kept() -> None:
    message = bytes(range(256)) * 5000
    encoded = dead_letter.encode(DEAD_LETTER[0], message)
    assert len(encoded) < topic(DEAD_LETTERS).max_message_bytes
    assert dead_letter.decode(encoded) == (DEAD_LETTER[0], message[:MAX_KEPT_BYTES])


def test_the_kept_bytes_begin_where_the_size_of_the_origin_says() -> None:
    encoded = dead_letter.encode(*DEAD_LETTER)
    assert encoded[:4] == b"dlt1"
    assert encoded[8 + int.from_bytes(encoded[4:8], "little") :] == DEAD_LETTER[1]
