"""Processes that are killed in the middle of a scan: nothing is lost, counted twice, or left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from service.catalogue import Scan
from service.scan_log import ScanLog
from stemstream import broker
from tests.broker.counted_files import assert_equals_stempy, files_below
from tests.broker.processes import (
    CommandLine,
    child_of,
    command_line,
    finish,
    metric,
    metrics_port,
    wait_until,
)
from tests.broker.scans import RawScan, RepeatedScan

Run = subprocess.Popen[str]


def wait_until_half_way(run: Run, command: str, counter: str, total: float) -> psutil.Process:
    """Wait until a child of the run has done between 20 and 80 % of the scan."""
    child = child_of(run, command)
    port = metrics_port(child)
    done = 0.0

    def under_way() -> bool:
        nonlocal done
        assert run.poll() is None, f"the run ended before it was caught: {run.communicate()}"
        done = metric(port, counter)
        return done >= 0.2 * total

    wait_until(under_way, 60, f"{counter} of {command}")
    assert done <= 0.8 * total, "the scan is too small to be caught"
    return child


def started_by(run: Run) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True)


def wait_until_gone(processes: list[psutil.Process], timeout_s: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout_s)
    assert not alive, [command_line(process) for process in alive]


def kill_run(run: Run) -> None:
    run.kill()


def kill_run_and_all_that_it_started(run: Run) -> None:
    for process in (psutil.Process(run.pid), *started_by(run)):
        process.kill()


@dataclass(frozen=True)
class Victim:
    """A child of a run, and what tells how far it has come: its own part of the scan, in frames."""

    command: str
    counter: str
    part: float = 1
    options: tuple[object, ...] = ()


VICTIMS = {
    "one of two counters": Victim("count", "counted_frames_total", 0.5, ("--counters", 2)),
    "the sink": Victim("sink", "written_frames_total"),
    "the receiver": Victim("receive", "received_sector_frames_total", 4),
}


@pytest.mark.parametrize("victim", VICTIMS.values(), ids=list(VICTIMS))
def test_a_run_whose_child_is_killed_half_way_gives_the_same_file(
    stemstream: CommandLine, large_scan: RepeatedScan, tmp_path: Path, victim: Victim
) -> None:
    run = stemstream.start_run(large_scan, tmp_path, *victim.options)
    child = wait_until_half_way(run, victim.command, victim.counter, victim.part * large_scan.frame_count)
    children = started_by(run)
    child.kill()

    ended = finish(run, 150)

    assert ended.code == 0, ended.stderr
    assert ended.summary["frames_complete"] == large_scan.frame_count
    assert ended.summary["electrons"] == sum(map(len, large_scan.electrons))
    assert_equals_stempy(ended.file, large_scan)
    assert files_below(tmp_path) == [ended.file]
    wait_until_gone(children, 5)


@pytest.mark.parametrize("kill", [kill_run, kill_run_and_all_that_it_started])
def test_a_run_after_one_that_was_killed_is_complete_and_abandons_what_was_left(
    stemstream: CommandLine,
    large_scan: RepeatedScan,
    small_scan: RawScan,
    tmp_path: Path,
    kill: Callable[[Run], None],
) -> None:
    killed = stemstream.start_run(large_scan, tmp_path)
    wait_until_half_way(killed, "sink", "written_frames_total", large_scan.frame_count)
    children = started_by(killed)
    kill(killed)
    killed.communicate()
    wait_until_gone(children, 12)

    ended = stemstream.run(small_scan, tmp_path)

    assert ended.code == 0, ended.stderr
    assert_equals_stempy(ended.file, small_scan)
    assert files_below(tmp_path) == [ended.file]
    left_open = newest_scans(stemstream)[-2].counts["live"]
    assert left_open.abandoned
    assert not left_open.finished


def test_a_run_without_a_broker_starts_one_brings_it_back_when_it_is_killed_and_stops_it(
    fresh_stemstream: CommandLine, large_scan: RepeatedScan, tmp_path: Path
) -> None:
    home, output = fresh_stemstream.home, tmp_path / "out"
    run = fresh_stemstream.start_run(large_scan, output)
    wait_until_half_way(run, "count", "counted_frames_total", large_scan.frame_count)
    started = broker.status(home)
    assert started is not None
    psutil.Process(started.pid).kill()

    ended = finish(run, 150)

    assert ended.code == 0, ended.stderr
    assert "starting the embedded Kafka broker" in ended.stderr
    assert_equals_stempy(ended.file, large_scan)
    assert files_below(output) == [ended.file]
    assert broker.status(home) is None
    assert not [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(home / "kafka")]
    for topic in ("scans-0", "raw.sector.0-0", "events-0"):
        assert (home / "kafka" / "data" / topic).is_dir()


def newest_scans(stemstream: CommandLine) -> list[Scan]:
    """What the scan log says, the newest last."""
    state = broker.status(stemstream.home)
    assert state is not None
    with ScanLog(state.bootstrap) as log:
        return list(log.catch_up().scans.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_stops_what_it_started_and_leaves_no_file(
    stemstream: CommandLine, large_scan: RepeatedScan, tmp_path: Path, number: signal.Signals
) -> None:
    run = stemstream.start_run(large_scan, tmp_path)
    wait_until_half_way(run, "sink", "written_frames_total", large_scan.frame_count)
    children = started_by(run)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # a Ctrl-C reaches all processes of the terminal
    else:
        run.send_signal(number)

    ended = finish(run, 15)

    assert ended.code != 0
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    wait_until_gone(children, 5)
    assert files_below(tmp_path) == []
    assert newest_scans(stemstream)[-1].counts["live"].abandoned
