"""What automatic thresholds cost in time: last frame published → file, beside fixed thresholds, on the live feed.

Run as ``python -m benchmarks.threshold_latency [--rate F]``. Services are started twice in turn, with fixed and with
automatic thresholds; each counts the same simulated scan of 10,240 frames, sent at the given rate.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.spread import spread
from service.scan_log import ScanLog

SCAN = "128x80"
POOL = 64  # different frames: the simulator must not take the processor from what is measured
PORTS = ("tcp://127.0.0.1:7101", "tcp://127.0.0.1:17100")
MODES = {"fixed": ["--background", "40", "--xray", "2000"], "automatic": ["--auto-threshold"]}


def stemstream(home: Path, *words: str) -> str:
    environment = os.environ | {"STEMSTREAM_HOME": str(home)}
    command = [sys.executable, "-m", "stemstream", *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def latency(home: Path, options: list[str], rate: float) -> float:
    """Seconds from the last frame published to the finished file of one scan."""
    feed, ready = PORTS
    stemstream(home, "up", "--output", str(home / "counted"), "--from", feed, "--ready", ready, "--detach", *options)
    try:
        address = json.loads((home / "up.json").read_text())["bootstrap"]
        with ScanLog(address) as log:
            done = {ordinal for ordinal, scan in log.catch_up().scans.items() if scan.files}
            sent = ("--rate", str(rate), "--pool", str(POOL), "--to", feed, "--ready", ready)
            stemstream(home, "simulate", "--scan", SCAN, "--electrons", "300", *sent)
            while True:
                log.poll(0.05)
                for ordinal, scan in log.catalogue.scans.items():
                    finished = scan.counts["live"].finished if "live" in scan.counts else None
                    if ordinal not in done and finished is not None:
                        ledgers = [sector.ledger for sector in finished.account.sectors if sector.ledger]
                        return (finished.finished_ns - max(each.last_published_ns for each in ledgers)) / 1e9
    finally:
        stemstream(home, "down")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rate", type=float, default=150, help="frames/s: half of what the machine takes")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for mode, thresholds in MODES.items():
                seconds[mode].append(latency(Path(folder), thresholds, options.rate))
                print(f"{mode:10} {seconds[mode][-1]:.3f} s", flush=True)
    for mode, measured in seconds.items():
        print(mode, json.dumps(spread(measured)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
