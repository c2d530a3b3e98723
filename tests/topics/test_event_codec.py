"""The event message: what goes in comes out, and Arrow alone opens it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.golden.values import EVENTS
from tests.hostile_arrow import replaced
from tests.topics.strategies import count_ends, events
from topics import event
from topics.errors import DecodeError
from topics.event import CountEnd, Events


def assert_same(found: object, expected: Events) -> None:
    assert isinstance(found, Events)
    assert found.header == expected.header
    for name in ("indices", "offsets", "missing_sectors"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


@settings(max_examples=60, deadline=None)
@given(message=events())
def test_decoded_events_are_what_was_encoded(message: Events) -> None:
    assert_same(event.decode(event.encode(message)), message)


@settings(max_examples=25, deadline=None)
@given(message=count_ends)
def test_a_decoded_end_of_a_count_is_what_was_encoded(message: CountEnd) -> None:
    assert event.decode(message.encode()) == message


def test_arrow_alone_opens_the_events() -> None:
    with pa.ipc.open_stream(event.encode(EVENTS)) as reader:
        table = reader.read_all()
    assert table.column_names == ["electrons", "missing_sectors"]
    assert table["electrons"].to_pylist() == [[0, 575, 331_775], [], [], [7, 8], [], []]
    assert table["missing_sectors"].to_pylist() == [0, 2, 15, 0, 0, 8]
    assert table["electrons"].type.value_type == pa.uint32()
    header = json.loads(table.schema.metadata[b"stemstream"])
    assert (header["schema_id"], header["ordinal"], header["chunk_index"]) == ("evt1", 17, 3)


def test_rows_that_do_not_begin_at_the_start_of_the_values_are_read_all_the_same() -> None:
    # Arrow allows it, though its writers do not do it: here by hand.
    values = np.concatenate([[8, 9], EVENTS.indices]).astype(np.uint32)
    offsets = EVENTS.offsets + 2
    from_start = np.array([0, *offsets[1:]])
    message = event.encode(Events(EVENTS.header, values, from_start, EVENTS.missing_sectors))
    shifted = replaced(message, from_start.astype(np.int32).tobytes(), offsets.astype(np.int32).tobytes())
    assert_same(event.decode(shifted), EVENTS)


def test_a_message_without_bytes_is_refused() -> None:
    for empty in (None, b""):
        with pytest.raises(DecodeError, match="empty"):
            event.decode(empty)
