"""Raw files as the camera's servers leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stempy.io
from numpy.typing import NDArray

from producers import raw_writer
from producers.raw_format import RAW_RECORD, parse_raw_file_name, raw_file_name
from producers.raw_writer import NotEnoughDiskSpaceError, write_raw_files
from producers.simulator import Simulation

SECTORS = range(4)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """A scan that is not square, with two frames a position: 30 frames."""
    return Simulation(5, 3, frames_per_position=2, electrons=30, seed=3)


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_writer, "BATCH_FRAMES", 8)


def records(*paths: Path) -> NDArray[np.void]:
    return np.concatenate([np.fromfile(path, RAW_RECORD) for path in paths])


def of_module(paths: list[Path], module: int) -> list[Path]:
    return [path for path in paths if f"_module{module}_" in path.name]


def test_a_record_is_a_16_byte_header_and_one_sector_frame() -> None:
    assert RAW_RECORD.itemsize == 16 + 144 * 576 * 2
    assert [field[1] for field in (RAW_RECORD.fields or {}).values()] == [0, 4, 8, 12, 16]


def test_a_file_name_says_scan_module_and_part() -> None:
    name = "data_scan0000000123_module2_0000000045.data"
    assert raw_file_name(123, 2, 45) == name
    assert parse_raw_file_name(name) == (123, 2, 45)


@pytest.mark.parametrize(
    "name", ["", "data.data", "data_scan0000000001_module0_0000000000.data.part", "x_data_scan1_module0_0.data"]
)
def test_another_name_is_no_raw_file(name: str) -> None:
    assert parse_raw_file_name(name) is None


def test_headers_say_scan_frame_size_and_position(simulation: Simulation, tmp_path: Path) -> None:
    paths = write_raw_files(simulation, tmp_path, scan_number=9)
    assert [path.name for path in paths] == [raw_file_name(9, module, 0) for module in SECTORS]
    for path in paths:
        written = records(path)
        assert set(written["scan_number"].tolist()) == {9}
        assert written["frame_number"].tolist() == list(range(30))
        assert set(map(tuple, written["scan_size"].tolist())) == {(5, 3)}
        positions = [frame // 2 for frame in range(30)]
        assert written["scan_position"].tolist() == [[p % 5, p // 5] for p in positions]


def test_each_module_holds_its_rows_of_the_frames(simulation: Simulation, tmp_path: Path) -> None:
    paths = write_raw_files(simulation, tmp_path)
    joined = np.concatenate([records(path)["pixels"] for path in paths], axis=1)
    assert np.array_equal(joined, simulation.frames(0, 30)[0])


@pytest.mark.parametrize("files_per_module", [1, 3, 40])
def test_every_frame_is_in_exactly_one_file_of_each_module(
    simulation: Simulation, tmp_path: Path, files_per_module: int
) -> None:
    paths = write_raw_files(simulation, tmp_path, files_per_module=files_per_module, out_of_order=2)
    assert len(paths) == 4 * files_per_module
    for module in SECTORS:
        files = of_module(paths, module)
        for part, path in enumerate(files):
            assert all(frame % files_per_module == part for frame in records(path)["frame_number"])
        assert sorted(records(*files)["frame_number"].tolist()) == list(range(30))


def test_records_come_out_of_order_within_the_depth_and_differently_in_each_module(
    simulation: Simulation, tmp_path: Path
) -> None:
    paths = write_raw_files(simulation, tmp_path, out_of_order=4)
    orders = [records(path)["frame_number"].astype(int) for path in paths]
    for order in orders:
        assert 0 < np.abs(order - np.arange(30)).max() <= 4
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_out_of_order_records_keep_their_pixels(simulation: Simulation, tmp_path: Path) -> None:
    pixels, _ = simulation.frames(0, 30)
    for module, path in enumerate(write_raw_files(simulation, tmp_path, out_of_order=11)):
        written = records(path)
        expected = pixels[written["frame_number"], module * 144 : (module + 1) * 144]
        assert np.array_equal(written["pixels"], expected)


def test_the_same_simulation_gives_the_same_files(simulation: Simulation, tmp_path: Path) -> None:
    first = write_raw_files(simulation, tmp_path / "first", out_of_order=3)
    second = write_raw_files(simulation, tmp_path / "second", out_of_order=3)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_stempys_reader_opens_the_files(tmp_path: Path) -> None:
    simulation = Simulation(4, 3, electrons=30)
    paths = write_raw_files(simulation, tmp_path, files_per_module=2, out_of_order=2)
    pixels, _ = simulation.frames(0, 12)
    positions = []
    for block in stempy.io.reader([str(path) for path in paths], version=stempy.io.FileVersion.VERSION5):
        assert block.header.scan_dimensions == (4, 3)
        [position] = block.header.image_numbers
        assert np.array_equal(block.data[0], pixels[position])
        positions.append(position)
    assert sorted(positions) == list(range(12))


def test_the_truth_file_says_what_hit_the_detector(tmp_path: Path) -> None:
    simulation = Simulation(5, 3, electrons=30, xrays=0.5)
    write_raw_files(simulation, tmp_path, truth=tmp_path / "truth")
    _, truth = simulation.frames(0, 15)
    with np.load(tmp_path / "truth") as archive:
        for name, column in truth._asdict().items():
            assert np.array_equal(archive[name], column), name
        assert np.array_equal(archive["dark"], simulation.dark)
        assert Simulation(**json.loads(str(archive["simulation"]))) == simulation


def test_progress_says_how_many_frames_are_done(simulation: Simulation, tmp_path: Path) -> None:
    done: list[int] = []
    write_raw_files(simulation, tmp_path, progress=done.append)
    assert done == [8, 16, 24, 30]


def test_raw_files_of_the_same_scan_are_not_overwritten(simulation: Simulation, tmp_path: Path) -> None:
    there = tmp_path / raw_file_name(1, 3, 7)
    there.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="raw files of scan 1 already"):
        write_raw_files(simulation, tmp_path)
    assert list(tmp_path.iterdir()) == [there]
    assert len(write_raw_files(simulation, tmp_path, scan_number=2)) == 4
    assert there.read_bytes() == b"precious"


def test_too_little_disk_space_is_said_before_anything_is_written(
    simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=30 * 4 * RAW_RECORD.itemsize - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(NotEnoughDiskSpaceError, match="need 19,908,480 bytes, 19,908,479 are free"):
        write_raw_files(simulation, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_writer_that_fails_half_way_leaves_no_files(simulation: Simulation, tmp_path: Path) -> None:
    def fail(frames: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raw_files(simulation, tmp_path, truth=tmp_path / "truth.npz", progress=fail)
    assert not list(tmp_path.iterdir())


def test_a_truth_file_that_is_there_is_not_overwritten(simulation: Simulation, tmp_path: Path) -> None:
    truth = tmp_path / "truth.npz"
    truth.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_raw_files(simulation, tmp_path, truth=truth)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("truth.npz", b"precious")]


def into_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return into_a_file(folder) / "folder"


@pytest.mark.parametrize("output", [into_a_file, below_a_file])
def test_an_output_that_is_no_folder_is_refused(
    simulation: Simulation, tmp_path: Path, output: Callable[[Path], Path]
) -> None:
    with pytest.raises(OSError, match="file"):
        write_raw_files(simulation, output(tmp_path))


@pytest.mark.parametrize("wrong", [{"files_per_module": 0}, {"out_of_order": -1}])
def test_wrong_numbers_are_refused(simulation: Simulation, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        write_raw_files(simulation, tmp_path, **wrong)
