"""The golden files: bytes that were once released are read for ever, and written as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.golden import values
from tests.golden.make import make
from tests.golden.values import (
    CALIBRATIONS,
    CHUNKS,
    COUNT_ENDS,
    DEAD_LETTER,
    EVENTS,
    MARKERS,
    RECORDS,
    REFERENCES,
    SUPPRESSED_CHUNKS,
    golden,
)
from topics import calibration, chunk, dead_letter, event, marker, raw, reference, scan_log
from topics.chunk import Chunk, ChunkHeader
from topics.geometry import SECTOR_FRAME_BYTES
from topics.json_message import JsonMessage
from topics.marker import EndReason

JSON: dict[str, JsonMessage] = {**MARKERS, **COUNT_ENDS, **RECORDS, **CALIBRATIONS}
DECODE_JSON = {"mrk1": marker.decode, "evm1": event.decode, "log1": scan_log.decode, "cal1": calibration.decode}


def test_every_value_has_its_file_and_every_file_its_value() -> None:
    files = {path.stem for path in values.FOLDER.glob("*.bin")}
    assert files == set(values.encoded())


@pytest.mark.parametrize("name", JSON)
def test_frozen_json_is_read_as_the_value_it_was(name: str) -> None:
    assert DECODE_JSON[name[:4]](golden(name)) == JSON[name]


@pytest.mark.parametrize("name", JSON)
def test_json_is_written_as_it_was(name: str) -> None:
    assert JSON[name].encode() == golden(name)


def read_chunk(name: str, header: ChunkHeader) -> Chunk:
    """The frozen chunk, whose header is as expected."""
    decoded = raw.decode(golden(name))
    assert isinstance(decoded, Chunk)
    assert decoded.header.present.tolist() == header.present.tolist()
    for field in set(header.__dataclass_fields__) - {"present"}:
        assert getattr(decoded.header, field) == getattr(header, field), field
    return decoded


@pytest.mark.parametrize("name", CHUNKS)
def test_a_frozen_chunk_is_read_as_the_value_it_was(name: str) -> None:
    header, pixels = CHUNKS[name]
    memory = np.empty(len(pixels) * SECTOR_FRAME_BYTES, np.uint8)
    assert np.array_equal(read_chunk(name, header).sector_frames(memory), pixels)


@pytest.mark.parametrize("name", SUPPRESSED_CHUNKS)
def test_a_frozen_zero_suppressed_chunk_is_read_as_the_value_it_was(name: str) -> None:
    header, listed = SUPPRESSED_CHUNKS[name]
    assert np.array_equal(read_chunk(name, header).listed_pixels(), listed)


@pytest.mark.parametrize("name", [*CHUNKS, *SUPPRESSED_CHUNKS])
def test_a_chunk_is_written_as_it_was(name: str) -> None:
    frozen = golden(name)
    payload = frozen[int.from_bytes(frozen[4:8], "little") :]  # Blosc2's own bytes may change with its version
    assert chunk.encode((CHUNKS | SUPPRESSED_CHUNKS)[name].header, payload) == frozen


def test_frozen_events_are_read_as_the_value_they_were() -> None:
    decoded = event.decode(golden("evt1_electrons"))
    assert isinstance(decoded, event.Events)
    assert decoded.header == EVENTS.header
    assert decoded.indices.tolist() == EVENTS.indices.tolist()
    assert decoded.offsets.tolist() == EVENTS.offsets.tolist()
    assert decoded.missing_sectors.tolist() == EVENTS.missing_sectors.tolist()


def test_events_are_written_as_they_were() -> None:
    # By what Arrow finds in them: its own bytes may change with its version.
    with pa.ipc.open_stream(golden("evt1_electrons")) as frozen, pa.ipc.open_stream(event.encode(EVENTS)) as now:
        assert now.schema.equals(frozen.schema, check_metadata=True)
        assert now.read_all().equals(frozen.read_all())


@pytest.mark.parametrize("name", REFERENCES)
def test_a_frozen_reference_is_read_as_the_pixels_it_was(name: str) -> None:
    decoded = reference.decode(golden(name))
    assert decoded.tobytes() == REFERENCES[name].tobytes()


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_written_as_it_was(name: str) -> None:
    assert reference.encode(REFERENCES[name]) == golden(name)


def test_the_words_for_an_end_are_those_that_were_released() -> None:
    words = {"complete", "source ended", "next scan", "idle timeout", "closed by hand", "abandoned"}
    assert {reason.value for reason in EndReason} == words


def test_a_frozen_dead_letter_is_read_as_the_value_it_was() -> None:
    assert dead_letter.decode(golden("dlt1_chunk")) == DEAD_LETTER


def test_a_dead_letter_is_written_as_it_was() -> None:
    assert dead_letter.encode(*DEAD_LETTER) == golden("dlt1_chunk")


def test_the_script_makes_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mrk1_end.bin").write_bytes(b"frozen")
    made = make(tmp_path)
    assert "mrk1_end.bin" not in made
    assert (tmp_path / "mrk1_end.bin").read_bytes() == b"frozen"
    assert {path.name for path in tmp_path.iterdir()} == {*made, "mrk1_end.bin"}
    assert make(tmp_path) == []
