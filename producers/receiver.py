"""The receiver: one or more sectors of the detector become chunks in ``raw.sector.N``.

Its way through a scan, top to bottom: announce itself (the epoch), close or resume what an earlier receiver left,
state the scan, publish start markers, chunks, end markers, and say in the scan log how each sector ended.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass

from producers.chunker import Chunker
from producers.publisher import Interrupted, SectorPublisher
from producers.raw_files import RawFiles, open_raw_files
from producers.tail import PartitionTail, read_tails
from service.catalogue import Scan
from service.errors import InputError
from service.kafka import Producer, producer
from service.logs import get_logger
from service.metrics import Metrics
from service.process import CommonSettings, StopFlag, run_service
from service.scan_log import ScanLog
from service.topic_admin import deployment_partitions
from service.version import VERSION
from topics.geometry import MAX_FRAMES, ScanGeometry
from topics.marker import EndReason, Ledger
from topics.scan_log import ReceiverStarted, ScanStarted, SectorEnded

# About 1 MB a chunk after compression (docs/decisions/0004-chunk-size.md); constant for a scan.
FRAMES_PER_CHUNK = 16
LOG_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What a receiver is told. ``feed`` names one run of the source: a restart with the same one resumes its scan."""

    common: CommonSettings
    sectors: tuple[int, ...]
    source: list[str]
    session: str
    feed: str


def run_receiver(settings: ReceiverSettings) -> int:
    """Run the process; returns its exit code."""
    return run_service("receiver", settings.common, lambda metrics, stop: _receive(settings, metrics, stop))


def _receive(settings: ReceiverSettings, metrics: Metrics, stop: StopFlag) -> int:
    files = open_raw_files(settings.source)
    geometry = ScanGeometry(
        width=files.width,
        height=files.height,
        frames_per_position=files.frames_per_position,
        frames_per_chunk=FRAMES_PER_CHUNK,
        partitions=deployment_partitions(settings.common.bootstrap),
    )
    with ScanLog(settings.common.bootstrap) as log:
        receiver = _Receiver(settings, metrics, stop, log)
        try:
            receiver.announce()
            receiver.close_left_open()
            publishers = receiver.begin_scan(files.scan_number, geometry)
            metrics.health.set_ready(True)
            _send_scan(files, publishers, receiver)
        except Interrupted:
            get_logger().warning("stopped in the middle of a scan; a receiver with the same feed resumes it")
    return 0


def _send_scan(files: RawFiles, publishers: list[SectorPublisher], receiver: _Receiver) -> None:
    """Publish the scan, chunk by chunk, the sectors side by side so that they can be rejoined as they come."""
    if not publishers:
        return
    geometry = publishers[0].geometry
    chunkers = {p.sector: Chunker(geometry, reorder_window=0) for p in publishers}  # the files are read in order
    starts = [*range(0, geometry.frames, geometry.frames_per_chunk), geometry.frames]
    stops = [*starts[1:], MAX_FRAMES + 1]  # numbers past the scan are read too, to be refused and counted
    for start, end in zip(starts, stops, strict=True):
        for publisher in publishers:
            for frames in files.sector_frames(publisher.sector, start, end):
                receiver.count_received(publisher.sector, len(frames.frame_numbers))
                for filled in chunkers[publisher.sector].add(frames):
                    publisher.publish(filled)
        receiver.check()
    for publisher in publishers:
        for filled in chunkers[publisher.sector].finish():
            publisher.publish(filled)
    receiver.end_sectors({publisher: _counted(chunkers[publisher.sector]) for publisher in publishers})


def _counted(chunker: Chunker) -> Ledger:
    return Ledger(received=chunker.received, repeated=chunker.repeated, late=chunker.late, refused=chunker.refused)


