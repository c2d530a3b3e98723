"""The pages of the messages describe every field and show the golden files."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import pyarrow as pa
import pytest
from pydantic import BaseModel

from tests.docs.pages import DOCS, blocks, rows
from tests.golden.values import golden
from topics import chunk, scan_log
from topics.calibration import Calibration
from topics.dead_letter import Origin
from topics.event import CountEnd, EventHeader, Events
from topics.geometry import ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, PartitionPublished, ResumeMarker, StartMarker

DASH = "\N{EN DASH}"


def field_names(model: Any) -> set[str]:  # noqa: ANN401
    """Names of the fields of a message and of the messages in it."""
    if is_dataclass(model):
        return {field.name for field in fields(model)} - {"header", "offsets", "indices"}
    names: set[str] = set()
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            names |= {name} | field_names(field.annotation)
    for part in get_args(model):
        names |= field_names(part)
    return names


MESSAGES: dict[str, tuple[Any, ...]] = {
    "marker": (StartMarker, ResumeMarker, EndMarker),
    "events": (EventHeader, Events),
    "count-end": (CountEnd,),
    "scan-log": get_args(scan_log.LogRecord),
    "calibration": (Calibration,),
    "dead-letter": (Origin,),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_page_describes_every_field(name: str) -> None:
    page = DOCS / "messages" / f"{name}.md"
    documented = set(re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE))
    # Described on the pages that are linked.
    nested = field_names(ScanGeometry) | field_names(Ledger) | field_names(PartitionPublished)
    elsewhere = {"marker": set(), "scan-log": nested}.get(name, nested | field_names(EndMarker))
    expected = {field for model in MESSAGES[name] for field in field_names(model)}
    assert expected - elsewhere <= documented
    assert documented <= expected | {"electrons"}


def test_the_layout_of_a_chunk_is_that_of_the_code() -> None:
    table = rows((DOCS / "messages" / "raw-chunk.md").read_text(encoding="utf-8"), 5)
    sizes = {"4s": "char[4]", "I": "u32", "B": "u8", "H": "u16", "q": "i64", "d": "f64", "Q": "u64"}
    expected, offset = [], 0
    for code in re.findall(r"\d*[a-zA-Z]", chunk._FIXED.format.lstrip("<")):
        size = struct.calcsize("<" + code)
        expected.append((f"{offset}{DASH}{offset + size - 1}" if size > 1 else f"{offset}", sizes[code]))
        offset += size
    assert [(row[0], row[1]) for row in table][: len(expected)] == expected
    assert table[len(expected)][0] == f"{offset}{DASH}"


def test_json_examples_of_messages_are_the_golden_files() -> None:
    with pa.ipc.open_stream(golden("evt1_electrons")) as stream:
        event_header = stream.schema.metadata[b"stemstream"]
        lines = [str(row) for row in stream.read_all().to_pylist()]
    examples = {
        "marker": [golden("mrk1_start"), golden("mrk1_resume"), golden("mrk1_end")],
        "events": [event_header],
        "count-end": [golden("evm1_end")],
        "calibration": [golden("cal1_fit")],
        "scan-log": [
            golden(f"log1_{kind}")
            for kind in (
                "receiver_started",
                "scan_started",
                "scan_started_suppressed",
                "sector_ended",
                "count_started",
                "count_started_auto",
                "reference_stored",
                "thresholds_found",
                "count_finished",
                "count_abandoned",
                "session_started",
                "session_ended",
                "scan_annotated",
                "close_requested",
            )
        ],
    }
    for name, expected in examples.items():
        shown = [json.loads(block) for block in blocks(DOCS / "messages" / f"{name}.md", "json")]
        assert shown == [json.loads(message) for message in expected]
    assert blocks(DOCS / "messages" / "events.md", "text") == ["\n".join(lines)]


@pytest.mark.parametrize(
    ("page", "name"), [("raw-chunk", "chk1_full"), ("dead-letter", "dlt1_chunk"), ("reference", "ref1_dark")]
)
def test_bytes_of_messages_are_the_golden_files(page: str, name: str) -> None:
    [dump] = blocks(DOCS / "messages" / f"{page}.md", "hex")
    shown = bytes.fromhex("".join(line[10:50] for line in dump.splitlines()))
    assert len(shown) >= 120
    assert golden(name).startswith(shown)


def test_reasons_of_an_end_are_described() -> None:
    text = (DOCS / "messages" / "marker.md").read_text(encoding="utf-8")
    assert all(f"`{reason}`" in text for reason in EndReason)
