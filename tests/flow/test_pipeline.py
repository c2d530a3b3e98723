"""Frames in, electrons out, through every step but the broker: as stempy counts the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from stempy.image import electron_count_frame
from stempy.io import SparseArray

from producers.raw_format import RAW_RECORD, parse_raw_file_name
from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.counted_file import read_events
from tests import hostile
from tests.flow.pipeline import Change, Counted, Place, count_raw_files
from topics.scan_log import CountSettings

SETTINGS = CountSettings(background=40, xray=2000)
Rows = list[list[int]]


class RawScan:
    """A simulated scan in raw files, with what stempy counts in its frames."""

    def __init__(self, folder: Path, width: int, height: int, per_position: int, **how: Any) -> None:  # noqa: ANN401
        self.folder = folder
        simulation = Simulation(width, height, per_position, electrons=60, xrays=0.5, seed=width)
        write_raw_files(simulation, folder, scan_number=9, **how)
        self.frames, _ = simulation.frames(0, simulation.frame_count)
        self.electrons: Rows = [
            electron_count_frame(frame, background_threshold=40, xray_threshold=2000).data[0, 0].tolist()
            for frame in self.frames
        ]
        self.per_position = per_position

    def drop(self, module: int, numbers: set[int]) -> None:
        """Take records out of the files of a module."""
        for path in self.folder.iterdir():
            parsed = parse_raw_file_name(path.name)
            if parsed and parsed[1] == module:
                records = np.fromfile(path, RAW_RECORD)
                records[~np.isin(records["frame_number"], list(numbers))].tofile(path)


def rows(counted: Counted) -> Rows:
    """Electrons of each frame number, as stempy finds them in the file."""
    array: Any = SparseArray.from_hdf5(counted.finished.output)
    geometry = counted.geometry
    assert array.scan_shape == (geometry.height, geometry.width)
    assert array.data.shape == (geometry.width * geometry.height, geometry.frames_per_position)
    return [frame.tolist() for position in array.data for frame in position]


def masks(counted: Counted) -> list[int]:
    return read_events(Path(counted.finished.output)).missing_sectors.tolist()  # type: ignore[no-any-return]


def without(electrons: Rows, missing: dict[int, int]) -> Rows:
    return [[] if frame in missing else row for frame, row in enumerate(electrons)]


def as_masks(frames: int, missing: dict[int, int]) -> list[int]:
    return [missing.get(frame, 0) for frame in range(frames)]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    """35 frames, out of order, in several files a module."""
    return RawScan(tmp_path_factory.mktemp("scan"), 7, 5, 1, files_per_module=2, out_of_order=5)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("frames_per_chunk", [1, 8, 16, 64])
def test_a_complete_scan_is_counted_as_stempy_counts_its_frames(
    scan: RawScan, tmp_path: Path, partitions: int, frames_per_chunk: int
) -> None:
    counted = count_raw_files(
        scan.folder, tmp_path, SETTINGS, frames_per_chunk=frames_per_chunk, partitions=partitions, seed=partitions
    )
    assert rows(counted) == scan.electrons
    assert masks(counted) == [0] * 35
    assert not counted.refused
    account = counted.finished.account
    assert (account.verdict, account.frames_complete) == ("complete", 35)
    assert account.electrons == sum(map(len, scan.electrons))
    assert [sector.joined for sector in account.sectors] == [35] * 4
    assert account.raw_bytes == scan.frames.nbytes


@pytest.mark.parametrize(("width", "height", "per_position"), [(3, 4, 2), (2, 2, 4), (1, 1, 1)])
def test_scans_with_several_frames_a_position_keep_frame_k_in_slot_k(
    tmp_path: Path, width: int, height: int, per_position: int
) -> None:
    scan = RawScan(tmp_path / "raw", width, height, per_position, out_of_order=3)
    counted = count_raw_files(tmp_path / "raw", tmp_path, SETTINGS)
    assert counted.geometry.frames_per_position == per_position
    assert rows(counted) == scan.electrons
    assert counted.finished.account.verdict == "complete"


def test_the_stempy_engine_gives_the_same_file(scan: RawScan, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"engine": "stempy"})
    counted = count_raw_files(scan.folder, tmp_path, settings, frames_per_chunk=8)
    assert rows(counted) == scan.electrons


def test_the_order_of_arrival_does_not_change_the_file(scan: RawScan, tmp_path: Path) -> None:
    counted = [count_raw_files(scan.folder, tmp_path / str(seed), SETTINGS, seed=seed) for seed in range(3)]
    assert all(rows(one) == scan.electrons for one in counted)
    assert len({one.finished.account.model_dump_json() for one in counted}) == 1
    assert len({tuple(one.events[0]) for one in counted}) == 1


@pytest.mark.parametrize("partitions", [1, 3])
def test_frames_with_missing_records_are_empty_and_masked_and_no_others(tmp_path: Path, partitions: int) -> None:
    scan = RawScan(tmp_path / "raw", 6, 3, 2)
    dropped = {0: {0, 5, 35}, 2: {5, *range(16, 24)}, 3: set(range(8, 16))}  # whole chunks too
    for module, numbers in dropped.items():
        scan.drop(module, numbers)
    missing: dict[int, int] = {}
    for module, numbers in dropped.items():
        for number in numbers:
            missing[number] = missing.get(number, 0) | 1 << module
    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=8, partitions=partitions)
    assert masks(counted) == as_masks(36, missing)
    assert rows(counted) == without(scan.electrons, missing)
    account = counted.finished.account
    assert (account.frames_incomplete, account.frames_complete) == (len(missing), 36 - len(missing))
    assert account.balanced
    assert account.verdict == "incomplete"
    assert [sector.joined for sector in account.sectors] == [33, 36, 27, 28]


def test_a_chunk_that_no_sector_has_is_missing_in_all(tmp_path: Path) -> None:
    scan = RawScan(tmp_path / "raw", 6, 3, 1)
    for module in range(4):
        scan.drop(module, set(range(4, 8)))
    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=4)
    missing = dict.fromkeys(range(4, 8), 15)
    assert masks(counted) == as_masks(18, missing)
    assert rows(counted) == without(scan.electrons, missing)
    assert counted.finished.account.balanced


# What happens to messages on their way.


def lost_tail(place: Place, messages: list[bytes]) -> list[bytes]:
    """Sector 1 loses the last chunk of partition 2 (chunk 2 of 5), but not the end marker."""
    return [*messages[:-2], messages[-1]] if place == (1, 2) else messages


def lost_end(place: Place, messages: list[bytes]) -> list[bytes]:
    """Sector 1's end marker in partition 0 is lost; a start marker of a later scan is there instead."""
    if place != (1, 0):
        return messages
    return [*messages[:-1], messages[0].replace(b'"ordinal":17', b'"ordinal":99')]


