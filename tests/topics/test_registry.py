"""The registry: the spine of the project, and true to the code."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.golden.values import FOLDER, golden
from topics import calibration, chunk, dead_letter, event, raw, reference, registry, scan_log
from topics.errors import DecodeError
from topics.registry import ARCHIVE_TOPICS, DEAD_LETTERS, EVENTS, RAW_TOPICS, REFERENCES, SCANS, TOPICS, Topic


def decode_reference_or_calibration(message: bytes) -> object:
    """Whoever reads ``references`` knows what lies at an offset; there is no common decoder."""
    return reference.decode(message) if message[:4] == b"ref1" else calibration.decode(message)


DECODERS: dict[str, Callable[[bytes], object]] = {
    SCANS: scan_log.decode,
    REFERENCES: decode_reference_or_calibration,
    EVENTS: event.decode,
    DEAD_LETTERS: dead_letter.decode,
    **dict.fromkeys(RAW_TOPICS, raw.decode),
    **dict.fromkeys(ARCHIVE_TOPICS, chunk.decode),
}


def golden_names(schema_id: str) -> list[str]:
    return [path.stem for path in FOLDER.glob(f"{schema_id}_*.bin")]


def test_names_of_topics_are_unique() -> None:
    names = [t.name for t in TOPICS]
    assert len(set(names)) == len(names)
    assert all(registry.topic(name).name == name for name in names)


def test_there_is_a_raw_topic_a_sector() -> None:
    assert RAW_TOPICS == ("raw.sector.0", "raw.sector.1", "raw.sector.2", "raw.sector.3")
    assert [registry.raw_topic(sector) for sector in range(4)] == list(RAW_TOPICS)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_every_schema_id_has_golden_bytes_that_the_decoder_of_its_topic_reads(topic: Topic) -> None:
    for schema_id in topic.schema_ids:
        assert golden_names(schema_id)
        for name in golden_names(schema_id):
            DECODERS[topic.name](golden(name))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_the_decoder_of_a_topic_refuses_what_belongs_into_another(topic: Topic) -> None:
    foreign = {schema_id for t in TOPICS for schema_id in t.schema_ids} - set(topic.schema_ids)
    for schema_id in foreign:
        for name in golden_names(schema_id):
            with pytest.raises(DecodeError):
                DECODERS[topic.name](golden(name))


def test_no_golden_file_has_an_id_that_no_topic_knows() -> None:
    ids = {path.name[:4] for path in FOLDER.glob("*.bin")}
    assert ids == {schema_id for t in TOPICS for schema_id in t.schema_ids}


def test_raw_and_event_topics_share_the_number_of_partitions_and_the_others_have_one() -> None:
    assert {t.name: t.partitions for t in TOPICS} == {
        SCANS: 1,
        REFERENCES: 1,
        DEAD_LETTERS: 1,
        EVENTS: "P",
        **dict.fromkeys(RAW_TOPICS, "P"),
        **dict.fromkeys(ARCHIVE_TOPICS, "P"),
    }


@pytest.mark.parametrize("name", [SCANS, REFERENCES])
def test_the_scan_log_and_what_it_points_at_are_kept_for_ever(name: str) -> None:
    kept = registry.topic(name)
    assert kept.retention_ms == -1
    assert kept.config["retention.bytes"] == "-1"
    assert "cleanup.policy" not in kept.config


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_the_picture_shows_every_topic_with_who_writes_and_reads_it(topic: Topic) -> None:
    label = re.sub(r"sector\.[0-3]$", "sector.0…3", topic.name)
    node = f'{label.split(".")[0]}[("{label}")]'
    lines = [line.strip() for line in registry.picture().splitlines()]
    for writer in topic.writers:
        assert f"{writer} --> {node}" in lines
    for reader in set(topic.readers) - set(topic.writers):
        assert f"{node} --> {reader}" in lines


def test_the_picture_is_a_flow_chart_without_repeated_lines() -> None:
    first, *lines = registry.picture().splitlines()
    assert first == "flowchart LR"
    assert len(set(lines)) == len(lines)
    assert all(" --> " in line for line in lines)
