"""One embedded broker for all tests that share it; a broker that does not start fails them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from stemstream import broker
from tests.broker.processes import CommandLine, Ended, free_port
from tests.broker.scans import RawScan, RepeatedScan, repeated_scan


@pytest.fixture(scope="session")
def cluster_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("cluster")
    broker.start(home, port=free_port(), die_with_parent=True)
    yield home
    broker.stop(home)
    shutil.rmtree(home / "kafka" / "data")  # gigabytes, which pytest would keep


@pytest.fixture(scope="session")
def bootstrap(cluster_home: Path) -> str:
    state = broker.status(cluster_home)
    assert state is not None
    return state.bootstrap


@pytest.fixture
def stemstream(cluster_home: Path) -> Iterator[CommandLine]:
    """The command line beside the shared broker. What a test leaves running is ended."""
    command_line = CommandLine(cluster_home)
    yield command_line
    command_line.end_all()


@pytest.fixture
def fresh_stemstream(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line in a home of its own, where no broker was ever started."""
    command_line = CommandLine(tmp_path / "home")
    yield command_line
    command_line.end_all()
    broker.stop(command_line.home)
    shutil.rmtree(command_line.home / "kafka" / "data", ignore_errors=True)


@pytest.fixture(scope="session")
def unordered_scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """Frames out of order, three files a module, not square: 108 frames, so that the eighth partition has no chunk.

    So much noise that many pixels lie at the background threshold, and x-rays in nearly every frame.
    """
    folder = tmp_path_factory.mktemp("unordered")
    write_raw_files(Simulation(12, 9, noise_counts=12, xrays=2, seed=1), folder, files_per_module=3, out_of_order=40)
    return RawScan(folder, 12, 9)


@pytest.fixture(scope="session")
def small_scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """A scan for tests that only need one: 30 frames."""
    folder = tmp_path_factory.mktemp("small")
    write_raw_files(Simulation(6, 5, seed=2), folder)
    return RawScan(folder, 6, 5)


@pytest.fixture(scope="session")
def large_scan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RepeatedScan]:
    """A scan that takes long enough to be interrupted: 1,200 frames, 0.8 GB."""
    scan = repeated_scan(tmp_path_factory.mktemp("large") / "raw", 40, 30)
    yield scan
    shutil.rmtree(scan.folder)


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the files of all runs that tests share."""
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="session")
def first_run(cluster_home: Path, unordered_scan: RawScan, output: Path) -> Ended:
    """A plain run of the scan that is out of order, with one counter."""
    return CommandLine(cluster_home).run(unordered_scan, output)
