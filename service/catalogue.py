"""The catalogue: what the records of the scan log, read in their order, say about scans, sectors and counts.

A pure fold: every reader of the log comes to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from topics.geometry import ScanGeometry
from topics.scan_log import (
    DEFAULT_SESSION,
    LIVE,
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
    SectorEnded,
    SessionEnded,
    SessionStarted,
    ThresholdsFound,
    ZeroSuppression,
)

State = Literal["running", "complete", "incomplete", "failed"]

# A scan all of whose stated sectors ended longer ago than this takes no further sector.
IDLE_TIMEOUT_MS = 10_000


@dataclass(slots=True)
class Count:
    """One counting of a scan; its identity is the offset of its ``count started``."""

    offset: int
    name: str
    settings: CountSettings
    found: ThresholdsFound | None = None  # with automatic thresholds
    finished: CountFinished | None = None
    abandoned: str | None = None

    @property
    def thresholds(self) -> tuple[float, float] | None:
        """Background and x-ray threshold; None while they are not found."""
        if self.found is not None:
            return self.found.background, self.found.xray
        if self.settings.background is None or self.settings.xray is None:
            return None
        return self.settings.background, self.settings.xray

    @property
    def optimized_mean(self) -> float | None:
        """What row-dark scales to, in counts: as the settings say, else as it was found."""
        if self.settings.row_dark is None or self.settings.optimized_mean is not None or self.found is None:
            return self.settings.optimized_mean
        return self.found.optimized_mean

    @property
    def running(self) -> bool:
        """Whether somebody still works on it."""
        return self.finished is None and self.abandoned is None

    @property
    def state(self) -> State:
        """Where the count stands."""
        if self.finished is not None:
            return self.finished.account.verdict
        return "failed" if self.abandoned is not None else "running"


@dataclass(slots=True)
class Scan:
    """A scan: its identity is the ordinal, ``session``/``number`` is a label that may come again."""

    ordinal: int
    session: str
    number: int
    feed: str
    geometry: ScanGeometry
    started_ms: int
    zero_suppression: ZeroSuppression | None = None
    stated: set[int] = field(default_factory=set)
    ended: dict[int, SectorEnded] = field(default_factory=dict)
    last_end_ms: int = 0
    counts: dict[str, Count] = field(default_factory=dict)
    abandoned: str | None = None  # before any count of it was started
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Where the scan stands: as its live count does."""
        count = self.counts.get(LIVE)
        if count is not None:
            return count.state
        return "failed" if self.abandoned is not None else "running"

    @property
    def files(self) -> list[str]:
        """Paths of the finished files."""
        return [count.finished.output for count in self.counts.values() if count.finished]

    def is_open(self, now_ms: int) -> bool:
        """Whether a further sector may still join."""
        return not self.stated <= set(self.ended) or now_ms - self.last_end_ms <= IDLE_TIMEOUT_MS


