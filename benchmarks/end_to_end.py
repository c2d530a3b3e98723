"""A scan from raw files to the counted HDF5 file: this project and its peers, in turn, on the same frames.

This project runs as real processes against its own broker; the services are warm, and the receiver that reads the
files starts anew for each scan, as a user starts it: ``start_up`` says what that alone takes. While the peers run,
the services stay up and idle: ``idle`` says what that takes from them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accounting import CpuMeter
from benchmarks.command_line import CommandError, has_option
from benchmarks.context import Context
from benchmarks.machine import ROOT
from benchmarks.raw_scans import FRAME_BYTES, fast_folder, raw_scan
from benchmarks.spread import summarise
from benchmarks.system import System, another_counter, services_up, wait_for_usage
from benchmarks.workloads import FILE_WAY, OURS, SOCKET_WAY, SUPPRESSED, TWO_COUNTERS, XRAY, EndToEnd, Scan

PEER_TIMEOUT_S = 900.0
IDLE_S = 5.0
START_UP = Scan(500, edge=4)

Run = dict[str, Any]


def measure(context: Context) -> list[dict[str, Any]]:
    """Measure all workloads of the plan, those with the same thresholds on the same warm services."""
    measured = []
    backgrounds = list(dict.fromkeys(each.scan.background for each in context.plan.end_to_end))
    for background in backgrounds:
        workloads = [each for each in context.plan.end_to_end if each.scan.background == background]
        with services_up(context.scratch, background) as system:
            context.say(f"services are up; background {background:g}")
            warm_up(context, system, workloads[0].scan)
            fixed = {"start_up": start_up(context, system), "idle": idle(system)}
            context.say(f"idle: {fixed['idle']['total']:.2f} of a core")
            measured += [measure_one(context, system, workload) | fixed for workload in workloads]
    return measured


def warm_up(context: Context, system: System, scan: Scan) -> None:
    """Let Java and the caches settle: the first scans are not those of a service that stays."""
    with raw_scan(scan, context.scratch) as raw:
        for _ in range(context.plan.repeats // 2 + 1):
            system.count_files(raw)


def start_up(context: Context, system: System) -> dict[str, Any]:
    """CPU seconds of a receiver for a scan of one chunk: what its start takes."""
    with raw_scan(START_UP, context.scratch) as raw:
        runs = [system.count_files(raw) for _ in range(context.plan.repeats)]
    gigabytes = START_UP.frames * FRAME_BYTES / 1e9
    return summarise([{"receiver_cpu_seconds": run["cpu_seconds_per_gb"]["receiver"] * gigabytes} for run in runs])


def idle(system: System) -> dict[str, float]:
    """Parts of a core that each process takes while nothing is to be done."""
    meter = CpuMeter(system.processes)
    time.sleep(IDLE_S)
    used = meter.seconds()
    return {name: seconds / IDLE_S for name, seconds in {**used, "total": sum(used.values())}.items()}


def measure_one(context: Context, system: System, workload: EndToEnd) -> dict[str, Any]:
    """Run the contenders in turn."""
    scan = workload.scan
    contenders = [name for name in workload.contenders if is_there(context, name)]
    with raw_scan(scan, context.scratch) as raw:
        out = fast_folder(scan, context.scratch) / "out"
        ways = {name: way(name, system, scan, raw, out) for name in contenders}
        rounds = context.repeat(partial(run_round, context, scan.name, ways))
    return {
        "workload": {"electrons": scan.electrons, "edge": scan.edge, "noise": scan.noise, "frames": scan.frames},
        "contenders": {name: summarise([runs[name] for runs in rounds]) for name in contenders},
    }


def run_round(context: Context, scan: str, ways: dict[str, Callable[[], Run]]) -> dict[str, Run]:
    """Run each contender once."""
    runs = {}
    for name, run in ways.items():
        runs[name] = run()
        context.say(f"{scan}: {name}: {line(runs[name])}")
    return runs


def is_there(context: Context, contender: str) -> bool:
    """Whether this version has what a contender needs."""
    if contender == SUPPRESSED and not has_option("receive", "--zero-suppress"):
        context.say(f"{contender}: left out, `stemstream receive` has no --zero-suppress yet")
        return False
    return True


def way(name: str, system: System, scan: Scan, raw: Path, out: Path) -> Callable[[], Run]:
    """What runs a contender once."""
    ways: dict[str, Callable[[], Run]] = {
        OURS: partial(system.count_files, raw),
        SUPPRESSED: partial(system.count_files, raw, "--zero-suppress", str(scan.floor)),
        TWO_COUNTERS: partial(with_two_counters, system, scan, raw),
        FILE_WAY: partial(run_peer, "file_way", raw, out),
        SOCKET_WAY: partial(run_peer, "socket_way", raw, out, scan.background, XRAY),
    }
    return ways[name]


def with_two_counters(system: System, scan: Scan, raw: Path) -> Run:
    with another_counter(system, scan.background):
        return system.count_files(raw)


def run_peer(module: str, raw: Path, out: Path, *arguments: object) -> Run:
    """Run a peer in a process of its own; it writes into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", f"benchmarks.peers.{module}", str(raw), str(out), *map(str, arguments)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    used = wait_for_usage(process)
    if process.returncode != 0:
        raise CommandError(f"{module} ended with {process.returncode}")
    (out / "counted.h5").unlink()
    figures: Run = json.loads(said)
    return figures | {"peak_megabytes": {"largest process": used.ru_maxrss * 1024 / 1e6}}


def line(figures: Run) -> str:
    """The figures of one run in a few words."""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in figures["cpu_seconds_per_gb"].items())
    return f"{figures['frames_per_second']:.0f} frames/s; CPU s/GB: {parts}"
