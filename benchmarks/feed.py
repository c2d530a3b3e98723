"""The live feed: how fast ZeroMQ messages of the detector can come without a loss, and what that takes.

``stemstream up`` with its live receiver, and ``stemstream send`` of raw files at a rate that rises until frames are
lost or the file comes late. The sender is not counted: in real life it is the camera's.
"""

from pathlib import Path
from typing import Any

from benchmarks.accounting import CpuMeter, forget_peaks, peak_megabytes
from benchmarks.command_line import CommandError
from benchmarks.context import Context
from benchmarks.raw_scans import raw_scan
from benchmarks.spread import summarise
from benchmarks.system import System, services_up
from benchmarks.tail import measure_tail

FIRST_RATE = 200.0  # frames/s
STEP = 1.25
LATE_S = 2.0
SHOWN = ("complete", "seconds", "frames_per_second", "latency_seconds")


def measure(context: Context) -> dict[str, Any]:
    """Measure the feed, and then the tail at half of its highest rate."""
    with services_up(context.scratch, context.plan.feed.background, live=True) as system:
        feed = measure_feed(context, system)
        return {"feed": feed, "tail": measure_tail(context, system, feed["rate"] / 2)}


def measure_feed(context: Context, system: System) -> dict[str, Any]:
    """Find the highest rate, then measure at it as often as it takes for a spread."""
    scan = context.plan.feed
    with raw_scan(scan, context.scratch) as raw:
        tried = climb(context, system, raw)
        rate = max((each["rate"] for each in tried if each["went_well"]), default=0.0)
        if not rate:
            raise CommandError(f"the live feed cannot take {FIRST_RATE:.0f} frames/s")
        runs = [send(system, raw, rate) for _ in range(context.plan.repeats)]
    lost = sum(not each["complete"] for each in runs)
    return {"frames": scan.frames, "electrons": scan.electrons, "rate": rate, "tried": tried, "lost": lost} | {
        "at_rate": summarise([each for each in runs if each["complete"]] or runs)
    }


def climb(context: Context, system: System, raw: Path) -> list[dict[str, Any]]:
    """Send a scan at higher and higher rates, until frames are lost or the file comes late."""
    send(system, raw, FIRST_RATE)  # warms up
    tried: list[dict[str, Any]] = []
    while not tried or tried[-1]["went_well"]:
        rate = FIRST_RATE * STEP ** len(tried)
        figures = send(system, raw, rate)
        went_well = figures["complete"] and figures["latency_seconds"] <= LATE_S
        tried.append({"rate": rate, "went_well": went_well} | {name: figures[name] for name in SHOWN})
        context.say(f"feed: {tried[-1]}")
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