class _Receiver:
    """The receiver's standing in the scan log: its epoch, the scans it may resume, the ends it reports."""

    def __init__(self, settings: ReceiverSettings, metrics: Metrics, stop: StopFlag, log: ScanLog) -> None:
        self._settings, self._metrics, self._stop, self._log = settings, metrics, stop, log
        self._producer: Producer = producer(settings.common.bootstrap)
        self._partitions = deployment_partitions(settings.common.bootstrap)
        self._epoch = -1
        self._next_check = 0.0
        self._received = metrics.counter("received_sector_frames", "Sector frames received", "sector")
        self._discarded = metrics.counter("discarded_sector_frames", "Sector frames not published", "sector", "reason")

    def announce(self) -> None:
        """Take over the sectors: the offset of this record is the epoch of all that is published from now on."""
        record = ReceiverStarted(
            sectors=list(self._settings.sectors), host=platform.node(), pid=os.getpid(), version=VERSION
        )
        self._epoch = self._log.append(record)
        self._log.catch_up()

    def close_left_open(self) -> None:
        """End the scans of another feed that an earlier receiver of these sectors left open."""
        for sector in self._settings.sectors:
            scan = self._log.catalogue.newest_of_sector(sector)
            if scan and sector not in scan.ended and scan.feed != self._settings.feed:
                get_logger().warning("closing a scan that was left open", ordinal=scan.ordinal, sector=sector)
                publisher = self._publisher(sector, scan.ordinal, scan.geometry)
                self._resume(publisher, scan)
                self.end_sectors({publisher: Ledger()}, EndReason.ABANDONED)

    def begin_scan(self, number: int, geometry: ScanGeometry) -> list[SectorPublisher]:
        """State the scan or find the one that this feed began; returns the publishers of the sectors not yet ended."""
        catalogue = self._log.catalogue
        begun = {s: catalogue.newest_of_sector(s) for s in self._settings.sectors}
        fresh = [s for s, scan in begun.items() if scan is None or scan.feed != self._settings.feed]
        publishers = []
        if fresh:
            ordinal = self._state(number, geometry, fresh)
            publishers += [self._publisher(s, ordinal, geometry) for s in fresh]
            for publisher in publishers:
                publisher.start()
        for sector, scan in begun.items():
            if scan and sector not in fresh and sector not in scan.ended:
                publisher = self._publisher(sector, scan.ordinal, scan.geometry)
                self._resume(publisher, scan)
                publishers.append(publisher)
        return publishers

    def end_sectors(self, sectors: dict[SectorPublisher, Ledger], reason: EndReason | None = None) -> None:
        """End sectors in their topics, side by side, and then in the scan log.

        The ledgers have what the receiver counted besides what was published. Without a reason it is COMPLETE where
        all frames were published, else SOURCE_ENDED.
        """
        ended = [(p, *self._end_in_topic(p, counted, reason)) for p, counted in sectors.items()]
        for publisher, ended_by, ledger in ended:
            publisher.wait_until_acknowledged()
            record = SectorEnded(
                ordinal=publisher.ordinal,
                sector=publisher.sector,
                epoch=self._epoch,
                reason=ended_by,
                ledger=ledger,
                first_offsets=publisher.first_offsets,
                last_offsets=publisher.last_offsets,
            )
            self._log.append(record)
            get_logger().info("sector ended", **record.model_dump(exclude={"kind", "schema_id"}))

    def _end_in_topic(
        self, publisher: SectorPublisher, counted: Ledger, reason: EndReason | None
    ) -> tuple[EndReason, Ledger]:
        for name in ("repeated", "late", "refused"):
            self._discarded.labels(publisher.sector, name).inc(getattr(counted, name))
        complete = publisher.ledger(counted).published == publisher.geometry.frames
        ended_by = reason or (EndReason.COMPLETE if complete else EndReason.SOURCE_ENDED)
        return ended_by, publisher.end(ended_by, counted)

    def count_received(self, sector: int, sector_frames: int) -> None:
        """Count sector frames that came from the source."""
        self._received.labels(sector).inc(sector_frames)

    def check(self) -> None:
        """Between chunks: stop if asked to, or if a newer receiver serves a sector of this one."""
        self._metrics.health.beat()
        if self._stop:
            raise Interrupted
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + LOG_CHECK_INTERVAL_S
        self._log.poll()
        for sector in self._settings.sectors:
            if self._log.catalogue.epochs.get(sector, self._epoch) > self._epoch:
                raise InputError(f"another receiver serves sector {sector} since; this one ends")

    def _state(self, number: int, geometry: ScanGeometry, sectors: list[int]) -> int:
        offset = self._log.append(
            ScanStarted(
                session=self._settings.session,
                number=number,
                geometry=geometry,
                sectors=sectors,
                epoch=self._epoch,
                feed=self._settings.feed,
            )
        )
        ordinal = self._log.catch_up().scan_of_statement.get(offset)
        if ordinal is None:
            raise InputError("another receiver took over a sector of this one; this one ends")
        get_logger().info("scan started", ordinal=ordinal, number=number, sectors=sectors, **geometry.model_dump())
        return ordinal

    def _publisher(self, sector: int, ordinal: int, geometry: ScanGeometry) -> SectorPublisher:
        return SectorPublisher(
            self._producer,
            self._metrics,
            self._stop,
            sector=sector,
            ordinal=ordinal,
            epoch=self._epoch,
            geometry=geometry,
        )

    def _resume(self, publisher: SectorPublisher, scan: Scan) -> None:
        tails: list[PartitionTail] = read_tails(self._settings.common.bootstrap, publisher.sector, self._partitions)
        publisher.resume(tails, scan.started_ms * 1_000_000)
        get_logger().info("scan resumed", ordinal=scan.ordinal, sector=publisher.sector)
