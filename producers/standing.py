"""A receiver's standing in the scan log: its epoch, the scans it states or resumes, the ends it reports."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

from producers.publisher import FLUSH_TIMEOUT_S, Interrupted, SectorPublisher
from producers.scan_shape import ScanShape
from producers.suppression import SuppressionSettings
from producers.tail import PartitionTail, read_tails
from service.catalogue import Scan
from service.errors import InputError
from service.kafka import Producer, producer
from service.logs import get_logger
from service.metrics import Metrics
from service.process import StopFlag
from service.scan_log import ScanLog
from service.topic_admin import deployment_partitions
from service.version import VERSION
from topics.geometry import ScanGeometry
from topics.marker import EndReason, Ledger
from topics.scan_log import ReceiverStarted, ScanStarted, SectorEnded

if TYPE_CHECKING:
    from producers.suppressor import Suppressor

# About 1 MB a chunk after compression (docs/decisions/0004-chunk-size.md); constant for a scan.
FRAMES_PER_CHUNK = 16
LOG_CHECK_INTERVAL_S = 1.0


class Standing:
    """What one receiver process says and reads in the scan log. ``feed`` names its source, see ScanStarted.

    ``session`` None: scans are filed under the session that is current when they begin.
    """

    def __init__(
        self,
        bootstrap: str,
        sectors: tuple[int, ...],
        session: str | None,
        feed: str,
        *,
        metrics: Metrics,
        stop: StopFlag,
        log: ScanLog,
        suppression: SuppressionSettings | None = None,
    ) -> None:
        self.partitions = deployment_partitions(bootstrap)
        self._bootstrap, self._sectors, self._session, self._feed = bootstrap, sectors, session, feed
        self._metrics, self._stop, self._log = metrics, stop, log
        self._producer: Producer = producer(bootstrap, "receiver")
        self._suppression = suppression
        self._epoch = -1
        self._ending: list[tuple[SectorPublisher, EndReason, Ledger]] = []
        self._next_check = 0.0
        self._discarded = metrics.counter("discarded_sector_frames", "Sector frames not published", "sector", "reason")

    def announce(self) -> None:
        """Take over the sectors: the offset of this record is the epoch of all that is published from now on."""
        record = ReceiverStarted(sectors=list(self._sectors), host=platform.node(), pid=os.getpid(), version=VERSION)
        self._epoch = self._log.append(record)
        self._log.catch_up()

    def close_left_open(self) -> None:
        """End the scans of another feed that an earlier receiver of these sectors left open."""
        for sector in self._sectors:
            scan = self._log.catalogue.newest_of_sector(sector)
            if scan and sector not in scan.ended and scan.feed != self._feed:
                get_logger().warning("closing a scan that was left open", ordinal=scan.ordinal, sector=sector)
                publisher = self._publisher(sector, scan.ordinal, scan.geometry)
                self._resume(publisher, scan)
                self.end_sectors({publisher: Ledger()}, EndReason.ABANDONED)
        self.settle(wait=True)

    def begin_scan(self, number: int, geometry: ScanGeometry) -> list[SectorPublisher]:
        """State the scan or find the one that this feed began; returns the publishers of the sectors not yet ended."""
        catalogue = self._log.catalogue
        begun = {s: catalogue.newest_of_sector(s) for s in self._sectors}
        fresh = [s for s, scan in begun.items() if scan is None or scan.feed != self._feed]
        publishers = []
        if fresh:
            ordinal = self._state(number, geometry, fresh, self._session or self._log.catalogue.session)
            publishers += [self._publisher(s, ordinal, geometry) for s in fresh]
            for publisher in publishers:
                publisher.start()
        for sector, scan in begun.items():
            if scan and sector not in fresh and sector not in scan.ended:
                publisher = self._publisher(sector, scan.ordinal, scan.geometry)
                self._resume(publisher, scan)
                publishers.append(publisher)
        for publisher in publishers:
            publisher.wait_until_acknowledged()
        return publishers

    def begin_live(self, sector: int, number: int, shape: ScanShape) -> SectorPublisher:
        """State a live scan of one sector, in the geometry and session that another sector of it stated before."""
        self._log.poll()
        geometry = ScanGeometry(
            width=shape.width,
            height=shape.height,
            frames_per_position=shape.frames_per_position,
            frames_per_chunk=FRAMES_PER_CHUNK,
            partitions=self.partitions,
        )
        session = self._session or self._log.catalogue.session
        newest = next(reversed(self._log.catalogue.scans.values()), None)
        if newest and self._may_join(newest, sector, number, shape):
            geometry, session = newest.geometry, newest.session
        publisher = self._publisher(sector, self._state(number, geometry, [sector], session), geometry)
        publisher.start()
        return publisher

    def _may_join(self, scan: Scan, sector: int, number: int, shape: ScanShape) -> bool:
        """Whether a scan of this sector is the one that another sector stated; a session may have begun meanwhile."""
        same_size = (scan.geometry.width, scan.geometry.height) == (shape.width, shape.height)
        same_scan = (scan.number, scan.feed) == (number, self._feed) and sector not in scan.stated
        return same_scan and same_size and scan.is_open(time.time_ns() // 1_000_000)

    def resume_live(self) -> list[tuple[int, SectorPublisher]]:
        """Take up the scans of this feed that an earlier receiver left open; their numbers and publishers."""
        resumed = []
        for sector in self._sectors:
            scan = self._log.catalogue.newest_of_sector(sector)
            if scan and scan.feed == self._feed and sector not in scan.ended:
                publisher = self._publisher(sector, scan.ordinal, scan.geometry)
                self._resume(publisher, scan)
                resumed.append((scan.number, publisher))
        return resumed

    def closed_by_hand(self) -> set[int]:
        """Ordinals of the scans that somebody asked to close."""
        return self._log.catalogue.to_close

    def end_sectors(self, sectors: dict[SectorPublisher, Ledger], reason: EndReason | None = None) -> None:
        """End sectors in their topics; :meth:`settle` says so in the scan log once the broker has all of it.

        The ledgers have what the receiver counted besides what was published. Without a reason it is COMPLETE where
        all frames were published, else SOURCE_ENDED.
        """
        for publisher, counted in sectors.items():
            for name in ("repeated", "late", "refused"):
                self._discarded.labels(publisher.sector, name).inc(getattr(counted, name))
            complete = publisher.ledger(counted).published == publisher.geometry.frames
            ended_by = reason or (EndReason.COMPLETE if complete else EndReason.SOURCE_ENDED)
            self._ending.append((publisher, ended_by, publisher.end(ended_by, counted)))

    def settle(self, *, wait: bool = False) -> None:
        """Report the sectors that ended and are acknowledged in the scan log, or wait until all are."""
        self._producer.poll(0)
        while self._ending and (wait or self._ending[0][0].acknowledged):
            publisher, reason, ledger = self._ending[0]
            publisher.wait_until_acknowledged()
            record = SectorEnded(
                ordinal=publisher.ordinal,
                sector=publisher.sector,
                epoch=self._epoch,
                reason=reason,
                ledger=ledger,
                first_offsets=publisher.first_offsets,
                last_offsets=publisher.last_offsets,
            )
            self._log.append_later(record)
            del self._ending[0]
            get_logger().info("sector ended", **record.model_dump(exclude={"kind", "schema_id"}))
        if wait:
            self._log.flush()

    def discard(self, sector: int, reason: str, sector_frames: int) -> None:
        """Count sector frames that came after the end of their scan."""
        self._discarded.labels(sector, reason).inc(sector_frames)
        get_logger().warning("frames after the end of their scan", sector=sector, reason=reason, count=sector_frames)

    def ended_numbers(self) -> dict[int, int]:
        """When the scans of this feed ended last, Unix time in ms, by the camera's number."""
        scans = self._log.catalogue.scans.values()
        return {scan.number: scan.last_end_ms for scan in scans if scan.feed == self._feed and scan.ended}

    def open_numbers(self) -> set[int]:
        """Numbers of the scans of this feed that one of these sectors has not ended."""
        newest = [self._log.catalogue.newest_of_sector(sector) for sector in self._sectors]
        unended = [scan for scan in newest if scan and scan.feed == self._feed and not scan.stated <= set(scan.ended)]
        return {scan.number for scan in unended}

    def check(self) -> None:
        """Between chunks: :class:`Interrupted` if asked to stop; see :meth:`watch_log`."""
        if self._stop:
            raise Interrupted
        self.watch_log()

    def watch_log(self) -> None:
        """Once a second, see what is new in the scan log; InputError if a newer receiver serves one of the sectors."""
        self._metrics.health.beat()
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + LOG_CHECK_INTERVAL_S
        self._log.poll()
        for sector in self._sectors:
            if self._log.catalogue.epochs.get(sector, self._epoch) > self._epoch:
                raise InputError(f"another receiver serves sector {sector} since; this one ends")

    def wait_until_acknowledged(self) -> None:
        """Wait until the broker has all that was published; :class:`Interrupted` if it does not answer."""
        if self._producer.flush(FLUSH_TIMEOUT_S):
            raise Interrupted
        self.settle(wait=True)

    def _state(self, number: int, geometry: ScanGeometry, sectors: list[int], session: str) -> int:
        stated = self._suppression.stated if self._suppression else None
        newest = next(reversed(self._log.catalogue.scans.values()), None)
        if newest and (newest.number, newest.feed) == (number, self._feed) and newest.zero_suppression != stated:
            get_logger().error("another sector's receiver has another zero suppression: they make no common scan")
        offset = self._log.append(
            ScanStarted(
                session=session,
                number=number,
                geometry=geometry,
                sectors=sectors,
                epoch=self._epoch,
                feed=self._feed,
                zero_suppression=stated,
            )
        )
        self._log.read_to(offset)
        ordinal = self._log.catalogue.scan_of_statement.get(offset)
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
            suppressor=self._suppressor(sector, ordinal),
            keep_full=self._suppression.keep_full if self._suppression else 0,
        )

    def _suppressor(self, sector: int, ordinal: int) -> Suppressor | None:
        """A new one for each scan: an automatic floor is found again. A resumed scan is sent as it was stated, or in
        full: that is always exact.
        """  # noqa: D205
        scan = self._log.catalogue.scans.get(ordinal)
        stated = scan.zero_suppression if scan else None
        if self._suppression is None or self._suppression.stated != stated:
            if stated is not None:
                get_logger().warning("the scan was stated with another zero suppression, it is sent in full from here")
            return None
        from producers.suppressor import Suppressor  # noqa: PLC0415  # numba, which full chunks do without

        return Suppressor(sector, self._suppression)

    def _resume(self, publisher: SectorPublisher, scan: Scan) -> None:
        tails: list[PartitionTail] = read_tails(self._bootstrap, publisher.sector, self.partitions)
        publisher.resume(tails, scan.started_ms * 1_000_000)
        get_logger().info("scan resumed", ordinal=scan.ordinal, sector=publisher.sector)
