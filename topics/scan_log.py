"""The scan log (topic ``scans``, one partition): the only place where scans are ordered and described.

A record's offset is its identity: that of the first ``scan started`` is the scan's ordinal, that of
``receiver started`` the writer epoch, that of ``count started`` the count. How records make scans is in
:mod:`service.catalogue`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer, model_validator

from topics.geometry import SECTORS, ScanGeometry
from topics.json_message import Count, JsonMessage, Name, Offset, Sector, TimeNs, decode_json
from topics.marker import EndReason, Ledger

DEFAULT_SESSION = "default"
MAX_FIELDS = 32  # of an annotation
LIVE = "live"  # the name of the first count of a scan

FRAMES_A_BLOCK = 60  # so stempy's production values, 1200 samples of 20 blocks, are the first 1200 frames
MAX_SAMPLES = 1_200_000
MAX_SUPPRESSED_XRAY = 60_000  # with dark and without gain: beyond it values that wrap around could be seen

Counts = Annotated[float, Field(allow_inf_nan=False, description="counts")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=400)]
Sectors = Annotated[list[Sector], Field(min_length=1, max_length=SECTORS)]


class AutoThreshold(JsonMessage):
    """How thresholds are found from a scan's first frames; the defaults are those of stempy in production.

    ``samples`` frames, evenly spread, of the first ``blocks`` · :data:`FRAMES_A_BLOCK` of the scan.
    """

    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1200
    blocks: Annotated[int, Field(ge=1, le=MAX_SAMPLES // FRAMES_A_BLOCK)] = 20
    background_sigmas: Annotated[float, Field(gt=0, le=1e6, description="standard deviations of the noise")] = 4.5
    xray_sigmas: Annotated[float, Field(gt=0, le=1e6, description="standard deviations of all sampled pixels")] = 175.0


class CountSettings(JsonMessage):
    """How a scan is counted: every counter adopts these, whatever its own options say.

    Either both thresholds or ``auto_threshold``. ``dark`` and ``gain`` are the SHA-256 of references.
    """

    background: Counts | None = None
    xray: Counts | None = None
    auto_threshold: AutoThreshold | None = None
    engine: Literal["fast", "stempy"] = "fast"
    dark: Sha256 | None = None
    gain: Sha256 | None = None
    row_dark: Literal["mean", "median"] | None = None
    optimized_mean: Annotated[float, Field(gt=0, allow_inf_nan=False, description="counts")] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> CountSettings:
        if (self.background is None) != (self.xray is None):
            raise ValueError("one threshold without the other")
        if (self.background is None) == (self.auto_threshold is None):
            raise ValueError("either thresholds or auto_threshold")
        if self.row_dark is None and self.optimized_mean is not None:
            raise ValueError("optimized_mean without row_dark")
        if self.row_dark is not None and self.optimized_mean is None and self.auto_threshold is None:
            raise ValueError("row_dark without optimized_mean")
        return self

    @model_serializer(mode="wrap")
    def _what_is_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class SectorAccount(JsonMessage):
    """One sector of a scan: what its receiver published and what the counters joined, in sector frames."""

    ledger: Ledger | None = None  # None: the receiver's end never arrived
    reason: EndReason | None = None
    joined: Count = 0


class Account(JsonMessage):
    """The closed account of a count: sent = joined, per sector, and counted = written, per frame."""

    frames_expected: Count
    frames_complete: Count
    frames_incomplete: Count
    frames_written: Count
    electrons: Count
    raw_bytes: Count
    compressed_bytes: Count
    sectors: Annotated[list[SectorAccount], Field(min_length=SECTORS, max_length=SECTORS)]

    @property
    def balanced(self) -> bool:
        """Whether every published sector frame was joined and every complete frame written."""
        sent = all(s.ledger is not None and s.ledger.published == s.joined for s in self.sectors)
        return sent and self.frames_written == self.frames_complete

    @property
    def verdict(self) -> Literal["complete", "incomplete"]:
        """``complete``: all expected frames are there and the account balances."""
        return "complete" if self.frames_incomplete == 0 and self.balanced else "incomplete"


class _Record(JsonMessage):
    schema_id: Literal["log1"] = "log1"


class ReceiverStarted(_Record):
    """A receiver took over its sectors; the offset is its epoch."""

    kind: Literal["receiver started"] = "receiver started"
    sectors: Sectors
    host: Text
    pid: Count
    version: Text


class ZeroSuppression(JsonMessage):
    """Only pixels above a floor are sent; ``floor`` None: found from each sector's first frames, see the chunks.

    The floor is one after corrections: ``dark`` and ``gain`` are the SHA-256 of the references that scans suppressed
    with them have to be counted with.
    """

    floor: Annotated[float, Field(ge=0, le=65_535, description="counts")] | None = None
    dark: Sha256 | None = None
    gain: Sha256 | None = None


class ScanStarted(_Record):
    """A receiver's statement that its sectors begin a scan. ``feed`` names the source of one run of the detector."""

    kind: Literal["scan started"] = "scan started"
    session: Name
    number: Count
    geometry: ScanGeometry
    sectors: Sectors
    epoch: Offset
    feed: Text
    zero_suppression: Annotated[ZeroSuppression | None, Field(exclude_if=lambda value: value is None)] = None


