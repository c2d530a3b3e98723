"""What the golden files say: one value for each, and how today's encoders write it.

A message that was released never changes. So neither do these values nor their files: a new version of a message gets
a new id, values and files of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topics import chunk, dead_letter, event, reference, suppressed
from topics.calibration import Calibration
from topics.chunk import ChunkHeader
from topics.codec import Codec, compress
from topics.dead_letter import Origin
from topics.event import CountEnd, EventHeader, Events
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, Marker, PartitionPublished, ResumeMarker, StartMarker
from topics.scan_log import (
    Account,
    AutoThreshold,
    CloseRequested,
    CountAbandoned,
    CountFinished,
    CountSettings,
    CountStarted,
    LogRecord,
    ReceiverStarted,
    ReferenceStored,
    ScanAnnotated,
    ScanStarted,
    SectorAccount,
    SectorEnded,
    SessionEnded,
    SessionStarted,
    ThresholdsFound,
    ZeroSuppression,
)

FOLDER = Path(__file__).parent

# 30 frames in 4 chunks, the last one with 6 of them.
GEOMETRY = ScanGeometry(width=5, height=3, frames_per_position=2, frames_per_chunk=8, partitions=3)
NOW_NS = 1_767_225_600_123_456_789
LEDGER = Ledger(
    received=31,
    published=27,
    repeated=1,
    late=2,
    refused=1,
    chunks=4,
    raw_bytes=27 * SECTOR_FRAME_BYTES,
    payload_bytes=15_000,
    first_frame_ns=NOW_NS,
    last_published_ns=NOW_NS + 340_000_000,
)


class ChunkValue(NamedTuple):
    """``pixels`` is (sector frames, 144, 576) uint16, detector counts."""

    header: ChunkHeader
    pixels: NDArray[np.uint16]


def _pixels(sector_frames: int) -> NDArray[np.uint16]:
    """Nearly empty sector frames, each another one, with the greatest value in its last pixel."""
    pixels = np.zeros((sector_frames, SECTOR_ROWS, FRAME_WIDTH), np.uint16)
    for i in range(sector_frames):
        pixels[i, 10 + i, 20 : 30 + i] = 100 + i
        pixels[i, 143, 575] = 65_535
    return pixels


CHUNKS = {
    "chk1_full": ChunkValue(
        ChunkHeader(
            sector=2,
            ordinal=17,
            epoch=15,
            geometry=GEOMETRY,
            chunk_index=1,
            present=np.ones(8, bool),
            published=PartitionPublished(
                chunks=1, sector_frames=8, payload_bytes=4_000, last_chunk=1, start_offset=123_456_789_012
            ),
            first_frame_ns=NOW_NS,
        ),
        _pixels(8),
    ),
    "chk1_incomplete": ChunkValue(
        ChunkHeader(
            sector=0,
            ordinal=2**40,
            epoch=2**40 - 1,
            geometry=GEOMETRY,
            chunk_index=3,
            present=np.array([True, False, True, True, False, True]),
            published=PartitionPublished(chunks=2, sector_frames=12, payload_bytes=7_000, last_chunk=3, start_offset=0),
            first_frame_ns=NOW_NS,
            codec=Codec.BLOSC2,
            floor=12.5,
        ),
        _pixels(4),
    ),
}


class SuppressedChunkValue(NamedTuple):
    """``listed`` is (m, 2) uint16: gap and value of each listed pixel."""

    header: ChunkHeader
    listed: NDArray[np.uint16]


SUPPRESSED_CHUNKS = {
    "chk1_suppressed": SuppressedChunkValue(
        ChunkHeader(
            sector=3,
            ordinal=17,
            epoch=15,
            geometry=GEOMETRY,
            chunk_index=2,
            present=np.array([True, True, False, True, True, True, True, True]),
            published=PartitionPublished(
                chunks=1, sector_frames=7, payload_bytes=120, last_chunk=2, start_offset=123_456_789_013
            ),
            first_frame_ns=NOW_NS,
            codec=Codec.ZERO_SUPPRESSED,
            floor=27.25,
        ),
        # Pixels 0, 1 and 576 of the first sector frame, 100 of the fifth, and the last one of the seventh.
        np.array(
            [[0, 28], [0, 300], [574, 29], *[[65_535, 0]] * 5, [3_619, 65_535], *[[65_535, 0]] * 3, [52_122, 28]],
            np.uint16,
        ),
    )
}


def _reference() -> NDArray[np.float32]:
    """(576, 576) float32, counts: nearly all pixels alike, others in the corners, not the same along y and x."""
    pixels = np.full((FRAME_HEIGHT, FRAME_WIDTH), 20.25, np.float32)
    pixels[0, :3] = 0.1, -1.5, 65_535
    pixels[1, 0] = 2**-149  # the smallest number above 0
    pixels[575, 574:] = 3.4e38, 1 / 3
    return pixels


REFERENCES = {"ref1_dark": _reference()}

CALIBRATIONS = {
    "cal1_fit": Calibration(
        ordinal=17,
        count=22,
        frames=1200,
        first_bin=-3,
        histogram=[1, 0, 52_911, 2**40, 60_007, 3],
        amplitude=398_131_002.5,
        optimized_mean=0.25,
        optimized_std=5.125,
        background=20.75,
        xray=2012.5,
    )
}

END_MARKER = EndMarker(
    sector=1,
    ordinal=17,
    epoch=15,
    partition=0,
    geometry=GEOMETRY,
    published=PartitionPublished(chunks=2, sector_frames=14, payload_bytes=8_000, last_chunk=3, start_offset=9),
    reason=EndReason.SOURCE_ENDED,
    ledger=LEDGER,
)

MARKERS: dict[str, Marker] = {
    "mrk1_start": StartMarker(sector=0, ordinal=17, epoch=15, partition=2, geometry=GEOMETRY),
    "mrk1_resume": ResumeMarker(
        sector=3,
        ordinal=17,
        epoch=19,
        partition=1,
        geometry=GEOMETRY,
        published=PartitionPublished(chunks=1, sector_frames=8, payload_bytes=4_000, last_chunk=1, start_offset=5),
    ),
    "mrk1_end": END_MARKER,
}

EVENTS = Events(
    EventHeader(
        ordinal=17,
        count=22,
        count_name="live",
        geometry=GEOMETRY,
        chunk_index=3,
        payload_bytes=[4_000, None, 3_999, 4_001],
        epochs=[15, None, 15, 19],
    ),
    indices=np.array([0, 575, 331_775, 7, 8], np.uint32),
    offsets=np.array([0, 3, 3, 3, 5, 5, 5], np.int64),
    missing_sectors=np.array([0, 2, 15, 0, 0, 8], np.uint8),
)

COUNT_ENDS = {
    "evm1_end": CountEnd(
        ordinal=17,
        count=22,
        count_name="live",
        geometry=GEOMETRY,
        partition=0,
        ends=[None, END_MARKER, None, None],
    )
}

RECORDS: dict[str, LogRecord] = {
    "log1_receiver_started": ReceiverStarted(sectors=[0, 1], host="receiver-01", pid=4711, version="0.1.0"),
    "log1_scan_started": ScanStarted(
        session="2026-01-gold", number=12, geometry=GEOMETRY, sectors=[0, 1], epoch=15, feed="/data/scan 12 · Köln"
    ),
    "log1_scan_started_suppressed": ScanStarted(
        session="2026-01-gold",
        number=13,
        geometry=GEOMETRY,
        sectors=[2],
        epoch=15,
        feed="live",
        zero_suppression=ZeroSuppression(floor=27.5, dark="0123456789abcdef" * 4),
    ),
    "log1_sector_ended": SectorEnded(
        ordinal=17,
        sector=1,
        epoch=15,
        reason=EndReason.COMPLETE,
        ledger=LEDGER,
        first_offsets=[0, 1, 2**40],
        last_offsets=[5, 6, 2**40 + 7],
    ),
    "log1_count_started": CountStarted(
        ordinal=17, settings=CountSettings(background=28.5, xray=2000.0, engine="stempy"), version="0.1.0"
    ),
    "log1_count_started_auto": CountStarted(
        ordinal=17,
        name="again",
        settings=CountSettings(
            auto_threshold=AutoThreshold(samples=600, blocks=10, background_sigmas=4.25, xray_sigmas=150.0),
            dark="0123456789abcdef" * 4,
            gain="fedcba9876543210" * 4,
            row_dark="median",
            optimized_mean=12.5,
        ),
        version="0.2.0",
    ),
    "log1_reference_stored": ReferenceStored(sha256="0123456789abcdef" * 4, offset=3),
    "log1_thresholds_found": ThresholdsFound(
        ordinal=17,
        count=22,
        source="session",
        background=34.5,
        xray=2150.75,
        mean=12.25,
        std=12.125,
        optimized_mean=12.0,
        optimized_std=5.0,
        frames=1200,
        calibration=4,
        why="all pixels are 0",
    ),
    "log1_count_finished": CountFinished(
        ordinal=17,
        count=22,
        name="live",
        output="/out/2026-01-gold/scan_00012_17.h5",
        finished_ns=NOW_NS,
        account=Account(
            frames_expected=30,
            frames_complete=27,
            frames_incomplete=3,
            frames_written=27,
            electrons=8_100,
            raw_bytes=4 * LEDGER.raw_bytes,
            compressed_bytes=4 * LEDGER.payload_bytes,
            sectors=[SectorAccount(ledger=LEDGER, reason=EndReason.NEXT_SCAN, joined=27)] * 3 + [SectorAccount()],
        ),
    ),
    "log1_count_abandoned": CountAbandoned(ordinal=17, count=None, name="again", why="superseded by hand"),
    "log1_session_started": SessionStarted(name="2026-01-gold"),
    "log1_session_ended": SessionEnded(name="2026-01-gold"),
    "log1_scan_annotated": ScanAnnotated(ordinal=17, fields={"sample": "gold on carbon · Köln", "kV": ""}),
    "log1_close_requested": CloseRequested(ordinal=17),
}

DEAD_LETTER = (
    Origin(
        topic="raw.sector.2",
        partition=1,
        offset=99,
        service="counter",
        reason="hash does not fit: the message was damaged",
        size=2_000_000,
    ),
    b"chk1\x00\xff what was kept",
)


def encoded() -> dict[str, bytes]:
    """Name (without .bin) and bytes of every value, as today's encoders write it."""
    return (
        {name: chunk.encode(header, compress(pixels)) for name, (header, pixels) in CHUNKS.items()}
        | {
            name: chunk.encode(header, suppressed.compress(listed))
            for name, (header, listed) in SUPPRESSED_CHUNKS.items()
        }
        | {name: message.encode() for name, message in (MARKERS | COUNT_ENDS | RECORDS | CALIBRATIONS).items()}
        | {name: reference.encode(pixels) for name, pixels in REFERENCES.items()}
        | {"evt1_electrons": event.encode(EVENTS), "dlt1_chunk": dead_letter.encode(*DEAD_LETTER)}
    )


def golden(name: str) -> bytes:
    """The frozen bytes."""
    return (FOLDER / f"{name}.bin").read_bytes()
