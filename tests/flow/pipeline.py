"""The whole way of a scan without a broker: topics are lists of bytes here, everything else is the real thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.counting_step import CountingStep
from consumers.rejoin import JoinedChunk, JoinedEnd, PartitionMerge
from consumers.scan_file import ScanFile
from producers.chunker import Chunker, FilledChunk
from producers.raw_files import RawFiles, open_raw_files
from service.catalogue import Count, Scan
from topics import chunk, event, raw
from topics.chunk import ChunkHeader
from topics.codec import compress
from topics.errors import DecodeError
from topics.event import CountEnd, Events
from topics.geometry import SECTOR_FRAME_BYTES, SECTORS, ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, PartitionPublished, StartMarker
from topics.scan_log import CountFinished, CountSettings

ORDINAL, EPOCH, COUNT = 17, 15, 22

Place = tuple[int, int]  # sector, partition
Change = Callable[[Place, list[bytes]], list[bytes]]  # what happens to the messages of a raw partition on their way


@dataclass
class Counted:
    """What came out, and what the topics held on the way."""

    geometry: ScanGeometry
    raw: dict[Place, list[bytes]]
    events: dict[int, list[bytes]]
    finished: CountFinished
    refused: list[str] = field(default_factory=list)


def count_raw_files(
    source: Path,
    output: Path,
    settings: CountSettings,
    *,
    frames_per_chunk: int = 16,
    partitions: int = 3,
    seed: int = 0,
    change: Change = lambda _, messages: messages,
) -> Counted:
    """Raw files → chunks → bytes → joined → counted → bytes → HDF5."""
    files = open_raw_files(str(source))
    geometry = ScanGeometry(
        width=files.width,
        height=files.height,
        frames_per_position=files.frames_per_position,
        frames_per_chunk=frames_per_chunk,
        partitions=partitions,
    )
    sent = {}
    for sector in range(SECTORS):
        for partition, messages in enumerate(_publish(files, sector, geometry)):
            sent[sector, partition] = change((sector, partition), messages)
    refused: list[str] = []
    counted = {p: _count(sent, p, settings, np.random.default_rng((seed, p)), refused) for p in range(partitions)}
    scan = Scan(ORDINAL, "default", files.scan_number, "flow", geometry, 0)
    finished = _write(ScanFile(scan, Count(COUNT, "live", settings), output, "sink-0"), counted, seed)
    return Counted(geometry, sent, counted, finished, refused)


def _publish(files: RawFiles, sector: int, geometry: ScanGeometry) -> list[list[bytes]]:
    """Messages of each partition, as the receiver's publisher makes them."""
    topic: list[list[bytes]] = [[] for _ in range(geometry.partitions)]
    published = [PartitionPublished(start_offset=0) for _ in range(geometry.partitions)]
    common = {"sector": sector, "ordinal": ORDINAL, "epoch": EPOCH, "geometry": geometry}
    for partition, messages in enumerate(topic):
        messages.append(StartMarker.model_validate({**common, "partition": partition}).encode())

    def publish(filled: FilledChunk) -> None:
        partition = geometry.partition_of(filled.index)
        payload = compress(filled.sector_frames)
        before = published[partition]
        published[partition] = PartitionPublished(
            chunks=before.chunks + 1,
            sector_frames=before.sector_frames + len(filled.sector_frames),
            payload_bytes=before.payload_bytes + len(payload),
            last_chunk=filled.index,
            start_offset=0,
        )
        header = ChunkHeader(
            sector=sector,
            ordinal=ORDINAL,
            epoch=EPOCH,
            geometry=geometry,
            chunk_index=filled.index,
            present=filled.present,
            published=published[partition],
            first_frame_ns=filled.first_frame_ns,
        )
        topic[partition].append(chunk.encode(header, payload))

    chunker = Chunker(geometry, reorder_window=0)
    for frames in files.sector_frames(sector, 0, 2**32):
        for filled in chunker.add(frames):
            publish(filled)
    for filled in chunker.finish():
        publish(filled)
    sector_frames = sum(p.sector_frames for p in published)
    ledger = Ledger(
        received=chunker.received,
        published=sector_frames,
        repeated=chunker.repeated,
        late=chunker.late,
        refused=chunker.refused,
        chunks=sum(p.chunks for p in published),
        raw_bytes=sector_frames * SECTOR_FRAME_BYTES,
        payload_bytes=sum(p.payload_bytes for p in published),
    )
    assert ledger.received == ledger.published + ledger.repeated + ledger.late + ledger.refused
    complete = sector_frames == geometry.frames
    for partition, messages in enumerate(topic):
        fields = {**common, "partition": partition, "published": published[partition], "ledger": ledger}
        reason = EndReason.COMPLETE if complete else EndReason.SOURCE_ENDED
        messages.append(EndMarker.model_validate({**fields, "reason": reason}).encode())
    return topic


def _no_reference(sha256: str) -> NDArray[np.float32]:
    raise AssertionError(sha256)


def _count(
    sent: dict[Place, list[bytes]],
    partition: int,
    settings: CountSettings,
    random: np.random.Generator,
    refused: list[str],
) -> list[bytes]:
    """Event messages of a partition; the four sectors arrive in any order, as the counter takes them in."""
    merge, step, made = PartitionMerge(), CountingStep(_no_reference), []
    left = {sector: list(enumerate(sent[sector, partition])) for sector in range(SECTORS)}
    while any(left.values()):
        sector = int(random.choice([s for s in left if left[s]]))
        offset, message = left[sector].pop(0)
        try:
            decoded = raw.decode(message)
        except DecodeError as error:
            merge.skip(sector, offset)
            refused.append(str(error))
        else:
            refusal = merge.push(sector, offset, decoded, len(message))
            refused += [refusal.value] if refusal else []
        for joined in merge.pop():
            if isinstance(joined, JoinedChunk):
                events, damaged = step.count(joined, Count(COUNT, "live", settings))
                refused += damaged
                made.append(event.encode(events))
            elif isinstance(joined, JoinedEnd):
                end = CountEnd(
                    ordinal=ORDINAL,
                    count=COUNT,
                    count_name="live",
                    geometry=joined.geometry,
                    partition=partition,
                    ends=list(joined.ends),
                )
                made.append(end.encode())
    return made


def _write(scan_file: ScanFile, counted: dict[int, list[bytes]], seed: int) -> CountFinished:
    """The file; partitions arrive in any order among each other."""
    random = np.random.default_rng(seed)
    left = {partition: list(messages) for partition, messages in counted.items()}
    ended = False
    while any(left.values()):
        assert not ended
        partition = int(random.choice([p for p in left if left[p]]))
        message = event.decode(left[partition].pop(0))
        scan_file.check(message, partition)
        if isinstance(message, Events):
            assert scan_file.add(message)
        else:
            ended = scan_file.end(message)
    assert ended
    return scan_file.finish("cluster")
