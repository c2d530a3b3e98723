"""The live feed: how fast ZeroMQ messages of the detector can come without a loss, and what that takes.

``stemstream up`` with its live receiver, and ``stemstream send`` of raw files at a rate that rises until frames are
lost or the file comes late. The sender is not counted: in real life it is the camera's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accounting import CpuMeter, forget_peaks, peak_megabytes
from benchmarks.command_line import CommandError, has_option
from benchmarks.context import Context
from benchmarks.raw_scans import raw_scan
from benchmarks.spread import summarise
from benchmarks.system import System, services_up
from benchmarks.tail import measure_tail

LATE_S = 2.0
CHANCES = 3  # of a rate: other work on the machine may cost frames, too
SHOWN = ("complete", "seconds", "frames_per_second", "latency_seconds")


def measure(context: Context) -> dict[str, Any]:
    """Measure the feed, and then the tail at half of its highest rate; and the feed with zero suppression."""
    scan, plan = context.plan.feed, context.plan
    with services_up(context.scratch, scan.background, live=True) as system:
        feed = measure_feed(context, system, plan.feed_rates)
        measured = {"feed": feed, "tail": measure_tail(context, system, feed["rate"] / 2)}
    if not has_option("up", "--zero-suppress"):
        context.say("feed: zero suppression is left out, `stemstream up` has no --zero-suppress yet")
        return measured
    with services_up(context.scratch, scan.background, live=True, floor=scan.floor) as system:
        return measured | {"suppressed feed": measure_feed(context, system, plan.suppressed_rates)}


def measure_feed(context: Context, system: System, rates: Sequence[float]) -> dict[str, Any]:
    """Find the highest rate, then measure at it as often as it takes for a spread."""
    scan = context.plan.feed
    with raw_scan(scan, context.scratch) as raw:
        tried = climb(context, system, raw, rates)
        rate = max((each["rate"] for each in tried if each["went_well"]), default=0.0)
        if not rate:
            raise CommandError(f"the live feed cannot take {rates[0]:g} frames/s")
        runs = [send(system, raw, rate) for _ in range(context.plan.repeats)]
    lost = sum(not each["complete"] for each in runs)
    return {"frames": scan.frames, "electrons": scan.electrons, "rate": rate, "tried": tried, "lost": lost} | {
        "at_rate": summarise([each for each in runs if each["complete"]] or runs)
    }


def climb(context: Context, system: System, raw: Path, rates: Sequence[float]) -> list[dict[str, Any]]:
    """Send a scan at higher and higher rates, until frames are lost or the file comes late, each time of some."""
    send(system, raw, rates[0])  # warms up
    tried: list[dict[str, Any]] = []
    for rate in rates:
        for _ in range(CHANCES):
            figures = send(system, raw, rate)
            went_well = figures["complete"] and figures["latency_seconds"] <= LATE_S
            tried.append({"rate": rate, "went_well": went_well} | {name: figures[name] for name in SHOWN})
            context.say(f"feed: {tried[-1]}")
            if went_well:
                break
        if not went_well:
            break
    return tried


def send(system: System, raw: Path, rate: float) -> dict[str, Any]:
    """Send one scan to the receiver that is up."""
    forget_peaks(system.processes.values())
    meter = CpuMeter(system.processes)
    sender = system.start_sender("send", raw, "--rate", rate)
    try:
        finished = system.wait_for_file(sender.pid)
    except BaseException:
        sender.kill()
        raise
    finally:
        sender.wait()
    return system.described(finished, meter.seconds(), peak_megabytes(system.processes))