class SectorEnded(_Record):
    """A sector's end, with the range of offsets [first, last] that it fills in each partition."""

    kind: Literal["sector ended"] = "sector ended"
    ordinal: Offset
    sector: Sector
    epoch: Offset
    reason: EndReason
    ledger: Ledger
    first_offsets: list[Offset]
    last_offsets: list[Offset]


class CountStarted(_Record):
    """The settings of a count; the first record for a scan and name holds."""

    kind: Literal["count started"] = "count started"
    ordinal: Offset
    name: Name = LIVE
    settings: CountSettings
    version: Text


class ReferenceStored(_Record):
    """A dark or gain reference lies at this offset of the topic ``references``; the first record for a hash holds."""

    kind: Literal["reference stored"] = "reference stored"
    sha256: Sha256
    offset: Offset


class ThresholdsFound(_Record):
    """The thresholds of a count with ``auto_threshold``; the first record for a count holds.

    ``source`` "calibration": found from ``frames`` frames of this scan; ``calibration`` is the offset of the histogram
    in the topic ``references``. "session": the last ones that were found in the session, and ``why``.
    """

    kind: Literal["thresholds found"] = "thresholds found"
    ordinal: Offset
    count: Offset
    source: Literal["calibration", "session"]
    background: Counts
    xray: Counts
    mean: Counts
    std: Counts
    optimized_mean: Counts
    optimized_std: Counts
    frames: Count
    calibration: Offset
    why: Text = ""


class CountFinished(_Record):
    """The file is there under its final name."""

    kind: Literal["count finished"] = "count finished"
    ordinal: Offset
    count: Offset
    name: Name
    output: Annotated[str, Field(max_length=4096)]
    finished_ns: TimeNs
    account: Account


class CountAbandoned(_Record):
    """Nobody will finish this count; its events are to be ignored. The raw data stay."""

    kind: Literal["count abandoned"] = "count abandoned"
    ordinal: Offset
    count: Offset | None  # None: the scan was never counted
    name: Name = LIVE
    why: Text


class SessionStarted(_Record):
    """Scans that begin from now on are filed under this session."""

    kind: Literal["session started"] = "session started"
    name: Name


class SessionEnded(_Record):
    """Scans that begin from now on are filed under the default session."""

    kind: Literal["session ended"] = "session ended"
    name: Name


class ScanAnnotated(_Record):
    """What a person says of a scan. A later value of a field replaces the earlier one; an empty one removes it."""

    kind: Literal["scan annotated"] = "scan annotated"
    ordinal: Offset
    fields: Annotated[dict[Name, Annotated[str, Field(max_length=400)]], Field(min_length=1, max_length=MAX_FIELDS)]


class CloseRequested(_Record):
    """Receivers are to end this scan now."""

    kind: Literal["close requested"] = "close requested"
    ordinal: Offset


LogRecord = (
    ReceiverStarted
    | ScanStarted
    | SectorEnded
    | CountStarted
    | ReferenceStored
    | ThresholdsFound
    | CountFinished
    | CountAbandoned
    | SessionStarted
    | SessionEnded
    | ScanAnnotated
    | CloseRequested
)
_ADAPTER: TypeAdapter[LogRecord] = TypeAdapter(Annotated[LogRecord, Field(discriminator="kind")])


def decode(message: bytes | None) -> LogRecord:
    """Decode a record.

    Raises
    ------
    DecodeError
        The bytes are no record of this version.
    """
    record: LogRecord = decode_json(_ADAPTER, message or b"", "scan log record")
    return record
