"""The table of costs in results of ``make bench``: what each process took from raw files to the counted file.

The receiver of the live feed takes more than one that reads files: what it takes more at the one density that is
measured is added at all of them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from service.errors import InputError
from stemstream.plan_costs import CODECS, Codec, Measured, StageCosts, Tail
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH

# Their names in benchmarks/workloads.py.
CONTENDERS: Final[dict[str, Codec]] = {"stemstream": "full", "stemstream, zero-suppressed": "zero-suppressed"}
_SERVICES: Final = {"receiver": "receiver", "broker": "kafka", "counter": "counter", "sink": "sink"}  # by stage
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

    What processes take to start, while they idle, and for a scan of whatever size is left out: services stay and are
    busy, and the camera's scans are a hundred times as large. The last of them is known of a codec with two sizes of
    scan of the same density, and taken to be the same at all densities.

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
    usual.sort(key=lambda scan: scan.workload.frames)
    runs = [_Run(codec, scan, used) for scan in usual for codec, used in scan.ours().items()]
    largest = {(run.codec, run.scan.workload.electrons): run for run in runs}
    fixed_s = {codec: _fixed_s([run for run in runs if run.codec == codec]) for codec in CODECS}
    rows = [run.costs(fixed_s[run.codec]) for run in largest.values()]
    feeds: dict[Codec, _Feed | None] = {
        "full": benchmarks.live.feed,
        "zero-suppressed": benchmarks.live.suppressed_feed,
    }
    return Measured(
        date=machine.date[:10],
        commit=machine.commit,
        machine=f"{machine.cores} cores of {machine.machine}",
        how=f"make bench with {_USUAL_NOISE:g} counts of noise; what does not grow with a scan is left out",
        tail=_tail(benchmarks, list(largest.values())),
        stages=tuple(_with_feed(row, rows, feeds[row.codec]) for row in rows),
    )


class _Run(NamedTuple):
    """A scan with one codec."""

    codec: Codec
    scan: _Scan
    used: _Contender

    @property
    def gb(self) -> float:
        return self.scan.workload.frames * _FRAME_GB

    def seconds(self) -> dict[str, float]:
        """CPU-seconds of the scan by stage, without start-up and idling."""
        return {stage: self._seconds_of(service) for stage, service in _SERVICES.items()}

    def _seconds_of(self, service: str) -> float:
        idle = sum(part for name, part in self.scan.idle.items() if _is_of(name, service))
        start_s = self.scan.start_up.receiver_cpu_seconds.median if service == "receiver" else 0.0
        return self.gb * _of_service(self.used, service) - start_s - idle * self.used.seconds.median

    def costs(self, fixed_s: dict[str, float]) -> StageCosts:
        stages = {
            stage: max(_LEAST_COST, (seconds - fixed_s[stage]) / self.gb) for stage, seconds in self.seconds().items()
        }
        ratio = self.used.compression_ratio.median
        return StageCosts(codec=self.codec, electrons=self.scan.workload.electrons, traffic_ratio=ratio, **stages)


def _fixed_s(runs: list[_Run]) -> dict[str, float]:
    """CPU-seconds of each stage for a scan of no size, from the smallest and the largest scan of one density."""
    for large in reversed(runs):
        for small in runs:
            if small.scan.workload.electrons == large.scan.workload.electrons and small.gb < large.gb:
                part = small.gb / (large.gb - small.gb)
                of_small, of_large = small.seconds(), large.seconds()
                return {name: max(0.0, of_small[name] - part * (of_large[name] - of_small[name])) for name in of_small}
    return dict.fromkeys(_SERVICES, 0.0)


def _with_feed(row: StageCosts, rows: list[StageCosts], feed: _Feed | None) -> StageCosts:
    """Add what the receiver of the live feed takes more than one of files."""
    of_files = [
        other.receiver for other in rows if feed and (other.codec, other.electrons) == (row.codec, feed.electrons)
    ]
    if feed is None or not of_files:
        return row
    more = max(0.0, _of_service(feed.at_rate, "receiver") - of_files[0])
    return row.model_copy(update={"receiver": row.receiver + more})


def _tail(benchmarks: _Benchmarks, runs: list[_Run]) -> Tail:
    """The worst of the series of live scans; without them, of the scans from files."""
    if benchmarks.live.tail is not None and benchmarks.live.tail.series:
        latencies = [series.latency_seconds for series in benchmarks.live.tail.series]
        return Tail(median_s=max(each.median for each in latencies), p99_s=max(each.p99 for each in latencies))
    spreads = [run.used.latency_seconds for run in runs]
    return Tail(median_s=max(each.median for each in spreads), p99_s=max(each.max for each in spreads))


def _of_service(used: _Contender, service: str) -> float:
    """CPU-seconds a GB of all processes of a service."""
    return sum(spread.median for name, spread in used.cpu_seconds_per_gb.items() if _is_of(name, service))


def _is_of(process: str, service: str) -> bool:
    """Whether a process is one of a service: ``counter-1`` of ``counter``."""
    return process.split("-", maxsplit=1)[0] == service
