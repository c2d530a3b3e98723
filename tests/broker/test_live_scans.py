"""Live scans through a real broker: a day at the microscope, sent by a camera that knows the feed's format only."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stempy.io import SparseArray

from stemstream import broker
from tests.broker.camera import Camera, CameraScan
from tests.broker.counted_files import account, metadata, missing_sectors
from tests.broker.messages import chunks_of
from tests.broker.processes import THRESHOLDS, CommandLine, Service, free_port, wait_until

IDLE_S = 3


class Microscope:
    """A cluster of its own with a receiver, a counter and a sink, and a camera."""

    def __init__(self, home: Path, output: Path) -> None:
        self.command_line = CommandLine(home)
        self.output = output
        state = broker.start(home, port=free_port(), die_with_parent=True)
        self.bootstrap = state.bootstrap
        assert self.command_line("topics", "create").code == 0
        self.first_port = _four_free_ports()
        self.camera = Camera(self.first_port)
        self.counter = self.command_line.serve("count", *THRESHOLDS)
        self.sink = self.command_line.serve("sink", "--output", output)
        self.receiver = self.start_receiver()
        for service in (self.counter, self.sink, self.receiver):
            service.wait_until_ready()

    def start_receiver(self, *options: object) -> Service:
        address = f"tcp://127.0.0.1:{self.first_port}"
        sectors = ("--sector", 0, 1, 2, 3)
        return self.command_line.serve("receive", *sectors, "--from", address, "--idle-timeout", IDLE_S, *options)

    def wait_until_safe(self) -> None:
        """Wait as an operator does on a slow machine: the next scan begins when the buffer has room for it."""
        wait_until(lambda: self.receiver.metric("buffered_bytes") < 100e6, 60, "room in the buffer")

    def scans(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.command_line("scans", "list", "--json").stdout)
        return listed

    def wait_for_scans(self, count: int, timeout_s: float = 60) -> list[dict[str, Any]]:
        """The catalogue, once so many scans are there and none is running."""
        deadline = time.monotonic() + timeout_s
        while True:
            scans = self.scans()
            if len(scans) >= count and all(scan["state"] != "running" for scan in scans):
                return scans
            assert time.monotonic() < deadline, [(s["scan"], s["state"]) for s in scans]
            time.sleep(0.3)

    def assert_right(self, listed: dict[str, Any], scan: CameraScan, missing: list[int] | None = None) -> None:
        """The file has stempy's electrons in every frame, but for those that are missing, which it names."""
        expected = scan.missing if missing is None else missing
        file = Path(listed["files"][0])
        counted = SparseArray.from_hdf5(file)
        assert counted.scan_shape == (scan.height, scan.width)
        assert counted.data.shape == (scan.width * scan.height, scan.frames_per_position)
        np.testing.assert_array_equal(missing_sectors(file), expected)
        for frame in range(scan.frames):
            position, slot = divmod(frame, scan.frames_per_position)
            none = np.empty(0, np.uint32)
            electrons = none if expected[frame] else self.camera.electrons_of(scan, frame)
            np.testing.assert_array_equal(counted.data[position, slot], electrons, f"frame {frame}")
        assert listed["state"] == ("incomplete" if any(expected) else "complete")


def _four_free_ports() -> int:
    """The first of four ports in a row that were free just now."""
    while True:
        first = free_port()
        if first < 65_000:
            return first


@pytest.fixture(scope="module")
def microscope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Microscope]:
    home = tmp_path_factory.mktemp("microscope")
    made = Microscope(home, tmp_path_factory.mktemp("counted"))
    yield made
    made.command_line.end_all()
    broker.stop(home)


def a_day() -> list[CameraScan]:
    """24 scans: different sizes, one aborted, one after a counter reset, one without a sector, one with 4 frames."""
    sizes = [(6, 5), (12, 9), (4, 11), (16, 2), (7, 7), (1, 9)]
    scans = [CameraScan(number, *sizes[number % len(sizes)]) for number in range(1, 17)]
    scans[4] = CameraScan(5, 12, 9, sent_frames=41)
    scans[8] = CameraScan(9, 6, 5, dark_sectors=frozenset({2}))
    scans[11] = CameraScan(12, 5, 4, frames_per_position=4)
    scans[13] = CameraScan(14, 12, 9, lost=frozenset({(0, 3), (3, 50), (1, 107)}))
    after_the_reset = [CameraScan(number, *sizes[(number + 2) % len(sizes)]) for number in range(1, 9)]
    return scans + after_the_reset


