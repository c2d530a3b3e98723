"""Run the benchmarks: ``python -m benchmarks [--quick] [--only NAME …] [--output FILE]``. See benchmarks/README.md."""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import chunk_codecs, end_to_end, feed, limits, others, stages
from benchmarks.context import Context
from benchmarks.machine import ROOT, describe_machine
from benchmarks.workloads import FULL, QUICK

BENCHMARKS: dict[str, Callable[[Context], Any]] = {
    "counting": others.measure_counting,
    "recall": others.measure_recall,
    "suppression": others.measure_suppression,
    "codecs": chunk_codecs.measure,
    "stages": stages.measure,
    "limits": limits.measure,
    "end-to-end": end_to_end.measure,
    "live": feed.measure,
}
RESULTS = ROOT / "build" / "benchmarks"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure how fast stemstream is.")
    parser.add_argument("--quick", action="store_true", help="everything once, on small scans")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="only these; may be given several times")
    parser.add_argument("--output", type=Path, help="JSON file; default: build/benchmarks/results.json or quick.json")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # what was started is stopped, also in the background
    output = options.output or RESULTS / ("quick.json" if options.quick else "results.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": describe_machine(), "quick": options.quick, "benchmarks": {}}
    with tempfile.TemporaryDirectory(dir=output.parent, prefix="scratch-") as scratch:
        context = Context(QUICK if options.quick else FULL, Path(scratch))
        for name in options.only or BENCHMARKS:
            context.say(f"{name} begins; load {os.getloadavg()[0]:.1f}")
            results["benchmarks"][name] = BENCHMARKS[name](context)
            output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    context.say(f"results in {output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
