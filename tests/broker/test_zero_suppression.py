"""Zero-suppressed scans: a fraction of the data, the same electrons, and a clear word when they would not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stempy.image
from confluent_kafka import Consumer, TopicPartition
from stempy.io import SparseArray

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from tests.broker.counted_files import assert_equals_stempy, metadata
from tests.broker.processes import CommandLine, Ended, finish
from tests.broker.scans import BACKGROUND, XRAY, RawScan, remove_records
from topics import chunk
from topics.codec import Codec

FLOOR = 27


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, random = tmp_path_factory.mktemp("references"), np.random.default_rng(3)
    paths = {name: folder / f"{name}.npy" for name in ("dark", "gain")}
    np.save(paths["dark"], random.normal(11.5, 1, (576, 576)).astype(np.float32))
    np.save(paths["gain"], random.uniform(0.8, 1.25, (576, 576)).astype(np.float32))
    return paths


@pytest.fixture(scope="module")
def quiet_scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """108 frames with a noise of 5 counts: 7 chunks."""
    folder = tmp_path_factory.mktemp("quiet")
    write_raw_files(Simulation(12, 9, xrays=1, seed=6), folder, out_of_order=20)
    return RawScan(folder, 12, 9)


@pytest.fixture(scope="module")
def lossy_scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """One sector lacks frames, another a whole chunk."""
    folder = tmp_path_factory.mktemp("lossy")
    write_raw_files(Simulation(8, 5, seed=4), folder)
    scan = RawScan(folder, 8, 5)
    remove_records(scan, 2, {3, 5})
    remove_records(scan, 0, set(range(16, 32)))
    return scan


def test_a_zero_suppressed_scan_has_the_electrons_of_stempy_for_a_fraction_of_the_data(
    stemstream: CommandLine, unordered_scan: RawScan, output: Path
) -> None:
    ended = stemstream.run(unordered_scan, output, "--zero-suppress", BACKGROUND, "--counters", 2)
    assert ended.code == 0, ended.stderr
    assert_equals_stempy(ended.file, unordered_scan)
    assert (metadata(ended.file)["codec"], metadata(ended.file)["floor"]) == ("zero-suppressed", BACKGROUND)
    assert ended.summary["raw_bytes"] / ended.summary["compressed_bytes"] > 25  # with a noise of 12 counts


def test_missing_frames_of_a_zero_suppressed_scan_are_missing(
    stemstream: CommandLine, lossy_scan: RawScan, output: Path
) -> None:
    ended = stemstream.run(lossy_scan, output, "--zero-suppress", FLOOR)
    assert ended.code == 3, ended.stderr
    assert_equals_stempy(ended.file, lossy_scan)


def test_the_floor_is_one_of_corrected_pixels(
    stemstream: CommandLine, small_scan: RawScan, output: Path, references: dict[str, Path]
) -> None:
    options = ["--dark", references["dark"], "--gain", references["gain"], "--zero-suppress", 20, "--background", 20]
    ended = stemstream.run(small_scan, output, *options)
    assert ended.code == 0, ended.stderr
    counted = SparseArray.from_hdf5(ended.file)
    for number in range(small_scan.frame_count):
        frame = np.concatenate([records[number] for records in small_scan.records])
        expected = stempy.image.electron_count_frame(
            frame,
            darkreference=np.load(references["dark"]),
            gain=np.load(references["gain"]),
            background_threshold=20,
            xray_threshold=XRAY,
        ).data[0, 0]
        np.testing.assert_array_equal(counted.data[number, 0], expected, f"frame {number}")


def archived(bootstrap: str, ordinal: int) -> dict[tuple[int, int], chunk.Chunk]:
    """What lies in the archive topics of a scan, by sector and chunk."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "archive", "enable.partition.eof": True})
    topics = client.list_topics(timeout=10).topics
    places = [
        TopicPartition(topic, partition, 0)
        for topic in (f"archive.sector.{sector}" for sector in range(4))
        for partition in topics[topic].partitions
    ]
    client.assign(places)
    found, ended = {}, 0
    while ended < len(places):
        message = client.poll(10)
        assert message is not None
        if message.error():
            ended += 1
            continue
        decoded = chunk.decode(message.value() or b"")
        if decoded.header.ordinal == ordinal:
            found[decoded.header.sector, decoded.header.chunk_index] = decoded
    client.close()
    return found


@pytest.mark.parametrize("kept", [("1/3", 3), ("all", 1)], ids=["1/3", "all"])
def test_chunks_are_kept_in_full_as_many_as_wanted(
    stemstream: CommandLine, quiet_scan: RawScan, output: Path, bootstrap: str, kept: tuple[str, int]
) -> None:
    option, every = kept
    ended = stemstream.run(quiet_scan, output, "--zero-suppress", "auto", "--keep-full", option)
    assert ended.code == 0, ended.stderr
    assert_equals_stempy(ended.file, quiet_scan)
    chunks = archived(bootstrap, ended.summary["ordinal"])
    assert sorted(chunks) == [(sector, index) for sector in range(4) for index in range(0, 7, every)]
    for (sector, index), full in chunks.items():
        assert full.header.codec is Codec.BLOSC2
        pixels = full.sector_frames(np.empty(full.header.sector_frames * 144 * 576 * 2, np.uint8))
        for place, number in enumerate(range(16 * index, min(16 * index + 16, 108))):
            np.testing.assert_array_equal(pixels[place], quiet_scan.records[sector][number])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--zero-suppress", "41"], "--background 40 is below the floor, --zero-suppress 41"),
        (["--zero-suppress", "low"], "--zero-suppress low: expected a floor of 0 to 65535 counts, or auto"),
        (["--zero-suppress", "nan"], "--zero-suppress nan: expected a floor"),
        (["--zero-suppress", "27", "--row-dark", "mean", "--optimized-mean", "9"], "--row-dark needs full frames"),
        (["--keep-full", "all"], "--keep-full goes with --zero-suppress"),
        (["--zero-suppress", "27", "--keep-full", "1/0"], "--keep-full 1/0: expected all, or a part as 1/100"),
    ],
)
def test_what_would_not_be_exact_is_refused_before_anything_starts(
    stemstream: CommandLine, small_scan: RawScan, output: Path, options: list[str], said: str
) -> None:
    ended = stemstream.run(small_scan, output, *options)
    assert ended.code == 2
    assert said in ended.stderr


def test_automatic_thresholds_are_refused_with_it(stemstream: CommandLine, small_scan: RawScan, output: Path) -> None:
    words = ("run", small_scan.folder, "--output", output, "--auto-threshold", "--zero-suppress", FLOOR)
    ended: Ended = finish(stemstream.start(*words), 60)
    assert ended.code == 2
    assert "--auto-threshold needs full frames" in ended.stderr


def test_an_automatic_floor_above_the_background_fails_the_count_and_keeps_the_scan(
    stemstream: CommandLine, quiet_scan: RawScan, output: Path
) -> None:
    options = ["--zero-suppress", "auto", "--background", 15, "--session", "too-low"]
    ended = stemstream.run(quiet_scan, output, *options)
    assert ended.code == 2
    assert "not counted: the background threshold 15 is below the floor of zero suppression" in ended.stderr
    listed: list[dict[str, Any]] = json.loads(finish(stemstream.start("scans", "list", "--json"), 30).stdout)
    [scan] = [scan for scan in listed if scan["session"] == "too-low"]
    assert scan["state"] == "failed"
    assert [sector["published"] for sector in scan["sectors"]] == [108] * 4
    assert not list((output / "too-low").glob("*.h5"))