@pytest.mark.timeout(240)
def test_a_day_of_24_scans_gives_24_right_files_without_a_hand_on_it(microscope: Microscope) -> None:
    day = a_day()
    for scan in day:
        started = time.monotonic()
        microscope.camera.send(scan)
        time.sleep(max(0.0, started + 0.5 - time.monotonic()))
        microscope.wait_until_safe()
    listed = microscope.wait_for_scans(len(day), 90)
    assert len(listed) == len(day)
    assert len(list(microscope.output.glob("default/*.h5"))) == len(day)
    assert [entry["number"] for entry in listed] == [scan.number for scan in day]
    for entry, scan in zip(listed, day, strict=True):
        microscope.assert_right(entry, scan)
    reasons = {entry["ordinal"]: {s.get("reason") for s in entry["sectors"]} for entry in listed}
    assert reasons[listed[4]["ordinal"]] == {"next scan"}
    assert reasons[listed[8]["ordinal"]] == {"complete", None}
    assert reasons[listed[0]["ordinal"]] == {"complete"}


def test_scans_are_filed_under_the_session_without_restarting_anything(microscope: Microscope) -> None:
    known = len(microscope.scans())
    assert microscope.command_line("session", "start", "tilt-1").code == 0
    assert microscope.command_line("session", "show").stdout.strip() == "tilt-1"
    time.sleep(1.5)  # the receiver looks into the log once a second
    first = CameraScan(71, 6, 5)
    microscope.camera.send(first)
    microscope.wait_for_scans(known + 1)
    assert microscope.command_line("session", "end").code == 0
    time.sleep(1.5)
    microscope.camera.send(CameraScan(72, 6, 5))
    listed = microscope.wait_for_scans(known + 2)
    assert [entry["session"] for entry in listed[known:]] == ["tilt-1", "default"]
    assert Path(listed[known]["files"][0]).parent.name == "tilt-1"
    microscope.assert_right(listed[known], first)


def test_a_note_made_after_the_scan_is_put_into_its_file(microscope: Microscope) -> None:
    known = len(microscope.scans())
    microscope.camera.send(CameraScan(81, 6, 5))
    (listed,) = microscope.wait_for_scans(known + 1)[known:]
    file = Path(listed["files"][0])
    before = metadata(file)
    assert microscope.command_line("scans", "annotate", "last", "sample=gold on carbon", "kV=300").code == 0
    annotations = {"sample": "gold on carbon", "kV": "300"}
    wait_until(
        lambda: SparseArray.from_hdf5(file).metadata["stemstream"].get("annotations") == annotations, 20, "notes"
    )
    assert metadata(file) == before
    microscope.assert_right(listed, CameraScan(81, 6, 5))
    shown = json.loads(microscope.command_line("scans", "show", "last", "--json").stdout)
    assert shown["annotations"] == annotations


def test_a_scan_can_be_closed_by_hand(microscope: Microscope) -> None:
    known = len(microscope.scans())
    scan = CameraScan(91, 12, 9)
    sender = _in_background(microscope.camera, scan, seconds=60)
    wait_until(lambda: len(microscope.scans()) > known, 20, "the scan")
    assert microscope.command_line("scans", "close", "default/91").code == 0
    (listed,) = microscope.wait_for_scans(known + 1)[known:]
    microscope.camera.stopped.set()
    sender.join()
    microscope.camera.stopped.clear()
    assert {sector["reason"] for sector in listed["sectors"]} == {"closed by hand"}
    microscope.assert_right(listed, scan, _missing_in_topics(microscope.bootstrap, listed["ordinal"], scan))


@pytest.mark.timeout(180)
def test_a_receiver_killed_in_a_scan_loses_only_what_the_file_says(microscope: Microscope) -> None:
    known = len(microscope.scans())
    before = microscope.receiver.metric("received_sector_frames_total")
    scan = CameraScan(101, 30, 20)
    sender = _in_background(microscope.camera, scan, seconds=6.0)
    wait_until(
        lambda: microscope.receiver.metric("received_sector_frames_total") - before > 700, 30, "700 sector frames"
    )
    microscope.receiver.process.send_signal(signal.SIGKILL)
    microscope.receiver.process.wait()
    microscope.receiver = microscope.start_receiver()
    microscope.receiver.wait_until_ready()
    sender.join()
    (listed,) = microscope.wait_for_scans(known + 1)[known:]
    missing = _missing_in_topics(microscope.bootstrap, listed["ordinal"], scan)
    assert missing.count(0) > 100
    microscope.assert_right(listed, scan, missing)
    following = CameraScan(102, 6, 5)
    microscope.camera.send(following)
    microscope.assert_right(microscope.wait_for_scans(known + 2)[-1], following)


