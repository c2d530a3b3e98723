"""How long after the last frame the file is there: scans of the live feed at half of the highest rate.

From the time at which the receiver handed the last chunk to Kafka (its ledger) to that at which the file had its final
name (the scan log). ``stemstream simulate --rate`` sends; the scans follow one another on the same services.
"""

from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.accounting import CpuMeter, forget_peaks, peak_megabytes
from benchmarks.command_line import CommandError
from benchmarks.context import Context
from benchmarks.raw_scans import FRAME_BYTES
from benchmarks.spread import quantile, spread
from benchmarks.system import Finished, System
from benchmarks.workloads import Series
from topics.registry import RAW_TOPICS

POOL = 32  # different frames: the simulator must not take the processor from what is measured
KEPT_GIGABYTES = 20.0  # of pixels in the topics; beyond it they are deleted after each scan


def measure_tail(context: Context, system: System, rate: float) -> dict[str, Any]:
    """Measure each series of the plan on services that are up."""
    return {"rate": rate, "series": [measure_series(context, system, each, rate) for each in context.plan.tails]}


def measure_series(context: Context, system: System, series: Series, rate: float) -> dict[str, Any]:
    """Send the scans; latencies and the peak memory of each process."""
    forget_peaks(system.processes.values())
    meter = CpuMeter(system.processes)
    gigabytes = series.edge**2 * FRAME_BYTES / 1e9
    at_once = series.scans if series.scans * gigabytes < KEPT_GIGABYTES else max(1, int(KEPT_GIGABYTES / gigabytes))
    finished: list[Finished] = []
    while len(finished) < series.scans:
        number = min(at_once, series.scans - len(finished))
        finished += send_scans(system, series, rate, number, first=len(finished) + 1)
        if at_once < series.scans:
            forget_pixels(system)
    latencies = [each.latency_seconds for each in finished if each.complete]
    if not latencies:
        raise CommandError(f"no scan is complete at {rate:.0f} frames/s")
    used = {name: seconds / (series.scans * gigabytes) for name, seconds in meter.seconds().items()}
    latency = spread(latencies) | {"p99": quantile(latencies, 0.99)}
    context.say(
        f"tail: {series.scans} scans of {series.edge}x{series.edge} at {rate:.0f} frames/s: "
        f"median {latency['median']:.3f} s, p99 {latency['p99']:.3f} s"
    )
    return {
        "edge": series.edge,
        "scans": series.scans,
        "incomplete": series.scans - len(latencies),
        "latency_seconds": latency,
        "cpu_seconds_per_gb": {**used, "total": sum(used.values())},
        "peak_megabytes": peak_megabytes(system.processes),
    }


def send_scans(system: System, series: Series, rate: float, number: int, first: int) -> list[Finished]:
    """Send so many scans, one after the other."""
    size = ["--scan", f"{series.edge}x{series.edge}", "--electrons", series.electrons]
    how = ["--rate", rate, "--scans", number, "--scan-number", first, "--pool", POOL]
    sender = system.start_sender("simulate", *size, *how)
    try:
        return system.new_scans(number, sender.pid)
    except BaseException:
        sender.kill()
        raise
    finally:
        sender.wait()


def forget_pixels(system: System) -> None:
    """Delete what is in the raw topics, so that long series fit on the disk."""
    admin = AdminClient({"bootstrap.servers": system.bootstrap})
    described = admin.list_topics(timeout=30).topics
    places = [TopicPartition(topic, partition, -1) for topic in RAW_TOPICS for partition in described[topic].partitions]
    for deleted in admin.delete_records(places).values():
        deleted.result()
