"""One count on its way into its file: takes event messages in any order of partitions, keeps the account."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from service.catalogue import Count, Scan
from service.counted_file import CountedFileWriter, Fields, publish_file
from service.version import VERSION
from topics.calibration import Calibration
from topics.errors import DecodeError
from topics.event import CountEnd, EventHeader, EventMessage, Events
from topics.geometry import SECTORS
from topics.marker import EndMarker
from topics.scan_log import LIVE, Account, CountFinished, SectorAccount


class ScanFile:
    """The file of one count, partial until all partitions have ended. OSError when the disk fails."""

    def __init__(self, scan: Scan, count: Count, output: Path, sink: str) -> None:
        self.first_offsets: dict[int, int] = {}  # of this count, per partition of the events topic
        self.frames_written = 0
        self.electrons = 0
        self._scan, self._count = scan, count
        self._folder = output / scan.session
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{_stem(scan, count)}.{sink}.partial"
        self._writer = CountedFileWriter(partial, scan.geometry)
        self._written = np.zeros(scan.geometry.chunks, bool)
        self._ends: dict[int, CountEnd] = {}
        self._codecs: set[str] = set()
        self._floor = -1.0

    def check(self, message: EventMessage, partition: int) -> None:
        """Check that a message fits the scan and lies in its partition.

        Raises
        ------
        DecodeError
            It does not.
        """
        fields = message if isinstance(message, CountEnd) else message.header
        if (fields.ordinal, fields.geometry) != (self._scan.ordinal, self._scan.geometry):
            raise DecodeError(f"scan {fields.ordinal}, {fields.geometry} is not that of count {self._count.offset}")
        expected = (
            fields.partition if isinstance(fields, CountEnd) else fields.geometry.partition_of(fields.chunk_index)
        )
        if not expected == partition < self._scan.geometry.partitions:
            raise DecodeError(
                f"a message of partition {expected} of {self._scan.geometry.partitions} lies in partition {partition}"
            )

    def add(self, events: Events) -> bool:
        """Write the events of a chunk; False if they were there already (the first ones stay)."""
        index = events.header.chunk_index
        if self._written[index]:
            return False
        first = index * self._scan.geometry.frames_per_chunk
        self._writer.write(first, events.indices, events.offsets, events.missing_sectors)
        self._written[index] = True
        self._note_codecs(events.header)
        self.frames_written += int(np.count_nonzero(events.missing_sectors == 0))
        self.electrons += len(events.indices)
        return True

    def _note_codecs(self, header: EventHeader) -> None:
        for epoch, floor in zip(header.epochs, header.floors or [None] * SECTORS, strict=True):
            if epoch is not None:
                self._codecs.add("full" if floor is None else "zero-suppressed")
                self._floor = max(self._floor, -1.0 if floor is None else floor)

    def end(self, end: CountEnd) -> bool:
        """Take in the end of a partition; whether all have ended."""
        self._ends.setdefault(end.partition, end)
        return len(self._ends) == self._scan.geometry.partitions

    @property
    def count_running(self) -> bool:
        """Whether the scan log still waits for this file."""
        return self._count.running

    @property
    def calibration(self) -> int | None:
        """Offset of the histogram that the thresholds were found from; None if they were given."""
        return self._count.found.calibration if self._count.found else None

    def finish(self, cluster_id: str, calibration: Calibration | None = None) -> CountFinished:
        """Complete the file, give it its final name, and say what is in it."""
        account = self._account()
        self._writer.close({**self._metadata(account, cluster_id), **self._thresholds(calibration)})
        output = publish_file(self._writer.path, self._folder / f"{_stem(self._scan, self._count)}.h5")
        return CountFinished(
            ordinal=self._scan.ordinal,
            count=self._count.offset,
            name=self._count.name,
            output=str(output.resolve()),
            finished_ns=time.time_ns(),
            account=account,
        )

    def discard(self) -> None:
        """Remove the partial file."""
        self._writer.discard()

    def _account(self) -> Account:
        missing = self._writer.missing_sectors
        complete = int(np.count_nonzero(missing == 0))
        sectors = [
            SectorAccount(
                ledger=end.ledger if end else None,
                reason=end.reason if end else None,
                joined=int(np.count_nonzero((missing >> sector) & 1 == 0)),
            )
            for sector, end in enumerate(self._sector_ends())
        ]
        return Account(
            frames_expected=self._scan.geometry.frames,
            frames_complete=complete,
            frames_incomplete=self._scan.geometry.frames - complete,
            frames_written=self.frames_written,
            electrons=self.electrons,
            raw_bytes=sum(s.ledger.raw_bytes for s in sectors if s.ledger),
            compressed_bytes=sum(s.ledger.payload_bytes for s in sectors if s.ledger),
            sectors=sectors,
        )

    def _sector_ends(self) -> list[EndMarker | None]:
        """One end marker a sector; they carry the same ledger in all partitions."""
        ends = self._ends.values()
        return [next((m for end in ends if (m := end.ends[sector]) is not None), None) for sector in range(SECTORS)]

    def _metadata(self, account: Account, cluster_id: str) -> Fields:
        return {
            "software": f"stemstream {VERSION}",
            "cluster_id": cluster_id,
            "session": self._scan.session,
            "number": self._scan.number,
            "ordinal": self._scan.ordinal,
            "count": self._count.offset,
            "count_name": self._count.name,
            "frames_per_position": self._scan.geometry.frames_per_position,
            "codec": " and ".join(sorted(self._codecs)),
            "verdict": account.verdict,
            "account": account.model_dump_json(),
            "settings": self._settings(),
            **({"floor": self._floor} if self._floor >= 0 else {}),
            "annotations": self._scan.annotations,
        }

    def _settings(self) -> Fields:
        """The settings with the thresholds that were applied, whether given or found."""
        assert self._count.thresholds is not None
        background, xray = self._count.thresholds
        settings = self._count.settings.model_dump() | {"background": background, "xray": xray}
        mean = self._count.optimized_mean
        return settings | ({"optimized_mean": mean} if mean is not None else {})

    def _thresholds(self, calibration: Calibration | None) -> Fields:
        """How thresholds were found, with the histogram and the Gaussian fitted to it."""
        found = self._count.found
        if found is None:
            return {}
        fields = found.model_dump(exclude={"schema_id", "kind", "ordinal", "count", "calibration"})
        if calibration is None:
            return {"thresholds": fields}
        histogram = np.array(calibration.histogram, np.int64)
        fit = {
            "calibrated_ordinal": calibration.ordinal,
            "amplitude": calibration.amplitude,
            "first_bin": calibration.first_bin,
            "histogram": histogram,
        }
        return {"thresholds": fields | fit}


def _stem(scan: Scan, count: Count) -> str:
    name = "" if count.name == LIVE else f"_{count.name}"
    return f"scan_{scan.number:05d}_{scan.ordinal}{name}"
