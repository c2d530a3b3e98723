"""What counting accepts without copying or compiling again, and what it refuses, and how."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import counting

ENGINE = pytest.mark.parametrize("engine", counting.ENGINES)
PROJECT = Path(__file__).parents[2]


def one_hit() -> NDArray[np.uint16]:
    frames = np.zeros((1, 3, 70), np.uint16)
    frames[0, 1, 66] = 9
    return frames


def sectors_of(*shapes: tuple[int, ...]) -> tuple[NDArray[np.uint16], ...]:
    return tuple(np.zeros(shape, np.uint16) for shape in shapes)


def test_importing_counting_imports_no_engine() -> None:
    program = "import sys, counting; print(sorted({'numba', 'llvmlite', 'stempy', 'h5py'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@ENGINE
@pytest.mark.parametrize("message_header", [0, 1, 16, 33], ids="{}-byte header".format)
def test_a_read_only_payload_behind_a_message_header_is_counted(message_header: int, engine: str) -> None:
    message = bytes(message_header) + one_hit().tobytes()
    frames = np.frombuffer(message, np.uint16, offset=message_header).reshape(1, 3, 70)
    assert not frames.flags.writeable
    indices, _ = counting.count_frames(frames, 5, 100, engine=engine)
    assert indices.tolist() == [136]


@ENGINE
def test_the_pixels_stay_as_they_were(engine: str) -> None:
    frames = np.random.default_rng(0).integers(0, 60, (2, 9, 70), np.uint16)
    before = frames.copy()
    counting.count_frames(frames, 20, 50, engine=engine)
    assert np.array_equal(frames, before)


def test_one_compiled_kernel_serves_every_kind_of_array() -> None:
    from counting import fast

    frames = one_hit()
    read_only = np.frombuffer(frames.tobytes(), np.uint16).reshape(frames.shape)
    slots = np.zeros((1, 4), np.int64)
    slots.flags.writeable = False
    counting.count_frames(frames, 5, 100)
    counting.count_frames(read_only, np.float64(5.5), 100.5)
    for sector_count in (1, 2, 3, 4):
        counting.count_sectors((frames, read_only, frames, read_only)[:sector_count], slots[:, :sector_count], 5, 100)
    assert len(fast._count_until_full.signatures) == 1


def test_results_do_not_share_memory_with_later_ones() -> None:
    first, _ = counting.count_frames(one_hit(), 5, 100)
    counting.count_frames(np.roll(one_hit(), 1, axis=2), 5, 100)
    assert first.tolist() == [136]


def test_threads_count_side_by_side() -> None:
    frames = np.random.default_rng(1).integers(0, 60, (8, 64, 200), np.uint16)
    parts = [frames[i : i + 1] for i in range(8)] * 8
    expected = [counting.count_frames(part, 20, 50)[0] for part in parts]
    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(lambda part: counting.count_frames(part, 20, 50)[0], parts))
    assert all(np.array_equal(a, b) for a, b in zip(counted, expected, strict=True))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[[0, 9]]], "frames: expected an array of uint16 in native byte order, got list"),
        (np.zeros((1, 4, 4), np.int32), "frames: expected an array of uint16 in native byte order, got int32"),
        (np.zeros((1, 4, 4), ">u2"), "frames: expected an array of uint16 in native byte order, got >u2"),
        (np.zeros((4, 4), np.uint16), r"frames: expected 3 dimensions \(n, y, x\), got shape \(4, 4\)"),
        (
            np.zeros((1, 4, 8), np.uint16)[:, :, ::2],
            r"frames: expected a C-contiguous array, got strides \(64, 16, 4\)",
        ),
        (np.zeros((1, 1, 1), np.uint16), "frame: expected at least 2 pixels .* got 1 rows of 1"),
        (np.zeros((1, 0, 4), np.uint16), "frame: expected at least 2 pixels .* got 0 rows of 4"),
        (np.zeros((0, 1, 65_536), np.uint16), "frame: .* at most 65535 a side, got 1 rows of 65536"),
    ],
)
@ENGINE
def test_unusable_frames_are_refused(frames: Any, message: str, engine: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=f"^{message}$"):
        counting.count_frames(frames, 5, 100, engine=engine)


@pytest.mark.parametrize(
    ("sectors", "slots", "message"),
    [
        ((), np.zeros((0, 0), np.int64), "sectors: expected at least one array, got none"),
        (
            (np.zeros((1, 2, 4), np.uint16), np.zeros((1, 2, 4), np.uint8)),
            np.zeros((1, 2), np.int64),
            r"sectors\[1\]: expected an array of uint16 in native byte order, got uint8",
        ),
        (
            sectors_of((1, 2, 4), (1, 3, 4)),
            np.zeros((1, 2), np.int64),
            r"sectors\[1\]: expected rows and width of sectors\[0\], \(2, 4\), got \(3, 4\)",
        ),
        (sectors_of((1, 2, 4)), [[0]], "slots: expected an int64 array, got list"),
        (sectors_of((1, 2, 4)), np.zeros((1, 1), np.uint64), "slots: expected an int64 array, got uint64"),
        (
            sectors_of((1, 2, 4), (1, 2, 4)),
            np.zeros((3, 1), np.int64),
            r"slots: expected shape \(n, 2\), one column a sector, got \(3, 1\)",
        ),
        (
            sectors_of((1, 2, 4)),
            np.zeros(1, np.int64),
            r"slots: expected shape \(n, 1\), one column a sector, got \(1,\)",
        ),
        (
            sectors_of((9, 2, 4), (3, 2, 4)),
            np.array([[0, 0], [8, 3]]),
            r"slots\[1, 1\]: expected 0 to 2, as sectors\[1\] holds 3 sector frames, got 3",
        ),
        (
            sectors_of((9, 2, 4)),
            np.array([[-1]]),
            r"slots\[0, 0\]: expected 0 to 8, as sectors\[0\] holds 9 sector frames, got -1",
        ),
    ],
)
@ENGINE
def test_unusable_sectors_and_slots_are_refused(sectors: Any, slots: Any, message: str, engine: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=f"^{message}$"):
        counting.count_sectors(sectors, slots, 5, 100, engine=engine)


@pytest.mark.parametrize(("background", "xray", "name"), [(float("nan"), 100, "background"), (5, float("nan"), "xray")])
@ENGINE
def test_a_threshold_that_is_no_number_is_refused(background: float, xray: float, name: str, engine: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected a threshold in detector counts, got nan$"):
        counting.count_frames(one_hit(), background, xray, engine=engine)


def test_an_unknown_engine_is_refused_with_the_list_of_engines() -> None:
    with pytest.raises(ValueError, match=r"^engine: expected one of fast, stempy, got 'gpu'$"):
        counting.count_frames(one_hit(), 5, 100, engine="gpu")
