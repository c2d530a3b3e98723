"""Markers and raw messages: what goes in comes out; a marker says what it is in its first bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.golden.values import CHUNKS, MARKERS
from tests.topics.strategies import markers
from topics import chunk, marker, raw
from topics.chunk import Chunk
from topics.errors import DecodeError
from topics.geometry import ScanGeometry
from topics.marker import Marker, StartMarker


@settings(max_examples=60, deadline=None)
@given(message=markers)
def test_a_decoded_marker_is_what_was_encoded(message: Marker) -> None:
    assert marker.decode(message.encode()) == message
    assert raw.decode(message.encode()) == message


@pytest.mark.parametrize("name", MARKERS)
def test_a_marker_is_json_that_begins_with_its_id(name: str) -> None:
    fields = json.loads(MARKERS[name].encode())
    assert next(iter(fields)) == "schema_id"
    assert fields["schema_id"] == "mrk1"
    assert fields["kind"] == name.removeprefix("mrk1_")


def test_a_marker_with_blanks_in_its_json_is_read() -> None:
    for message in MARKERS.values():
        assert marker.decode(json.dumps(json.loads(message.encode()), indent=2).encode()) == message


def test_a_raw_topic_tells_chunks_from_markers() -> None:
    assert isinstance(raw.decode(chunk.encode(CHUNKS["chk1_full"].header, b"payload")), Chunk)
    assert isinstance(raw.decode(MARKERS["mrk1_start"].encode()), StartMarker)


def test_the_greatest_scan_still_fits_a_marker() -> None:
    geometry = ScanGeometry(width=65_535, height=65_535, frames_per_chunk=1024, partitions=1024)
    message = MARKERS["mrk1_end"].model_copy(update={"geometry": geometry})
    assert marker.decode(message.encode()) == message


def test_a_message_without_bytes_is_refused() -> None:
    for empty in (None, b""):
        with pytest.raises(DecodeError, match="empty"):
            raw.decode(empty)
