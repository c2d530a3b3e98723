"""The table of costs in results of ``make bench``: what each process took from raw files to the counted file.

The receiver of the live feed takes more than one that reads files: what it takes more at the one density that is
measured is added at all of them.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from service.errors import InputError
from stemstream.plan_costs import Codec, Measured, StageCosts, Tail
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH

# Their names in benchmarks/workloads.py.
CONTENDERS: Final[dict[str, Codec]] = {"stemstream": "full", "stemstream, zero-suppressed": "zero-suppressed"}
_USUAL_NOISE: Final = 5.0
_FRAME_GB: Final = FRAME_HEIGHT * FRAME_WIDTH * 2 / 1e9
_LEAST_COST: Final = 1e-3  # where idling takes as much as the work


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Spread(_Part):
    median: float
    max: float


class _Machine(_Part):
    date: str
    commit: str
    machine: str
    cores: int


class _Workload(_Part):
    electrons: float
    edge: int
    noise: float
    frames: int


class _Contender(_Part):
    seconds: _Spread
    latency_seconds: _Spread
    compression_ratio: _Spread
    cpu_seconds_per_gb: dict[str, _Spread]


class _StartUp(_Part):
    receiver_cpu_seconds: _Spread


class _Scan(_Part):
    workload: _Workload
    contenders: dict[str, Any]  # the peers are of another form
    start_up: _StartUp
    idle: dict[str, float]

    def ours(self) -> dict[Codec, _Contender]:
        there = {codec: self.contenders[name] for name, codec in CONTENDERS.items() if name in self.contenders}
        return {codec: _Contender.model_validate(figures) for codec, figures in there.items()}


class _Feed(_Part):
    electrons: float
    at_rate: _Contender


class _Latency(_Part):
    median: float
    p99: float


class _Series(_Part):
    latency_seconds: _Latency


class _Tail(_Part):
    series: list[_Series]


class _Live(_Part):
    tail: _Tail | None = None
    feed: _Feed | None = None
    suppressed_feed: _Feed | None = Field(None, alias="suppressed feed")


class _Benchmarks(_Part):
    end_to_end: list[_Scan] = Field([], alias="end-to-end")
    live: _Live = _Live()


class _Results(_Part):
    machine: _Machine
    benchmarks: _Benchmarks


def measured_by_benchmarks(text: bytes) -> Measured:
    """Read the results: of each density the largest scan with the usual noise.

    What processes take to start and while they idle is left out: services stay, and are busy.

    Raises
    ------
    pydantic.ValidationError
        They are of another form.
    InputError
        The end-to-end part is missing.
    """
    results = _Results.model_validate_json(text)
    machine, benchmarks = results.machine, results.benchmarks
    usual = [scan for scan in benchmarks.end_to_end if scan.workload.noise == _USUAL_NOISE]
    if not usual:
        raise InputError(f"the results have no end-to-end scans with {_USUAL_NOISE:g} counts of noise")
    largest = {scan.workload.electrons: scan for scan in sorted(usual, key=lambda scan: scan.workload.edge)}
    rows = [_stage_costs(codec, scan, used) for scan in largest.values() for codec, used in scan.ours().items()]
    feeds: dict[Codec, _Feed | None] = {
        "full": benchmarks.live.feed,
        "zero-suppressed": benchmarks.live.suppressed_feed,
    }
    return Measured(
        date=machine.date[:10],
        commit=machine.commit,
        machine=f"{machine.cores} cores of {machine.machine}",
        how=f"make bench with {_USUAL_NOISE:g} counts of noise; start-up and idling left out",
        tail=_tail(benchmarks, list(largest.values())),
        stages=tuple(_with_feed(row, rows, feeds[row.codec]) for row in rows),
    )


def _stage_costs(codec: Codec, scan: _Scan, used: _Contender) -> StageCosts:
    scan_gb = scan.workload.frames * _FRAME_GB
    fixed_s = {"receiver": scan.start_up.receiver_cpu_seconds.median}
    fixed_s |= {name: part * used.seconds.median for name, part in scan.idle.items()}

    def cost(service: str) -> float:
        figures = used.cpu_seconds_per_gb.items()
        work = [spread.median - fixed_s.get(name, 0.0) / scan_gb for name, spread in figures if _is_of(name, service)]
        return max(_LEAST_COST, sum(work))

    return StageCosts(
        codec=codec,
        electrons=scan.workload.electrons,
        traffic_ratio=used.compression_ratio.median,
        receiver=cost("receiver"),
        broker=cost("kafka"),
        counter=cost("counter"),
        sink=cost("sink"),
    )


def _with_feed(row: StageCosts, rows: list[StageCosts], feed: _Feed | None) -> StageCosts:
    """Add what the receiver of the live feed takes more than one of files."""
    of_files = [
        other.receiver for other in rows if feed and (other.codec, other.electrons) == (row.codec, feed.electrons)
    ]
    if feed is None or not of_files:
        return row
    figures = feed.at_rate.cpu_seconds_per_gb.items()
    live = sum(spread.median for name, spread in figures if _is_of(name, "receiver"))
    return row.model_copy(update={"receiver": row.receiver + max(0.0, live - of_files[0])})


def _tail(benchmarks: _Benchmarks, scans: list[_Scan]) -> Tail:
    """The worst of the series of live scans; without them, of the scans from files."""
    if benchmarks.live.tail is not None and benchmarks.live.tail.series:
        latencies = [series.latency_seconds for series in benchmarks.live.tail.series]
        return Tail(median_s=max(each.median for each in latencies), p99_s=max(each.p99 for each in latencies))
    spreads = [used.latency_seconds for scan in scans for used in scan.ours().values()]
    return Tail(median_s=max(each.median for each in spreads), p99_s=max(each.max for each in spreads))


def _is_of(process: str, service: str) -> bool:
    """Whether a process is one of a service: ``counter-1`` of ``counter``."""
    return process.split("-", maxsplit=1)[0] == service
