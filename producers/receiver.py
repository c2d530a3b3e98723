"""The receiver: one or more sectors of the detector become chunks in ``raw.sector.N``.

Its way through a scan: announce itself (the epoch), close or resume what an earlier receiver left, state the scan,
publish start markers, chunks, end markers, and say in the scan log how each sector ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from dataclasses import dataclass, field
from pathlib import Path

from producers.chunker import Chunker, FilledChunk
from producers.growing_files import GrowingFiles
from producers.live_feed import FRAMES_AT_ONCE, FrameSource, open_live_feed
from producers.live_sector import LiveOptions, LiveScan, LiveSector
from producers.publisher import Interrupted, SectorPublisher
from producers.raw_files import RawFiles, open_raw_files
from producers.scan_shape import ScanShape
from producers.standing import FRAMES_PER_CHUNK, Standing
from producers.suppression import SuppressionSettings
from service.logs import get_logger
from service.metrics import Metrics
from service.process import CommonSettings, StopFlag, run_service
from service.references import store_reference
from service.scan_log import ScanLog
from topics.geometry import MAX_FRAMES, SECTOR_FRAME_BYTES, ScanGeometry
from topics.marker import EndReason, Ledger

LIVE_FEED = "live"
TAKE_TIMEOUT_S = 0.05


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What a receiver is told.

    ``source`` names raw files; with ``addresses``, one a sector, or ``follow`` it is a live feed instead. ``feed``
    names one run of the source: a restart with the same one resumes its scan.
    """

    common: CommonSettings
    sectors: tuple[int, ...]
    source: list[str]
    session: str | None
    feed: str
    addresses: dict[int, str] = field(default_factory=dict)
    follow: Path | None = None  # folder of raw files that are still being written
    ready_address: str | None = None
    tee: dict[int, str] = field(default_factory=dict)  # where the live feed is passed on to, an address a sector
    buffer_bytes: int = 2**29
    live: LiveOptions = field(default_factory=LiveOptions)
    suppression: SuppressionSettings | None = None


def run_receiver(settings: ReceiverSettings) -> int:
    """Run the process; returns its exit code."""
    return run_service("receiver", settings.common, lambda metrics, stop: _receive(settings, metrics, stop))


def _receive(settings: ReceiverSettings, metrics: Metrics, stop: StopFlag) -> int:
    files = None if settings.addresses or settings.follow else open_raw_files(settings.source)
    if settings.suppression is not None:
        from producers.suppressor import check_suppression  # noqa: PLC0415  # numba, which full chunks do without

        check_suppression(settings.suppression)
    with ScanLog(settings.common.bootstrap) as log:
        standing = Standing(
            settings.common.bootstrap,
            settings.sectors,
            settings.session,
            settings.feed,
            metrics=metrics,
            stop=stop,
            log=log,
            suppression=settings.suppression,
        )
        for pixels in settings.suppression.references if settings.suppression else ():
            store_reference(log, pixels)  # what later counts need is there
        try:
            if files is not None:
                _receive_files(files, standing, metrics)
            else:
                _receive_live(settings, standing, metrics, stop)
        except Interrupted:
            get_logger().warning("stopped in the middle of a scan; a receiver with the same feed resumes it")
    return 0


# Raw files: one scan.


def _receive_files(files: RawFiles, standing: Standing, metrics: Metrics) -> None:
    """Publish the scan, chunk by chunk, the sectors side by side so that they can be rejoined as they come."""
    received = metrics.counter("received_sector_frames", "Sector frames received", "sector")
    geometry = ScanGeometry(
        width=files.width,
        height=files.height,
        frames_per_position=files.frames_per_position,
        frames_per_chunk=FRAMES_PER_CHUNK,
        partitions=standing.partitions,
    )
    standing.announce()
    standing.close_left_open()
    publishers = standing.begin_scan(files.scan_number, geometry)
    metrics.health.set_ready(True)
    if not publishers:
        return
    geometry = publishers[0].geometry
    chunkers = {p.sector: Chunker(geometry, reorder_window=0) for p in publishers}  # the files are read in order
    starts = [*range(0, geometry.frames, geometry.frames_per_chunk), geometry.frames]
    stops = [*starts[1:], MAX_FRAMES + 1]  # numbers past the scan are read too, to be refused and counted
    for start, end in zip(starts, stops, strict=True):
        for publisher in publishers:
            for frames in files.sector_frames(publisher.sector, start, end):
                received.labels(publisher.sector).inc(len(frames.frame_numbers))
                for filled in chunkers[publisher.sector].add(frames):
                    publisher.publish(filled)
        standing.check()
    for publisher in publishers:
        for filled in chunkers[publisher.sector].finish():
            publisher.publish(filled)
    standing.end_sectors({publisher: _counted(chunkers[publisher.sector]) for publisher in publishers})
    standing.settle(wait=True)


