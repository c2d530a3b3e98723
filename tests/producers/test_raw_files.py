"""The raw-file source: one clear message for each bad input, and the frames in order whatever the files look like."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from producers.raw_files import RawFiles, find_frames_per_position, open_raw_files
from producers.raw_format import RAW_RECORD, raw_file_name
from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.errors import InputError

SIZE = (4, 3)  # width, height


def records(
    numbers: list[int], size: tuple[int, int] = SIZE, scan_number: int = 1, per_position: int = 1
) -> NDArray[np.void]:
    """Records of these frame numbers; the first pixel says the number."""
    made = np.zeros(len(numbers), RAW_RECORD)
    frames = np.array(numbers, np.int64)
    made["scan_number"], made["frame_number"], made["scan_size"] = scan_number, frames, size
    positions = frames // per_position
    made["scan_position"] = np.stack([positions % size[0], positions // size[0]], axis=-1)
    made["pixels"][:, 0, 0] = frames
    return made


def write(folder: Path, module: int, made: NDArray[np.void], part: int = 0, scan_number: int = 1) -> Path:
    path = folder / raw_file_name(scan_number, module, part)
    made.tofile(path)
    return path


def write_scan(folder: Path, numbers: list[int] | None = None, per_position: int = 1) -> Path:
    """A file a module with these frames; all 12 of the scan unless they are named."""
    for module in range(4):
        write(folder, module, records(list(range(12)) if numbers is None else numbers, per_position=per_position))
    return folder


def numbers_of(files: RawFiles, sector: int, first: int = 0, stop: int = 2**32) -> list[int]:
    return [n for run in files.sector_frames(sector, first, stop) for n in run.frame_numbers.tolist()]


def assert_refused(source: Path | str | list[str], message: str) -> None:
    """Refused with a message of one line that matches this, from its beginning to its end."""
    with pytest.raises(InputError) as refused:
        open_raw_files(str(source) if isinstance(source, Path) else source)
    assert re.fullmatch(message, str(refused.value)), str(refused.value)


# Bad input.


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, r".*: no raw files there \(data_scan…_module0_….data\)")


def test_a_folder_without_raw_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    assert_refused(tmp_path, ".*: no raw files there .*")


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    write_scan(tmp_path)
    assert_refused(f"{tmp_path}/data_scan*7_*.data", r".*data_scan\*7_\*.data: no raw files there .*")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", ".*nowhere: no such file or folder")


def test_a_truncated_record_is_refused_with_what_is_there(tmp_path: Path) -> None:
    path = write(write_scan(tmp_path), 2, records([0, 1, 2]))
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(
        tmp_path, r".*_module2_.*: truncated: 2 whole records and 165804 bytes of another \(a record has 165904 bytes\)"
    )


def test_a_file_that_is_all_of_a_part_of_a_record_is_refused(tmp_path: Path) -> None:
    write_scan(tmp_path)
    (tmp_path / raw_file_name(1, 1, 9)).write_bytes(b"x")
    assert_refused(tmp_path, ".*_module1_0000000009.data: truncated: 0 whole records and 1 bytes of another .*")


def test_missing_modules_are_named(tmp_path: Path) -> None:
    for module in (0, 2):
        write(tmp_path, module, records([0, 1]))
    assert_refused(tmp_path, ".*: no records of module 1, 3")


def test_a_module_whose_files_are_empty_is_missing(tmp_path: Path) -> None:
    write(write_scan(tmp_path), 3, records([]))
    assert_refused(tmp_path, ".*: no records of module 3")


def test_mixed_scan_sizes_are_refused_with_the_sizes(tmp_path: Path) -> None:
    write(write_scan(tmp_path), 1, records([0, 1], size=(5, 6)), part=1)
    assert_refused(tmp_path, ".*: mixed scan sizes: 4x3, 5x6; stream one scan at a time .*")


def test_mixed_scan_numbers_in_the_records_are_refused_with_the_numbers(tmp_path: Path) -> None:
    write(write_scan(tmp_path), 1, records([0, 1], scan_number=77), part=1)
    assert_refused(tmp_path, ".*: mixed scan numbers: 1, 77; stream one scan at a time .*")


def test_files_of_several_scans_are_refused_even_if_their_records_agree(tmp_path: Path) -> None:
    write(write_scan(tmp_path), 1, records([0, 1]), scan_number=2)
    assert_refused(tmp_path, ".*: files of several scans; name one scan's with a glob")


def test_one_scan_of_a_folder_with_several_is_named_with_a_glob(tmp_path: Path) -> None:
    write_scan(tmp_path)
    for module in range(4):
        write(tmp_path, module, records([0], size=(9, 9), scan_number=2), scan_number=2)
    assert open_raw_files(f"{tmp_path}/data_scan0000000002_*").scan_number == 2
    assert open_raw_files([str(path) for path in tmp_path.glob("data_scan0000000001_*")]).width == 4


@pytest.mark.parametrize("name", ["foreign.data", "data_scan1_module4_0.data", "data_scan1_moduleX_0.data"])
def test_a_foreign_name_is_refused_with_what_was_expected(tmp_path: Path, name: str) -> None:
    (write_scan(tmp_path) / name).write_bytes(b"")
    assert_refused(
        tmp_path, rf".*{name}: raw files are named data_scan<number>_module<0…3>_<number>.data, this one is not"
    )


@pytest.mark.parametrize("size", [(0, 3), (4, 0)])
def test_a_scan_without_positions_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    for module in range(4):
        made = records([0])
        made["scan_size"] = size
        write(tmp_path, module, made)
    assert_refused(tmp_path, f".*: scan size {size[0]}x{size[1]}; both must be at least 1")


def test_a_scan_of_more_frames_than_the_camera_counts_is_refused(tmp_path: Path) -> None:
    for module in range(4):
        made = records([0, 1, 2], size=(65_535, 65_535), per_position=3)
        write(tmp_path, module, made)
    assert_refused(tmp_path, ".*: scan of 65535x65535 with 3 frames a position; the limit is 4294967295 frames")


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything

    write_scan(tmp_path)
    monkeypatch.setattr(np, "memmap", denied)
    assert_refused(tmp_path, ".*_module0_.*: cannot be read: Permission denied")


# Sound input.


def test_a_complete_scan_is_described(tmp_path: Path) -> None:
    files = open_raw_files(str(write_scan(tmp_path)))
    assert (files.scan_number, files.width, files.height, files.frames_per_position) == (1, 4, 3, 1)
    assert files.records == 48
    assert [files.count(sector) for sector in range(4)] == [12] * 4


def test_pixels_positions_and_numbers_are_those_of_the_detector(tmp_path: Path) -> None:
    simulation = Simulation(5, 3, frames_per_position=2, electrons=5)
    pixels, _ = simulation.frames(0, 30)
    write_raw_files(simulation, tmp_path, files_per_module=3, out_of_order=7)
    files = open_raw_files(str(tmp_path))
    assert (files.width, files.height, files.frames_per_position) == (5, 3, 2)
    for sector in range(4):
        runs = list(files.sector_frames(sector, 0, 30))
        assert np.concatenate([run.frame_numbers for run in runs]).tolist() == list(range(30))
        assert np.concatenate([run.x for run in runs]).tolist() == [f // 2 % 5 for f in range(30)]
        assert np.concatenate([run.y for run in runs]).tolist() == [f // 2 // 5 for f in range(30)]
        rows = slice(144 * sector, 144 * sector + 144)
        assert np.array_equal(np.concatenate([run.pixels for run in runs]), pixels[:, rows])


def test_a_part_of_the_frames_is_found_whatever_their_order(tmp_path: Path) -> None:
    files = open_raw_files(str(write_scan(tmp_path, [7, 2, 11, 0, 3, 9])))
    assert numbers_of(files, 0) == [0, 2, 3, 7, 9, 11]
    assert numbers_of(files, 1, 2, 9) == [2, 3, 7]
    assert numbers_of(files, 2, 4, 7) == []
    assert numbers_of(files, 3, 11, 2**32) == [11]


def test_frames_that_lie_together_come_together(tmp_path: Path) -> None:
    files = open_raw_files(str(write_scan(tmp_path, [0, 1, 2, 5, 6, 3, 4])))
    assert [run.frame_numbers.tolist() for run in files.sector_frames(0, 0, 12)] == [[0, 1, 2], [3, 4], [5, 6]]


def test_several_files_of_a_module_are_one_sector(tmp_path: Path) -> None:
    write_scan(tmp_path, [0, 3, 6])
    write(tmp_path, 2, records([1, 4]), part=1)
    write(tmp_path, 2, records([5, 2]), part=2)
    write(tmp_path, 2, records([]), part=3)
    files = open_raw_files(str(tmp_path))
    assert numbers_of(files, 2) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers_of(files, 1) == [0, 3, 6]


def test_of_a_frame_that_is_there_twice_the_first_file_comes_first(tmp_path: Path) -> None:
    write_scan(tmp_path, [0, 1, 2])
    again = records([1])
    again["pixels"][0, 0, 0] = 999
    write(tmp_path, 0, again, part=1)
    files = open_raw_files(str(tmp_path))
    assert numbers_of(files, 0) == [0, 1, 1, 2]
    assert [run.pixels[:, 0, 0].tolist() for run in files.sector_frames(0, 1, 2)] == [[1], [999]]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    write_scan(tmp_path)
    files = open_raw_files([str(tmp_path), str(tmp_path / raw_file_name(1, 0, 0)), f"{tmp_path}/*.data"])
    assert files.records == 48


def test_frames_past_the_scan_are_kept_for_the_receiver_to_refuse(tmp_path: Path) -> None:
    files = open_raw_files(str(write_scan(tmp_path, [*range(12), 4_000_000_000])))
    assert numbers_of(files, 0, 12, 2**32)[-1] == 4_000_000_000


# How many frames a position has.


def numbers_and_positions(positions: int, per_position: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    numbers = np.arange(positions * per_position)
    return numbers, numbers // per_position


@pytest.mark.parametrize("per_position", [1, 2, 3, 4, 7, 100, 4096])
@pytest.mark.parametrize("positions", [1, 2, 12])
def test_the_frames_a_position_are_found(positions: int, per_position: int) -> None:
    assert find_frames_per_position(*numbers_and_positions(positions, per_position)) == per_position


@pytest.mark.parametrize("per_position", [1, 2, 3, 5])
def test_missing_frames_do_not_change_the_frames_a_position(per_position: int) -> None:
    numbers, positions = numbers_and_positions(50, per_position)
    kept = np.random.default_rng(per_position).random(len(numbers)) < 0.6
    assert find_frames_per_position(numbers[kept], positions[kept]) == per_position


@pytest.mark.parametrize("per_position", [1, 2, 3, 5])
def test_a_few_nonsense_records_do_not_change_the_frames_a_position(per_position: int) -> None:
    numbers, positions = numbers_and_positions(50, per_position)
    random = np.random.default_rng(per_position)
    nonsense = random.choice(len(numbers), len(numbers) // 5, replace=False)
    numbers[nonsense] = random.integers(0, 2**32, len(nonsense))
    positions[nonsense[::2]] = random.integers(-1, 50, len(nonsense[::2]))
    shuffled = random.permutation(len(numbers))
    assert find_frames_per_position(numbers[shuffled], positions[shuffled]) == per_position


def test_without_any_sound_record_there_is_one_frame_a_position() -> None:
    assert find_frames_per_position(np.array([5, 7]), np.array([-1, -1])) == 1
    assert find_frames_per_position(np.array([0, 1]), np.array([9, 9])) == 1


def test_records_beside_the_scan_have_no_say_in_the_frames_a_position(tmp_path: Path) -> None:
    for module in range(4):
        beside = records([4, 5, 6, 7])
        beside["scan_position"] = [(x, 0) for x in (4, 5, 6, 7)]  # in one long row, they would say 1
        write(tmp_path, module, np.concatenate([records([2, 3], per_position=2), beside]))
    assert open_raw_files(str(tmp_path)).frames_per_position == 2


@pytest.mark.parametrize("per_position", [1, 2, 4])
def test_files_with_missing_and_nonsense_records_say_how_many_frames_a_position_has(
    tmp_path: Path, per_position: int
) -> None:
    frames = 12 * per_position
    for module in range(4):
        made = records([f for f in range(frames) if f % 5 != module], per_position=per_position)
        made["scan_position"][3] = (60_000, 60_000)
        write(tmp_path, module, made)
    assert open_raw_files(str(tmp_path)).frames_per_position == per_position
