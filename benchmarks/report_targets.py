"""What performance was asked for, and what the results reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks.workloads import FILE_WAY, OURS, SOCKET_WAY, SUPPRESSED, TWO_COUNTERS

TARGET_EDGE = 64
USUAL_NOISE = 5
SUPPRESSED_TARGETS = {500: (20.0, 0.4, 100.0), 2000: (12.0, 0.6, 30.0)}  # electrons: speed, CPU, traffic
SAME_MEMORY = 1.2

Results = dict[str, Any]


class Target(NamedTuple):
    """``reached`` is to be at least, or else at most, ``wanted``."""

    what: str
    wanted: float
    at_least: bool
    reached: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted

    def cells(self) -> list[str]:
        sign = "at least" if self.at_least else "at most"
        reached = f"{self.reached:.2f}" if self.reached < 10 else f"{self.reached:.0f}"
        return [self.what, f"{sign} {self.wanted:g}{self.unit}", f"{reached}{self.unit}", "yes" if self.met else "no"]


def targets(results: Results) -> Iterator[Target]:
    """Those that these results say something about."""
    benchmarks = results["benchmarks"]
    for measured in benchmarks.get("end-to-end") or []:
        workload = measured["workload"]
        if (workload["edge"], workload["noise"]) == (TARGET_EDGE, USUAL_NOISE):
            yield from of_scan(workload["electrons"], measured["contenders"])
    if benchmarks.get("live"):
        yield from of_tail(benchmarks["live"]["tail"]["series"])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def speed_ratios(name: str, contenders: dict[str, Any]) -> tuple[float, float, float]:
    """Frames/s, times those of the file way's counting, of the file way, of the socket way."""
    ours, file_way = contenders[name]["frames_per_second"]["runs"], contenders[FILE_WAY]
    return (
        ratio(ours, file_way["stage_frames_per_second"]["count"]["runs"]),
        ratio(ours, file_way["frames_per_second"]["runs"]),
        ratio(ours, contenders[SOCKET_WAY]["frames_per_second"]["runs"]),
    )


def of_scan(electrons: int, contenders: dict[str, Any]) -> Iterator[Target]:
    have_peers = {FILE_WAY, SOCKET_WAY} <= set(contenders)
    if electrons in (100, 500):
        who = f"full frames, {electrons} electrons"
        if have_peers:
            counting, whole, socket = speed_ratios(OURS, contenders)
            yield Target(f"{who}: frames/s of the file way's counting step", 4, True, counting, " times")
            yield Target(f"{who}: frames/s of the file way as a whole", 5, True, whole, " times")
            yield Target(f"{who}: frames/s of the socket way", 3, True, socket, " times")
        yield Target(f"{who}: CPU seconds per raw GB", 2.0, False, total(contenders[OURS])["median"])
    if electrons in SUPPRESSED_TARGETS and SUPPRESSED in contenders:
        speed, used, traffic = SUPPRESSED_TARGETS[electrons]
        who = f"zero-suppressed, {electrons} electrons"
        if have_peers:
            reached = speed_ratios(SUPPRESSED, contenders)[0]
            yield Target(f"{who}: frames/s of the file way's counting step", speed, True, reached, " times")
        yield Target(f"{who}: CPU seconds per raw GB", used, False, total(contenders[SUPPRESSED])["median"])
        smaller = contenders[SUPPRESSED]["compression_ratio"]["median"]
        yield Target(f"{who}: traffic smaller than the pixels", traffic, True, smaller, " times")
    if TWO_COUNTERS in contenders:
        of_one = ratio(total(contenders[TWO_COUNTERS])["runs"], total(contenders[OURS])["runs"])
        yield Target("CPU of a scan with two counters, of that with one", 1.15, False, of_one, " times")


def total(figures: dict[str, Any]) -> dict[str, Any]:
    used: dict[str, Any] = figures["cpu_seconds_per_gb"]["total"]
    return used


def of_tail(series: list[dict[str, Any]]) -> Iterator[Target]:
    for each in series:
        latency, who = each["latency_seconds"], f"tail of {each['scans']} scans of {each['edge']}²"
        if each["edge"] == TARGET_EDGE:
            yield Target(f"{who}: 99th percentile", 1.5, False, latency["p99"], " s")
        yield Target(f"{who}: median", 0.5, False, latency["median"], " s")
    if len(series) > 1:
        for name in series[0]["peak_megabytes"]:
            peaks = [each["peak_megabytes"][name] for each in series]
            what = f"peak memory of {name}, largest of smallest over the scan sizes"
            yield Target(what, SAME_MEMORY, False, max(peaks) / min(peaks), " times")
