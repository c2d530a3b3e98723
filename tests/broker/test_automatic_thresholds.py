"""Thresholds that are found while the scan comes in, and corrections: the file has what stempy counts with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import stempy.image
from numpy.typing import NDArray
from stempy.io import SparseArray

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from tests.broker.processes import CommandLine, Ended, finish
from tests.broker.scans import RawScan, write_scan

WIDTH, HEIGHT = 12, 10
SESSION = "thresholds"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    folder = tmp_path_factory.mktemp("noisy")
    write_raw_files(Simulation(WIDTH, HEIGHT, dark_counts=30, noise_counts=6, xrays=1, seed=8), folder, out_of_order=30)
    return RawScan(folder, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not whole numbers, and for some pixels above what they hold."""
    path = tmp_path_factory.mktemp("references") / "dark.npy"
    np.save(path, np.random.default_rng(1).normal(29.7, 1.3, (576, 576)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def gain(dark: Path) -> Path:
    path = dark.with_name("gain.h5")
    with h5py.File(path, "w") as file:
        file["calibration/gain"] = np.random.default_rng(2).uniform(0.8, 1.25, (576, 576)).astype(np.float32)
    return path


def run(cluster_home: Path, scan: RawScan, output: Path, *options: object) -> Ended:
    words = ("run", scan.folder, "--output", output, "--json", "--session", SESSION, *options)
    return finish(CommandLine(cluster_home).start(*words), 150)


@pytest.fixture(scope="module")
def corrected(cluster_home: Path, scan: RawScan, output: Path, dark: Path, gain: Path) -> list[Ended]:
    """The same scan with automatic thresholds, dark and gain: twice with one counter, then with two and with four."""
    options = ("--auto-threshold", "--dark", dark, "--gain", gain)
    return [run(cluster_home, scan, output, *options, "--counters", counters) for counters in (1, 1, 2, 4)]


def frame(scan: RawScan, number: int) -> NDArray[np.uint16]:
    return np.concatenate([records[number] for records in scan.records])


def attributes(file: Path, group: str) -> dict[str, Any]:
    with h5py.File(file) as opened:
        return dict(opened[f"metadata/stemstream/{group}"].attrs)


def test_the_file_has_the_electrons_that_stempy_counts_with_its_thresholds(
    corrected: list[Ended], scan: RawScan, dark: Path, gain: Path
) -> None:
    assert corrected[0].code == 0, corrected[0].stderr
    settings = attributes(corrected[0].file, "settings")
    with h5py.File(gain) as file:
        factors = file["calibration/gain"][()]
    counted = SparseArray.from_hdf5(corrected[0].file)
    electrons = 0
    for number in range(scan.frame_count):
        expected = stempy.image.electron_count_frame(
            frame(scan, number),
            darkreference=np.load(dark),
            gain=factors,
            background_threshold=settings["background"],
            xray_threshold=settings["xray"],
        ).data[0, 0]
        np.testing.assert_array_equal(counted.data[number, 0], expected, f"frame {number}")
        electrons += len(expected)
    assert electrons == corrected[0].summary["electrons"] > 100 * scan.frame_count


def test_the_thresholds_follow_from_the_scans_own_frames(
    corrected: list[Ended], scan: RawScan, dark: Path, gain: Path
) -> None:
    with h5py.File(gain) as file:
        inverse = np.power(file["calibration/gain"][()], -1)
    raw = np.stack([frame(scan, n).astype(np.float32) for n in range(scan.frame_count)])
    pixels = np.floor(np.floor(raw - np.load(dark)) * inverse)  # stempy keeps samples in whole numbers
    mean, std = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64, ddof=1)
    found = attributes(corrected[0].file, "thresholds")
    assert found["frames"] == scan.frame_count
    assert (found["mean"], found["std"]) == pytest.approx((mean, std), rel=1e-6)
    assert found["xray"] == pytest.approx(mean + 175 * std, rel=1e-6)
    # The noise, from its median and quartiles as far as electrons let them be.
    low, median, high = np.percentile(pixels, [25, 50, 75])
    assert found["optimized_mean"] == pytest.approx(median, abs=0.7)
    assert found["optimized_std"] == pytest.approx((high - low) / 1.349, rel=0.15)
    assert found["background"] == pytest.approx(found["optimized_mean"] + 4.5 * found["optimized_std"])


def test_thresholds_are_the_same_again_and_with_any_number_of_counters(corrected: list[Ended]) -> None:
    assert [ended.code for ended in corrected] == [0, 0, 0, 0], corrected[-1].stderr
    first, *others = corrected
    for other in others:
        ours, theirs = attributes(other.file, "thresholds"), attributes(first.file, "thresholds")
        assert ours.pop("calibrated_ordinal") == other.summary["ordinal"]
        assert theirs.pop("calibrated_ordinal") == first.summary["ordinal"]
        assert ours == theirs
        assert (other.summary["background"], other.summary["xray"]) == (
            first.summary["background"],
            first.summary["xray"],
        )
        counted, again = SparseArray.from_hdf5(first.file), SparseArray.from_hdf5(other.file)
        assert all(np.array_equal(a, b) for a, b in zip(counted.data.flat, again.data.flat, strict=True))


def test_log_and_file_name_the_references_by_the_hash_of_their_pixels(
    corrected: list[Ended], stemstream: CommandLine, dark: Path, gain: Path
) -> None:
    with h5py.File(gain) as file:
        pixels = {"dark": np.load(dark), "gain": file["calibration/gain"][()]}
    hashes = {
        name: hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest() for name, array in pixels.items()
    }
    shown = json.loads(
        finish(stemstream.start("scans", "show", str(corrected[0].summary["ordinal"]), "--json"), 30).stdout
    )
    [count] = shown["counts"]
    settings = attributes(corrected[0].file, "settings")
    for name, sha256 in hashes.items():
        assert settings[name] == count["settings"][name] == sha256
    assert count["thresholds"]["background"] == settings["background"]


def test_the_histogram_is_in_the_file_and_a_picture_beside_it(corrected: list[Ended], scan: RawScan) -> None:
    with h5py.File(corrected[0].file) as file:
        group = file["metadata/stemstream/thresholds"]
        histogram, first_bin = group["histogram"][()], int(group.attrs["first_bin"])
    assert histogram.sum() == pytest.approx(scan.frame_count * 576 * 576, abs=100)
    assert first_bin + int(histogram.argmax()) == pytest.approx(
        attributes(corrected[0].file, "thresholds")["optimized_mean"], abs=1.5
    )
    picture = corrected[0].file.with_name(f"{corrected[0].file.stem}_thresholds.png")
    assert corrected[0].summary["pictures"] == [str(picture)]
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_row_dark_takes_the_optimized_mean_that_was_found(cluster_home: Path, scan: RawScan, output: Path) -> None:
    ended = run(cluster_home, scan, output, "--auto-threshold", "--threshold-samples", 60, "--row-dark", "median")
    assert ended.code == 0, ended.stderr
    settings, found = attributes(ended.file, "settings"), attributes(ended.file, "thresholds")
    assert found["frames"] == 60
    assert settings["optimized_mean"] == found["optimized_mean"]
    assert settings["row_dark"] == "median"


def test_a_scan_without_light_is_not_counted_until_the_session_has_thresholds(
    cluster_home: Path, scan: RawScan, output: Path, tmp_path: Path, stemstream: CommandLine
) -> None:
    black = write_scan(tmp_path / "black", np.zeros((1, 576, 576), np.uint16), 6, 5)
    session = ("--auto-threshold", "--session", "black")
    failed = run(cluster_home, black, output, *session)
    assert failed.code == 2
    assert "the scan was not counted: no automatic thresholds" in failed.stderr
    assert not list((output / "black").glob("*"))
    [listed] = [
        s for s in json.loads(finish(stemstream.start("scans", "list", "--json"), 30).stdout) if s["session"] == "black"
    ]
    assert listed["state"] == "failed"
    assert [sector["state"] for sector in listed["sectors"]] == ["ended"] * 4  # all of it was stored
    good = run(cluster_home, scan, output, *session)
    assert good.code == 0, good.stderr
    fallen_back = run(cluster_home, black, output, *session)
    assert fallen_back.code == 0, fallen_back.stderr
    assert fallen_back.summary["background"] == good.summary["background"]
    found = attributes(fallen_back.file, "thresholds")
    assert found["source"] == "session"
    assert found["why"]