def _counted(chunker: Chunker) -> Ledger:
    return Ledger(received=chunker.received, repeated=chunker.repeated, late=chunker.late, refused=chunker.refused)


# The live feed: one scan after the other, until asked to stop.


def _receive_live(settings: ReceiverSettings, standing: Standing, metrics: Metrics, stop: StopFlag) -> None:
    # Half of the memory is for frames that wait, half for chunks that wait for frames which come late.
    half = settings.buffer_bytes // 2
    window = half // len(settings.sectors) // SECTOR_FRAME_BYTES
    options = dataclasses.replace(settings.live, reorder_window=window)
    standing.announce()
    standing.close_left_open()
    with _open_source(settings, standing, half, metrics) as feed:
        sectors = {
            sector: LiveSector(
                options,
                functools.partial(_begin, standing, sector),
                feed.release,
                functools.partial(feed.take_lost, sector),
                functools.partial(standing.discard, sector),
            )
            for sector in settings.sectors
        }
        for number, publisher in standing.resume_live():
            sectors[publisher.sector].resume(number, _Outgoing(publisher, standing), time.monotonic())
        feed.ready = True
        metrics.health.set_ready(True)
        while not stop:
            frames = feed.take(TAKE_TIMEOUT_S)
            now = time.monotonic()  # of the whole round: time that passes while the broker takes nothing is no silence
            for frame in frames:
                sectors[frame.sector].take(frame, now)
            for sector in sectors.values():
                if len(frames) < FRAMES_AT_ONCE:
                    sector.tick(now)
                if sector.ordinal in standing.closed_by_hand():
                    sector.end(EndReason.CLOSED, now)
            standing.settle()
            standing.watch_log()
        metrics.health.set_ready(False, "stopping")
        for frame in feed.stop():
            sectors[frame.sector].take(frame, time.monotonic())
        for sector in sectors.values():
            sector.flush()
        standing.wait_until_acknowledged()


def _open_source(
    settings: ReceiverSettings, standing: Standing, buffer_bytes: int, metrics: Metrics
) -> contextlib.AbstractContextManager[FrameSource]:
    if settings.follow is not None:
        settled_s, ended, opened = settings.live.idle_timeout_s, standing.ended_numbers(), standing.open_numbers()
        return contextlib.nullcontext(
            GrowingFiles(settings.follow, settings.sectors, settled_s, ended, metrics, still_open=opened)
        )
    return open_live_feed(settings.addresses, settings.ready_address, settings.tee, buffer_bytes, metrics)


class _Outgoing(LiveScan):
    """One sector of a live scan on its way to Kafka."""

    def __init__(self, publisher: SectorPublisher, standing: Standing) -> None:
        self.geometry, self.ordinal = publisher.geometry, publisher.ordinal
        self._publisher, self._standing = publisher, standing

    def publish(self, filled: FilledChunk) -> None:
        self._publisher.publish(filled)

    def is_published(self, chunk_index: int) -> bool:
        return self._publisher.is_published(chunk_index)

    def end(self, reason: EndReason, counted: Ledger) -> None:
        self._standing.end_sectors({self._publisher: counted}, reason)


def _begin(standing: Standing, sector: int, number: int, shape: ScanShape) -> LiveScan:
    return _Outgoing(standing.begin_live(sector, number, shape), standing)
