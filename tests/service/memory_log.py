"""A scan log in memory."""

from __future__ import annotations

from typing import Any

from service.catalogue import Catalogue, Scan
from tests.golden.values import RECORDS
from topics.geometry import ScanGeometry
from topics.marker import EndReason, Ledger
from topics.scan_log import (
    CountAbandoned,
    CountFinished,
    CountSettings,
    CountStarted,
    LogRecord,
    ReceiverStarted,
    ScanStarted,
    SectorEnded,
)

GEOMETRY = ScanGeometry(width=4, height=3, frames_per_chunk=16, partitions=2)
ACCOUNT = RECORDS["log1_count_finished"].account  # type: ignore[union-attr]
SETTINGS = CountSettings(background=28, xray=2000)


class Log:
    """A scan log in memory: writes records as services do, keeps a catalogue of it."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, LogRecord]] = []
        self.catalogue = Catalogue()
        self.now_ms = 1_000_000

    def append(self, record: LogRecord) -> int:
        offset = 10 + 2 * len(self.records)  # offsets have gaps
        self.records.append((offset, self.now_ms, record))
        self.catalogue.apply(offset, self.now_ms, record)
        return offset

    def catch_up(self) -> Catalogue:
        return self.catalogue

    def poll(self) -> bool:
        return False

    def receiver(self, *sectors: int) -> int:
        return self.append(ReceiverStarted(sectors=list(sectors), host="h", pid=1, version="1"))

    def state(self, epoch: int, *sectors: int, **changes: Any) -> int | None:  # noqa: ANN401
        """State a scan; gives the ordinal of the scan that the statement begins or joins, None if it is void."""
        fields = {"session": "default", "number": 1, "geometry": GEOMETRY, "feed": "a"} | changes
        offset = self.append(ScanStarted(sectors=list(sectors), epoch=epoch, **fields))
        return self.catalogue.scan_of_statement.get(offset)

    def end(self, epoch: int, ordinal: int | None, sector: int, reason: EndReason = EndReason.COMPLETE) -> int:
        assert ordinal is not None
        return self.append(
            SectorEnded(
                ordinal=ordinal,
                sector=sector,
                epoch=epoch,
                reason=reason,
                ledger=Ledger(),
                first_offsets=[],
                last_offsets=[],
            )
        )

    def start_count(self, ordinal: int, name: str = "live", background: float = 28) -> int:
        settings = CountSettings(background=background, xray=2000)
        return self.append(CountStarted(ordinal=ordinal, name=name, settings=settings, version="1"))

    def finish_count(self, ordinal: int, count: int, output: str = "/out/a.h5") -> None:
        self.append(
            CountFinished(ordinal=ordinal, count=count, name="live", output=output, finished_ns=1, account=ACCOUNT)
        )

    def abandon_count(self, ordinal: int, count: int | None, why: str = "why") -> None:
        self.append(CountAbandoned(ordinal=ordinal, count=count, why=why))

    @property
    def scans(self) -> dict[int, Scan]:
        return self.catalogue.scans