def repeated(place: Place, messages: list[bytes]) -> list[bytes]:
    """Sector 3 sends everything twice, and the first chunk once more at the end."""
    return [m for message in messages for m in (message, message)] + messages[1:2] if place[0] == 3 else messages


def damaged(place: Place, messages: list[bytes]) -> list[bytes]:
    """Sector 2's chunk in partition 1 (chunk 1) has a flipped bit."""
    if place != (2, 1):
        return messages
    start, hit, *rest = messages
    return [start, hit[:-1] + bytes([hit[-1] ^ 1]), *rest]


def superseded(place: Place, messages: list[bytes]) -> list[bytes]:
    """A receiver of an older epoch still writes to sector 0, between the messages of the newer one."""
    if place[0] != 0:
        return messages
    old = [hostile.lie(m, epoch=3) if m[:4] == b"chk1" else m.replace(b'"epoch":15', b'"epoch":3') for m in messages]
    return [messages[0], *(m for pair in zip(old, messages[1:], strict=False) for m in pair)]


CHUNK_1, CHUNK_2 = dict.fromkeys(range(8, 16), 4), dict.fromkeys(range(16, 24), 2)


@pytest.mark.parametrize(
    ("change", "missing", "refused"),
    [
        (lost_tail, CHUNK_2, 0),
        (lost_end, {}, 0),
        (repeated, {}, (4 + 4 + 3) + 3),  # each message of three partitions, and a first chunk in each
        (damaged, CHUNK_1, 1),
        (superseded, {}, 3 + 3 + 2),
    ],
)
def test_what_happens_on_the_way_touches_only_what_was_lost(
    scan: RawScan, tmp_path: Path, change: Change, missing: dict[int, int], refused: int
) -> None:
    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=8, change=change)
    assert masks(counted) == as_masks(35, missing)
    assert rows(counted) == without(scan.electrons, missing)
    assert len(counted.refused) == refused
    assert counted.finished.account.balanced == (not missing)
    assert counted.finished.account.verdict == ("incomplete" if missing else "complete")


