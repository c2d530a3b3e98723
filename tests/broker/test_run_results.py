"""`stemstream run` on raw files: the same pixels give the same electrons as stempy, frame by frame."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from tests.broker.counted_files import account, assert_equals_stempy, files_below, metadata, missing_sectors
from tests.broker.processes import CommandLine, Ended
from tests.broker.scans import RawScan, frames_of_equally_many_electrons, remove_records, write_scan

SUMMARY_KEYS = {
    "scan",
    "ordinal",
    "output",
    "frames_expected",
    "frames_complete",
    "frames_incomplete",
    "electrons",
    "raw_bytes",
    "compressed_bytes",
    "seconds",
    "finish_latency_seconds",
}


@pytest.fixture(scope="module")
def second_run(cluster_home: Path, first_run: Ended, unordered_scan: RawScan, output: Path) -> Ended:
    """The same folder again, now with two counters."""
    return CommandLine(cluster_home).run(unordered_scan, output, "--counters", 2)


@pytest.fixture(scope="module")
def lossy_scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """A scan that lost records: some of sector 2 alone, some of two sectors, and the whole second chunk of sector 0."""
    folder = tmp_path_factory.mktemp("lossy")
    write_raw_files(Simulation(8, 5, seed=4), folder)
    scan = RawScan(folder, 8, 5)
    remove_records(scan, 2, {3, 5})
    remove_records(scan, 3, {5, 39})
    remove_records(scan, 0, set(range(16, 32)))
    return scan


@pytest.fixture(scope="module")
def lossy_run(cluster_home: Path, lossy_scan: RawScan, output: Path) -> Ended:
    return CommandLine(cluster_home).run(lossy_scan, output, "--session", "lossy")


def test_frames_out_of_order_in_several_files_are_counted_as_stempy_does(
    first_run: Ended, unordered_scan: RawScan
) -> None:
    assert first_run.code == 0, first_run.stderr
    assert_equals_stempy(first_run.file, unordered_scan)


def test_stdout_is_one_json_object_whose_values_are_true(
    first_run: Ended, unordered_scan: RawScan, output: Path
) -> None:
    summary = first_run.summary
    assert summary.keys() >= SUMMARY_KEYS
    assert first_run.stdout.count("\n") == 1
    assert summary["scan"] == "default/1"
    assert first_run.file == output / "default" / f"scan_00001_{summary['ordinal']}.h5"
    assert (summary["frames_expected"], summary["frames_complete"], summary["frames_incomplete"]) == (108, 108, 0)
    assert summary["electrons"] == sum(map(len, unordered_scan.electrons)) > 0
    assert summary["raw_bytes"] == 108 * 576 * 576 * 2
    assert summary["raw_bytes"] / 10 < summary["compressed_bytes"] < summary["raw_bytes"]
    assert 0 < summary["finish_latency_seconds"] < summary["seconds"] < 60


def test_the_same_folder_twice_gives_two_files_and_two_ordinals(first_run: Ended, second_run: Ended) -> None:
    assert second_run.summary["scan"] == first_run.summary["scan"]
    assert second_run.summary["ordinal"] > first_run.summary["ordinal"]
    assert second_run.file != first_run.file
    assert first_run.file.exists()
    assert second_run.file.exists()


def test_two_counters_count_the_same(second_run: Ended, unordered_scan: RawScan) -> None:
    assert second_run.code == 0, second_run.stderr
    assert_equals_stempy(second_run.file, unordered_scan)


def test_four_counters_with_the_stempy_engine_count_the_same(
    stemstream: CommandLine, unordered_scan: RawScan, output: Path
) -> None:
    ended = stemstream.run(unordered_scan, output, "--counters", 4, "--engine", "stempy")

    assert ended.code == 0, ended.stderr
    assert_equals_stempy(ended.file, unordered_scan)
    with h5py.File(ended.file) as file:
        assert file["metadata/stemstream/settings"].attrs["engine"] == "stempy"


def test_each_frame_of_a_position_keeps_its_slot(stemstream: CommandLine, tmp_path: Path) -> None:
    write_raw_files(Simulation(5, 4, frames_per_position=3, seed=3), tmp_path / "raw", scan_number=7, out_of_order=9)
    scan = RawScan(tmp_path / "raw", 5, 4, 3)

    ended = stemstream.run(scan, tmp_path / "out", "--session", "slots")

    assert ended.code == 0, ended.stderr
    assert ended.summary["scan"] == "slots/7"
    assert ended.file.parent == tmp_path / "out" / "slots"
    assert ended.file.name == f"scan_00007_{ended.summary['ordinal']}.h5"
    assert_equals_stempy(ended.file, scan)


def test_a_scan_smaller_than_a_chunk_whose_frames_have_equally_many_electrons_is_written(
    stemstream: CommandLine, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "raw", frames_of_equally_many_electrons(frames=6, electrons=11), 3, 2)
    assert {len(electrons) for electrons in scan.electrons} == {11}

    ended = stemstream.run(scan, tmp_path / "out")

    assert ended.code == 0, ended.stderr
    assert_equals_stempy(ended.file, scan)


def test_frames_with_missing_records_are_empty_and_masked_and_no_others(lossy_run: Ended, lossy_scan: RawScan) -> None:
    expected = np.zeros(40, np.uint8)
    expected[3], expected[5], expected[39], expected[16:32] = 0b0100, 0b1100, 0b1000, 0b0001
    np.testing.assert_array_equal(missing_sectors(lossy_run.file), expected)
    assert_equals_stempy(lossy_run.file, lossy_scan)


def test_a_run_with_missing_records_ends_with_code_3_and_a_true_account(lossy_run: Ended, lossy_scan: RawScan) -> None:
    summary = lossy_run.summary
    assert lossy_run.code == 3
    assert "Traceback" not in lossy_run.stderr
    assert (summary["frames_expected"], summary["frames_complete"], summary["frames_incomplete"]) == (40, 21, 19)
    assert summary["electrons"] == sum(map(len, lossy_scan.electrons)) > 0

    written = account(lossy_run.file)
    records = [40 - 16, 40, 40 - 2, 40 - 2]
    assert metadata(lossy_run.file)["verdict"] == "incomplete"
    assert [sector["ledger"]["published"] for sector in written["sectors"]] == records
    assert [sector["joined"] for sector in written["sectors"]] == records
    assert {sector["reason"] for sector in written["sectors"]} == {"complete", "source ended"}
    assert written["raw_bytes"] == summary["raw_bytes"] == sum(records) * 144 * 576 * 2
    for key in ("frames_expected", "frames_complete", "frames_incomplete", "electrons", "compressed_bytes"):
        assert written[key] == summary[key]


def test_a_run_leaves_nothing_but_its_file(lossy_run: Ended) -> None:
    assert files_below(lossy_run.file.parent) == [lossy_run.file]