class Catalogue:
    """All scans that the log tells of, by ordinal, in the order in which they began."""

    def __init__(self) -> None:
        self.scans: dict[int, Scan] = {}
        self.epochs: dict[int, int] = {}  # newest writer epoch of each sector
        self.scan_of_statement: dict[int, int] = {}
        self.session = DEFAULT_SESSION  # the current one
        self.to_close: set[int] = set()  # ordinals of scans that somebody asked to close
        self.references: dict[str, int] = {}  # offset in the topic, by SHA-256
        self._counts: dict[int, Count] = {}

    def apply(self, offset: int, timestamp_ms: int, record: LogRecord) -> None:  # noqa: PLR0912  # one branch a kind
        """Take in the record at this offset. Records of a superseded receiver are void."""
        match record:
            case ReceiverStarted():
                self.epochs.update(dict.fromkeys(record.sectors, offset))
            case ScanStarted():
                if not self._superseded(record.sectors, record.epoch):
                    self._state(offset, timestamp_ms, record)
            case SectorEnded():
                scan = self.scans.get(record.ordinal)
                if scan and not self._superseded([record.sector], record.epoch) and record.sector not in scan.ended:
                    scan.ended[record.sector] = record
                    scan.last_end_ms = timestamp_ms
            case CountStarted():
                self._start_count(offset, record)
            case ReferenceStored():
                self.references.setdefault(record.sha256, record.offset)
            case ThresholdsFound():
                count = self._counts.get(record.count)
                if count and count.running and count.found is None and count.settings.auto_threshold:
                    count.found = record
            case CountFinished():
                count = self._counts.get(record.count)
                if count and count.running:
                    count.finished = record
            case CountAbandoned():
                self._abandon(record)
            case SessionStarted():
                self.session = record.name
            case SessionEnded():
                self.session = DEFAULT_SESSION
            case ScanAnnotated():
                self._annotate(record)
            case CloseRequested():
                self.to_close.add(record.ordinal)

    def find(self, name: str) -> Scan | None:
        """The scan that a person names: an ordinal, ``session/number`` (the newest of that label) or ``last``."""
        if name.isdecimal():
            return self.scans.get(int(name))
        newest_first = reversed(self.scans.values())
        return next((s for s in newest_first if name in ("last", f"{s.session}/{s.number}")), None)

    def last_thresholds(self, session: str, settings: CountSettings) -> ThresholdsFound | None:
        """The newest thresholds that were found from a scan of this session in the same way."""
        how = (settings.auto_threshold, settings.dark, settings.gain)
        found = [
            count.found
            for scan in self.scans.values()
            for count in scan.counts.values()
            if scan.session == session
            and count.found is not None
            and count.found.source == "calibration"
            and (count.settings.auto_threshold, count.settings.dark, count.settings.gain) == how
        ]
        return max(found, key=lambda record: record.count, default=None)

    def annotated(self, known: dict[int, dict[str, str]]) -> list[Scan]:
        """Finished scans whose annotations are not those already known, by ordinal."""
        return [s for s in self.scans.values() if s.files and s.annotations != known.get(s.ordinal, {})]

    def newest_of_sector(self, sector: int) -> Scan | None:
        """Return the newest scan that this sector stated."""
        return next((s for s in reversed(self.scans.values()) if sector in s.stated), None)

    def _superseded(self, sectors: list[int], epoch: int) -> bool:
        return any(epoch < self.epochs.get(sector, epoch) for sector in sectors)

    def _state(self, offset: int, timestamp_ms: int, record: ScanStarted) -> None:
        scan = self._joinable(timestamp_ms, record)
        if scan is None:
            scan = Scan(
                ordinal=offset,
                session=record.session,
                number=record.number,
                feed=record.feed,
                geometry=record.geometry,
                started_ms=timestamp_ms,
                zero_suppression=record.zero_suppression,
            )
            self.scans[offset] = scan
        scan.stated.update(record.sectors)
        self.scan_of_statement[offset] = scan.ordinal

    def _joinable(self, now_ms: int, record: ScanStarted) -> Scan | None:
        """Newest open scan of the label that none of the stated sectors has seen, and none later."""
        label = _label(record)
        for scan in reversed(self.scans.values()):
            if scan.stated & set(record.sectors):
                return None
            if _label(scan) == label:
                return scan if scan.is_open(now_ms) else None
        return None

    def _start_count(self, offset: int, record: CountStarted) -> None:
        scan = self.scans.get(record.ordinal)
        if scan is None or scan.abandoned:
            return
        first = scan.counts.get(record.name)
        if first is None or first.abandoned:
            count = Count(offset, record.name, record.settings)
            scan.counts[record.name] = self._counts[offset] = count

    def _annotate(self, record: ScanAnnotated) -> None:
        scan = self.scans.get(record.ordinal)
        if scan:
            merged = scan.annotations | record.fields
            scan.annotations = {name: text for name, text in merged.items() if text}

    def _abandon(self, record: CountAbandoned) -> None:
        count = self._counts.get(record.count) if record.count is not None else None
        scan = self.scans.get(record.ordinal)
        if count and count.running:
            count.abandoned = record.why
        elif record.count is None and scan and not scan.counts:
            scan.abandoned = record.why


def _label(scan: Scan | ScanStarted) -> tuple[object, ...]:
    """What the statements of a scan's sectors have in common."""
    return scan.session, scan.number, scan.feed, scan.geometry, scan.zero_suppression
