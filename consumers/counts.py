"""Which count a scan belongs to and with which settings: the scan log decides, for all counters alike."""

from __future__ import annotations

from service.catalogue import Count, Scan
from service.logs import get_logger
from service.scan_log import ScanLog
from service.version import VERSION
from topics.chunk import Chunk
from topics.errors import DecodeError
from topics.raw import RawMessage
from topics.scan_log import LIVE, CountSettings, CountStarted


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
        scan = self._scan(header.ordinal)
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
        scan = self._scan(ordinal)
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
        return count if count is not None and count.running else None

    def _scan(self, ordinal: int) -> Scan | None:
        if ordinal not in self._log.catalogue.scans:
            self._log.catch_up()
        return self._log.catalogue.scans.get(ordinal)

    def _start(self, scan: Scan) -> Count | None:
        self._log.append(CountStarted(ordinal=scan.ordinal, settings=self._settings, version=VERSION))
        self._log.catch_up()
        return scan.counts.get(LIVE)
