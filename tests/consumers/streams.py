"""Messages of the sectors of one partition, made from short texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topics.chunk import Chunk, ChunkHeader
from topics.geometry import ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, PartitionPublished, ResumeMarker, StartMarker
from topics.raw import RawMessage

# Chunks 1, 4, 7 … of each scan lie in the partition that is merged here.
GEOMETRY = ScanGeometry(width=8, height=8, frames_per_chunk=2, partitions=3)
PARTITION = 1
START, END = -1, 10**6  # places before and behind all chunks


@dataclass(frozen=True)
class Sent:
    """A message in a sector's partition; None is one that cannot be decoded."""

    offset: int
    message: RawMessage | None = field(repr=False)
    text: str
    epoch: int = 0
    place: tuple[int, int] | None = None  # scan ordinal and place in it, None for a resume marker


def sent(offset: int, sector: int, text: str, epoch: int = 0) -> Sent:
    """A message from its text: "7 start", "7 resume", "7 end", "7/4" (chunk 4 of scan 7), "?" (not to be decoded)."""
    if text == "?":
        return Sent(offset, None, text)
    if "/" in text:
        ordinal, index = (int(n) for n in text.split("/"))
        header = ChunkHeader(
            sector=sector,
            ordinal=ordinal,
            epoch=epoch,
            geometry=GEOMETRY,
            chunk_index=index,
            present=np.ones(2, bool),
            published=PartitionPublished(),
            first_frame_ns=0,
        )
        return Sent(offset, Chunk(header, memoryview(b"payload")), text, epoch, (ordinal, index))
    number, kind = text.split()
    fields: dict[str, Any] = {
        "sector": sector,
        "ordinal": int(number),
        "epoch": epoch,
        "partition": PARTITION,
        "geometry": GEOMETRY,
    }
    if kind == "start":
        return Sent(offset, StartMarker(**fields), text, epoch, (int(number), START))
    if kind == "resume":
        return Sent(offset, ResumeMarker(**fields), text, epoch)
    end = EndMarker(**fields, reason=EndReason.COMPLETE, ledger=Ledger())
    return Sent(offset, end, text, epoch, (int(number), END))


def stream(sector: int, texts: str, epoch: int = 0) -> list[Sent]:
    """Messages from their texts, separated by commas; "^" begins the next epoch."""
    messages: list[Sent] = []
    for text in (t.strip() for t in texts.split(",") if t.strip()):
        if text.startswith("^"):
            epoch = int(text[1:])
        else:
            messages.append(sent(3 + 2 * len(messages), sector, text, epoch))  # offsets have gaps
    return messages


def four(*texts: str) -> list[list[Sent]]:
    return [stream(sector, text) for sector, text in enumerate(texts)]
