"""Which count a scan belongs to and with which settings: the scan log decides, for all counters alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.catalogue import Count, Scan
from service.errors import FaultError
from service.logs import get_logger
from service.references import fetch_reference
from service.scan_log import ScanLog
from service.version import VERSION
from topics.chunk import Chunk
from topics.errors import DecodeError
from topics.raw import RawMessage
from topics.scan_log import (
    LIVE,
    MAX_SUPPRESSED_XRAY,
    CountAbandoned,
    CountSettings,
    CountStarted,
    ThresholdsFound,
)


class Counts:
    """The live counts, as the scan log has them. ``settings`` are proposed for scans that nobody counts yet."""

    def __init__(self, log: ScanLog, settings: CountSettings) -> None:
        self._log = log
        self._settings = settings
        self._log.catch_up()
        self._counts: dict[int, Count] = {}

    def check_place(self, message: RawMessage, sector: int, partition: int) -> None:
        """Check that a raw message lies where its header says, in a scan that the log knows.

        Raises
        ------
        DecodeError
            It does not.
        """
        header = message.header if isinstance(message, Chunk) else message
        if header.sector != sector:
            raise DecodeError(f"a message of sector {header.sector} lies in the topic of sector {sector}")
        scan = self.scan(header.ordinal)
        if scan is None:
            raise DecodeError(f"the scan log has no scan of ordinal {header.ordinal}")
        if header.geometry != scan.geometry:
            raise DecodeError(f"geometry {header.geometry} is not that of scan {header.ordinal}: {scan.geometry}")
        expected = (
            scan.geometry.partition_of(message.header.chunk_index) if isinstance(message, Chunk) else message.partition
        )
        if expected != partition:
            raise DecodeError(f"a message of partition {expected} lies in partition {partition}")

    def of_scan(self, ordinal: int) -> Count | None:
        """The live count of a scan; started with this counter's settings if there is none yet.

        None when it is finished or abandoned: there is nothing to count.
        """
        self._log.poll()
        scan = self.scan(ordinal)
        if scan is None or scan.abandoned:
            return None
        count = scan.counts.get(LIVE) or self._start(scan)
        if count is not None and count.offset not in self._counts:
            self._counts[count.offset] = count
            if count.settings != self._settings:
                get_logger().warning(
                    "the scan is counted with the settings of its log, not with mine",
                    ordinal=ordinal,
                    log=count.settings.model_dump(),
                    mine=self._settings.model_dump(),
                )
            why = cannot_count(scan, count.settings)
            if why and count.running:
                self.abandon(scan, count, why)
        return count if count is not None and count.running else None

    def abandon(self, scan: Scan, count: Count, why: str) -> None:
        """Say in the log that a scan cannot be counted so. Its raw data stay."""
        get_logger().error("the scan cannot be counted", ordinal=scan.ordinal, count=count.offset, reason=why)
        self.settle(CountAbandoned(ordinal=scan.ordinal, count=count.offset, name=count.name, why=why[:400]))

    def is_settled(self, ordinal: int) -> bool:
        """Whether a scan can be counted now, or never: False while its thresholds are not found."""
        count = self.of_scan(ordinal)
        return count is None or count.thresholds is not None

    def last_thresholds(self, scan: Scan, count: Count) -> ThresholdsFound | None:
        """The last thresholds that were found in the session of a scan with the settings of this count."""
        return self._log.catch_up().last_thresholds(scan.session, count.settings)

    def settle(self, outcome: ThresholdsFound | CountAbandoned) -> None:
        """Say in the log which thresholds were found, or that none were."""
        self._log.append(outcome)
        self._log.catch_up()

    def fetch_reference(self, sha256: str) -> NDArray[np.float32]:
        """Get the reference of a SHA-256; FaultError if nobody stored it."""
        offset = self._log.catch_up().references.get(sha256)
        if offset is None:
            raise FaultError(f"nobody stored the reference with the SHA-256 {sha256}: start a counter with its file")
        return fetch_reference(self._log.bootstrap, sha256, offset)

    def scan(self, ordinal: int) -> Scan | None:
        """A scan of the log; None if it has none of that ordinal."""
        if ordinal not in self._log.catalogue.scans:
            self._log.catch_up()
        return self._log.catalogue.scans.get(ordinal)

    def _start(self, scan: Scan) -> Count | None:
        self._log.append(CountStarted(ordinal=scan.ordinal, settings=self._settings, version=VERSION))
        self._log.catch_up()
        return scan.counts.get(LIVE)


def cannot_count(scan: Scan, settings: CountSettings) -> str | None:
    """Why a zero-suppressed scan cannot be counted with these settings exactly as its full frames; None if it can."""
    sent = scan.zero_suppression
    if sent is None:
        return None
    if settings.auto_threshold is not None or settings.row_dark is not None:
        what = "automatic thresholds need" if settings.auto_threshold is not None else "row-dark needs"
        return f"{what} full frames, and the scan is zero-suppressed"
    for kind, ours, theirs in (("dark", settings.dark, sent.dark), ("gain", settings.gain, sent.gain)):
        if ours != theirs:
            return f"the scan was zero-suppressed with the {kind} reference {theirs}, and is to be counted with {ours}"
    wraps = sent.dark is not None and sent.gain is None
    if wraps and settings.xray is not None and settings.xray > MAX_SUPPRESSED_XRAY:
        return f"zero-suppressed with dark and no gain, the x-ray threshold may be {MAX_SUPPRESSED_XRAY} at most"
    return below_floor(settings.background, sent.floor)


def below_floor(background: float | None, floor: float | None) -> str | None:
    """Why a background threshold does not do for a floor, both in counts; None if it does."""
    if background is None or floor is None or background >= floor:
        return None
    return f"the background threshold {background:g} is below the floor of zero suppression, {floor:g}"
