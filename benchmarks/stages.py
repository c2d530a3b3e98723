"""Where the CPU time of receiver, counter and sink goes, stage by stage, in one process.

The same calls as in the services, chunk after chunk, on more memory than caches hold. What a service needs beyond
them (the Kafka client, the metrics, Python in between) is its figure in `benchmarks.end_to_end` minus the sum here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import counting
from benchmarks.context import Context
from benchmarks.raw_scans import FRAME_BYTES, raw_scan
from benchmarks.spread import summarise
from benchmarks.workloads import FRAMES_PER_CHUNK, XRAY, Scan
from counting import SuppressedFrames
from producers.chunker import Chunker, FilledChunk
from producers.raw_files import open_raw_files
from producers.suppression import SuppressionSettings
from producers.suppressor import Suppressor, check_suppression
from service.counted_file import CountedFileWriter
from topics import chunk, event
from topics.chunk import NO_FLOOR, Chunk, ChunkHeader
from topics.codec import Codec, compress
from topics.event import EventHeader, Events
from topics.geometry import FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS, ScanGeometry
from topics.marker import PartitionPublished

EDGE = 32
GEOMETRY = ScanGeometry(width=EDGE, height=EDGE, frames_per_chunk=FRAMES_PER_CHUNK, partitions=8)
SHAPE = (FRAMES_PER_CHUNK, SECTOR_ROWS, FRAME_WIDTH)

Messages = list[list[bytes]]  # by sector and chunk


def measure(context: Context) -> list[dict[str, Any]]:
    """Measure each density of electrons, full frames and zero-suppressed ones."""
    counting.warm_up()
    check_suppression(SuppressionSettings(0.0))  # compiles
    measured = []
    for electrons in context.plan.stage_electrons:
        scan = Scan(electrons, edge=EDGE)
        with raw_scan(scan, context.scratch) as raw:
            for codec, floor in (("full", None), ("zero-suppressed", scan.floor)):
                summary = summarise(context.repeat(partial(run_once, scan, floor, raw, context.scratch)))
                described = {"codec": codec, "electrons": electrons, "frames": scan.frames}
                measured.append(described | {"cpu_seconds_per_gb": summary})
                medians = ", ".join(f"{name} {value['median']:.3f}" for name, value in summary.items())
                context.say(f"stages, {scan.name}, {codec}: {medians}")
    return measured


class Stages:
    """CPU seconds of this process with the threads of its libraries, added up by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - begin


def run_once(scan: Scan, floor: float | None, raw: Path, scratch: Path) -> dict[str, float]:
    """Take a scan through all stages; CPU seconds per raw GB of each. ``floor``: of zero suppression, in counts."""
    stages = Stages()
    messages = receive(raw, floor, stages)
    events = count(messages, scan.background, stages)
    write(events, scratch / "stages.h5", stages)
    gigabytes = scan.frames * FRAME_BYTES / 1e9
    return {stage: seconds / gigabytes for stage, seconds in stages.seconds.items()}


def receive(raw: Path, floor: float | None, stages: Stages) -> Messages:
    """As the receiver: sector by sector within a chunk."""
    files = open_raw_files(str(raw))
    chunkers = [Chunker(GEOMETRY, reorder_window=0) for _ in range(SECTORS)]
    settings = SuppressionSettings(floor)
    suppressors = [Suppressor(sector, settings) for sector in range(SECTORS)] if floor is not None else None
    messages: Messages = [[] for _ in range(SECTORS)]
    for first in range(0, GEOMETRY.frames, FRAMES_PER_CHUNK):
        for sector in range(SECTORS):
            with stages.time("receiver: read and sort"):
                runs = list(files.sector_frames(sector, first, first + FRAMES_PER_CHUNK))
                filled = [each for run in runs for each in chunkers[sector].add(run)]
            for each in filled:
                with stages.time("receiver: compress"):
                    suppressed = suppressors[sector].compress(each.sector_frames) if suppressors else None
                    payload = suppressed[0] if suppressed else compress(each.sector_frames)
                with stages.time("receiver: encode and hash"):
                    messages[sector].append(chunk.encode(header(sector, each, len(payload), floor), payload))
    return messages


def header(sector: int, filled: FilledChunk, size: int, floor: float | None) -> ChunkHeader:
    return ChunkHeader(
        sector=sector,
        ordinal=1,
        epoch=0,
        geometry=GEOMETRY,
        chunk_index=filled.index,
        present=filled.present,
        published=PartitionPublished(
            chunks=1, sector_frames=FRAMES_PER_CHUNK, payload_bytes=size, last_chunk=filled.index, start_offset=0
        ),
        first_frame_ns=filled.first_frame_ns,
        codec=Codec.BLOSC2 if floor is None else Codec.ZERO_SUPPRESSED,
        floor=NO_FLOOR if floor is None else floor,
    )


def count(messages: Messages, background: float, stages: Stages) -> list[bytes]:
    """As the counter, on messages that are there."""
    buffers = [np.empty(FRAMES_PER_CHUNK * SECTOR_FRAME_BYTES, np.uint8) for _ in range(SECTORS)]
    slots = np.repeat(np.arange(FRAMES_PER_CHUNK)[:, np.newaxis], SECTORS, axis=1)
    encoded = []
    for index in range(GEOMETRY.chunks):
        with stages.time("counter: check hash and header"):
            chunks = [chunk.decode(messages[sector][index]) for sector in range(SECTORS)]
        if chunks[0].header.codec is Codec.ZERO_SUPPRESSED:
            with stages.time("counter: decompress"):
                listed = [SuppressedFrames(each.listed_pixels(), SHAPE) for each in chunks]
            with stages.time("counter: count"):
                floor = chunks[0].header.floor
                indices, offsets = counting.count_suppressed(listed, slots, background, XRAY, floor=floor)
        else:
            with stages.time("counter: decompress"):
                sectors = [each.sector_frames(buffer) for each, buffer in zip(chunks, buffers, strict=True)]
            with stages.time("counter: count"):
                indices, offsets = counting.count_sectors(sectors, slots, background, XRAY)
        with stages.time("counter: encode events"):
            missing = np.zeros(FRAMES_PER_CHUNK, np.uint8)
            encoded.append(event.encode(Events(event_header(index, chunks), indices, offsets, missing)))
    return encoded


def event_header(index: int, chunks: list[Chunk]) -> EventHeader:
    return EventHeader(
        ordinal=1,
        count=2,
        count_name="live",
        geometry=GEOMETRY,
        chunk_index=index,
        payload_bytes=[len(each.payload) for each in chunks],
        epochs=[0] * SECTORS,
    )


def write(encoded: list[bytes], path: Path, stages: Stages) -> None:
    """As the sink."""
    with stages.time("sink: write"):
        writer = CountedFileWriter(path, GEOMETRY)
    for message in encoded:
        with stages.time("sink: decode events"):
            events = event.decode(message)
        assert isinstance(events, Events)
        with stages.time("sink: write"):
            first = events.header.chunk_index * FRAMES_PER_CHUNK
            writer.write(first, events.indices, events.offsets, events.missing_sectors)
    with stages.time("sink: write"):
        writer.close({})
    path.unlink()
