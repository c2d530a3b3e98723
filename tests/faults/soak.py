"""Random scans with random kills for a given time: ``make soak MINUTES=10 SEED=1``.

Each round makes a scan of random size, some with records missing, runs it with one to three counters, and mostly kills
a random process of the run with SIGKILL somewhere in the middle. Whatever happens, the file must have stempy's
electrons in every frame that all four sectors have. The seed is printed, and every round says what it did.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from stemstream import broker
from tests.broker.counted_files import assert_equals_stempy
from tests.broker.processes import CommandLine, finish
from tests.broker.scans import RawScan, remove_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    sys.stdout.write(f"soak for {arguments.minutes:g} minutes with seed {arguments.seed}\n")
    random_numbers = random.Random(arguments.seed)
    deadline = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="stemstream-soak-") as folder:
        home = Path(folder) / "home"
        broker.start(home, die_with_parent=True)
        rounds = 0
        while time.monotonic() < deadline:
            rounds += 1
            _round(rounds, random_numbers, CommandLine(home), Path(folder))
        broker.stop(home)
    sys.stdout.write(f"{rounds} passed, 0 failed\n")


def _round(number: int, random_numbers: random.Random, command_line: CommandLine, folder: Path) -> None:
    scan = _scan(random_numbers, folder / "raw")
    counters, victim = random_numbers.randint(1, 3), random_numbers.choice(["count", "count", "sink", "receive", None])
    delay_s = random_numbers.uniform(0, 3)
    complete = not scan.missing_sectors.any()
    sys.stdout.write(
        f"round {number}: {scan.width}x{scan.height}x{scan.frames_per_position}, {counters} counters, "
        f"{'complete' if complete else 'with records missing'}, killed: {victim} after {delay_s:.1f} s\n"
    )
    sys.stdout.flush()
    run = command_line.start_run(scan, folder / "out", "--counters", counters)
    if victim is not None:
        _kill(run, victim, delay_s)
    ended = finish(run, 180)
    assert ended.code == (0 if complete else 3), ended
    assert_equals_stempy(ended.file, scan)
    shutil.rmtree(scan.folder)


def _scan(random_numbers: random.Random, folder: Path) -> RawScan:
    width, height, k = (
        random_numbers.randint(1, 30),
        random_numbers.randint(1, 20),
        random_numbers.choice([1, 1, 1, 3]),
    )
    simulation = Simulation(width, height, frames_per_position=k, seed=random_numbers.randrange(1000))
    write_raw_files(simulation, folder, out_of_order=random_numbers.choice([0, 8]))
    scan = RawScan(folder, width, height, k)
    # The last position keeps its records: they tell how many frames a position has.
    if random_numbers.random() < 0.4 and scan.frame_count - k > 4:
        lost = random_numbers.sample(range(scan.frame_count - k), 3)
        remove_records(scan, random_numbers.randrange(4), set(lost))
    return scan


def _kill(run: subprocess.Popen[str], victim: str, delay_s: float) -> None:
    """SIGKILL a child that serves as this, some time after the receiver is there; none if the run has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and run.poll() is None:
        children = [(child, child.cmdline()) for child in psutil.Process(run.pid).children()]
        if any("receive" in words for _, words in children):
            time.sleep(delay_s)
            found = [child for child, words in children if victim in words and child.is_running()]
            if found and run.poll() is None:
                found[0].send_signal(signal.SIGKILL)
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