def test_raw_files_are_followed_while_they_are_written(microscope: Microscope, tmp_path: Path) -> None:
    known = len(microscope.scans())
    microscope.receiver.stop()
    sectors = ("--sector", 0, 1, 2, 3)
    following = microscope.command_line.serve(
        "receive", *sectors, "--from", tmp_path, "--follow", "--idle-timeout", IDLE_S
    )
    following.wait_until_ready()
    scan = CameraScan(121, 6, 5)
    for part in (range(12), range(12, 30)):
        for module in range(4):
            with (tmp_path / f"data_scan0000000121_module{module}_0000000000.data").open("ab") as file:
                for frame in part:
                    file.write(microscope.camera.record(scan, module, frame))
        time.sleep(0.5)
    listed = microscope.wait_for_scans(known + 1)[-1]
    microscope.assert_right(listed, scan)
    assert following.stop() == 0
    microscope.receiver = microscope.start_receiver()
    microscope.receiver.wait_until_ready()


@pytest.mark.timeout(180)
def test_a_broker_that_takes_too_little_costs_frames_that_are_all_accounted_for(microscope: Microscope) -> None:
    known = len(microscope.scans())
    microscope.receiver.stop()
    microscope.receiver = microscope.start_receiver("--buffer-gib", 0.05)
    microscope.receiver.wait_until_ready()
    _set_quota(microscope.bootstrap, 3_000_000)
    try:
        scan = CameraScan(111, 30, 20)
        microscope.camera.send(scan)
        (listed,) = microscope.wait_for_scans(known + 1, 90)[known:]
    finally:
        _set_quota(microscope.bootstrap, None)
    assert _peak_memory_bytes(microscope.receiver.process.pid) < 600e6  # 50 MB of it are the buffer
    file = Path(listed["files"][0])
    sectors = account(file)["sectors"]
    lost = [sector["ledger"]["lost"] for sector in sectors]
    assert sum(lost) > 0
    assert [s["ledger"]["published"] + s["ledger"]["lost"] + s["ledger"]["late"] for s in sectors] == [scan.frames] * 4
    masks = missing_sectors(file)
    assert [int(np.count_nonzero(masks >> m & 1)) for m in range(4)] == [scan.frames - s["joined"] for s in sectors]
    assert [s["joined"] for s in sectors] == [s["ledger"]["published"] for s in sectors]
    microscope.assert_right(listed, scan, masks.tolist())
    following = CameraScan(112, 6, 5)
    microscope.camera.send(following)
    microscope.assert_right(microscope.wait_for_scans(known + 2)[-1], following)


def _missing_in_topics(bootstrap: str, ordinal: int, scan: CameraScan) -> list[int]:
    """For each frame, bit m is set when sector m of it lies in no chunk."""
    missing = np.full(scan.frames, 15, np.uint8)
    for sector in range(4):
        missing[_published_frames(bootstrap, sector, ordinal)] &= np.uint8(~(1 << sector) & 15)
    return [int(mask) for mask in missing]


def _published_frames(bootstrap: str, sector: int, ordinal: int) -> list[int]:
    """Frame numbers of a sector that lie in its topic, from the layout of the chunk messages alone."""
    frames: list[int] = []
    for _, chunk in chunks_of(bootstrap, sector, ordinal):
        (per_chunk,), (index,) = struct.unpack_from("<I", chunk, 40), struct.unpack_from("<I", chunk, 48)
        (header_size,) = struct.unpack_from("<I", chunk, 4)
        mask = np.unpackbits(np.frombuffer(chunk[120:header_size], np.uint8), bitorder="little")
        frames += (index * per_chunk + np.flatnonzero(mask)).tolist()
    return frames


def _in_background(camera: Camera, scan: CameraScan, seconds: float) -> threading.Thread:
    sender = threading.Thread(target=camera.send, args=(scan,), kwargs={"seconds": seconds})
    sender.start()
    return sender


def _peak_memory_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    return 1024 * int(peak)


def _set_quota(bootstrap: str, bytes_a_second: int | None) -> None:
    """Kafka's own tool, because librdkafka cannot set quotas."""
    rate = "producer_byte_rate"
    change = ["--add-config", f"{rate}={bytes_a_second}"] if bytes_a_second else ["--delete-config", rate]
    java = shutil.which("java")
    assert java is not None
    libs = Path(__file__).resolve().parents[2] / "deploy/kafka/target/libs/*"
    subprocess.run(
        [
            java,
            "-cp",
            str(libs),
            "kafka.admin.ConfigCommand",
            "--bootstrap-server",
            bootstrap,
            "--alter",
            *change,
            "--entity-type",
            "clients",
            "--entity-name",
            "receiver",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
