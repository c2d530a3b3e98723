"""Every topic, in the order in which data pass: what lies in it, who writes, who reads.

Topics are created from here (``stemstream topics create``) and the picture in the README is made from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from topics.geometry import SECTORS

HOUR_MS = 3_600_000
MIB = 1024 * 1024
FOREVER = -1

DEFAULT_PARTITIONS = 8
MAX_MESSAGE_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. ``partitions`` "P" is the deployment's number, alike in every topic that has it."""

    name: str
    holds: str
    schema_ids: tuple[str, ...]
    key: str
    partitions: Literal["P", 1]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int
    max_message_bytes: int = MAX_MESSAGE_BYTES
    config: dict[str, str] = field(default_factory=dict)


def raw_topic(sector: int) -> str:
    """Name of the topic that one sector's receiver writes."""
    return f"raw.sector.{sector}"


def archive_topic(sector: int) -> str:
    """Name of the topic with what one sector's receiver keeps in full of zero-suppressed scans."""
    return f"archive.sector.{sector}"


RAW_TOPICS = tuple(raw_topic(sector) for sector in range(SECTORS))
ARCHIVE_TOPICS = tuple(archive_topic(sector) for sector in range(SECTORS))
EVENTS = "events"
REFERENCES = "references"
SCANS = "scans"
DEAD_LETTERS = "dead-letters"

TOPICS: tuple[Topic, ...] = (
    Topic(
        name=SCANS,
        holds="the scan log: sessions, scans, sectors, counts, files and notes, in the order in which they came",
        schema_ids=("log1",),
        key="none: the offset is the identity",
        partitions=1,
        writers=("receiver", "counter", "sink", "run", "people"),
        readers=("receiver", "counter", "sink", "run", "people"),
        retention_ms=FOREVER,
        max_message_bytes=MIB,
        config={"retention.bytes": "-1"},
    ),
    *(
        Topic(
            name=name,
            holds=f"compressed chunks of sector {sector} and the markers around them",
            schema_ids=("chk1", "mrk1"),
            key="scan ordinal / first scan position of the chunk",
            partitions="P",
            writers=("receiver",),
            readers=("counter", "receiver"),
            retention_ms=24 * HOUR_MS,
            config={"segment.bytes": str(256 * MIB)},
        )
        for sector, name in enumerate(RAW_TOPICS)
    ),
    Topic(
        name=REFERENCES,
        holds="dark and gain references, and the histograms that automatic thresholds were found from",
        schema_ids=("ref1", "cal1"),
        key="SHA-256 of the reference, or calibration / scan ordinal / count",
        partitions=1,
        writers=("receiver", "counter"),
        readers=("counter", "sink"),
        retention_ms=FOREVER,
        max_message_bytes=4 * MIB,
        config={"retention.bytes": "-1"},
    ),
    *(
        Topic(
            name=name,
            holds=f"full chunks of sector {sector} of zero-suppressed scans, as many as --keep-full says",
            schema_ids=("chk1",),
            key="scan ordinal / first scan position of the chunk",
            partitions="P",
            writers=("receiver",),
            readers=("people",),
            retention_ms=24 * HOUR_MS,
            config={"segment.bytes": str(256 * MIB)},
        )
        for sector, name in enumerate(ARCHIVE_TOPICS)
    ),
    Topic(
        name=EVENTS,
        holds="electrons of counted chunks, and the end of each count",
        schema_ids=("evt1", "evm1"),
        key="scan ordinal / first scan position of the chunk",
        partitions="P",
        writers=("counter",),
        readers=("sink",),
        retention_ms=7 * 24 * HOUR_MS,
    ),
    Topic(
        name=DEAD_LETTERS,
        holds="messages that could not be decoded, with reason and origin",
        schema_ids=("dlt1",),
        key="topic / partition / offset of the origin",
        partitions=1,
        writers=("counter", "sink"),
        readers=("people",),
        retention_ms=30 * 24 * HOUR_MS,
    ),
)


def topic(name: str) -> Topic:
    """Return the topic of that name; KeyError if there is none."""
    return {t.name: t for t in TOPICS}[name]


def picture() -> str:
    """Mermaid flow chart of who writes and reads what, for the README."""
    lines = ["flowchart LR", "    detector([live feed or raw files]) --> receiver"]
    shown = {"raw.sector.0…3": topic(RAW_TOPICS[0])}  # first, as it is in the picture's middle
    shown |= {re.sub(r"sector\.\d", "sector.0…3", t.name): t for t in TOPICS}
    for label, entry in shown.items():
        node = f'{label.split(".")[0]}[("{label}")]'
        lines += [f"    {writer} --> {node}" for writer in entry.writers]
        lines += [f"    {node} --> {reader}" for reader in entry.readers if reader not in entry.writers]
    lines.append("    sink --> file[/HDF5 file, stempy format/]")
    return "\n".join(lines)