def test_hostile_messages_between_the_others_change_nothing(scan: RawScan, tmp_path: Path) -> None:
    bad = list(hostile.unreadable_raw_messages().values())

    def change(place: Place, messages: list[bytes]) -> list[bytes]:
        among = list(messages)
        random = np.random.default_rng(place)
        for message in bad[place[0] + 4 * place[1] :: 12]:  # each in some partition
            among.insert(int(random.integers(len(among) + 1)), message)
        return among

    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, change=change)
    assert rows(counted) == scan.electrons
    assert counted.finished.account.verdict == "complete"
    assert len(counted.refused) == len(bad)


def test_a_payload_that_cannot_be_opened_is_a_missing_sector(scan: RawScan, tmp_path: Path) -> None:
    def change(place: Place, messages: list[bytes]) -> list[bytes]:
        if place != (2, 1):
            return messages
        start, hit, *rest = messages
        payload_at = int.from_bytes(hit[4:8], "little")
        return [start, hostile.lie(hit[:payload_at] + bytes(len(hit) - payload_at)), *rest]

    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=8, change=change)
    assert masks(counted) == as_masks(35, CHUNK_1)
    assert rows(counted) == without(scan.electrons, CHUNK_1)
    assert len(counted.refused) == 1


# The bytes on the way, opened without our decoders.


def test_the_pixels_of_all_chunks_are_those_of_the_frames(scan: RawScan, tmp_path: Path) -> None:
    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=8)
    for sector in range(4):
        chunks: dict[int, NDArray[np.uint16]] = {}
        for partition in range(3):
            for message in counted.raw[sector, partition]:
                if message[:4] == b"chk1":
                    index = int.from_bytes(message[48:52], "little")
                    assert index % 3 == partition
                    payload = message[int.from_bytes(message[4:8], "little") :]
                    chunks[index] = np.frombuffer(blosc2.decompress2(payload), "<u2").reshape(-1, 144, 576)
        joined = np.concatenate([chunks[index] for index in range(5)])
        assert np.array_equal(joined, scan.frames[:, 144 * sector : 144 * sector + 144])


def test_the_rows_of_all_event_messages_are_those_of_the_frames(scan: RawScan, tmp_path: Path) -> None:
    counted = count_raw_files(scan.folder, tmp_path, SETTINGS, frames_per_chunk=8)
    chunks: dict[int, Rows] = {}
    for partition, messages in counted.events.items():
        *events, end = messages
        assert end.startswith(b'{"schema_id":"evm1"')
        for at, message in enumerate(events):
            with pa.ipc.open_stream(message) as reader:
                chunks[partition + 3 * at] = reader.read_all()["electrons"].to_pylist()
    assert [row for index in range(5) for row in chunks[index]] == scan.electrons
