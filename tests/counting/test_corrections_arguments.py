"""Which corrections are refused, and how; and that those in use are prepared once and stay as they were."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stempy.image import electron_count_frame

import counting

PROJECT = Path(__file__).parents[2]
ONES = np.ones((4, 4), np.float32)


def with_one(value: float, dtype: type = np.float32) -> NDArray[Any]:
    reference: NDArray[Any] = np.ones((4, 4), dtype)
    reference[2, 3] = value
    return reference


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dark": [[1.0]]}, "dark: expected an array of float32 or float64, got list"),
        ({"dark": ONES.astype(complex)}, "dark: expected an array of float32 or float64, got complex128"),
        ({"gain": ONES.astype(np.int32)}, "gain: expected an array of float32 or float64, got int32"),
        ({"dark": ONES[0]}, "dark: expected 2 dimensions (y, x), got shape (4,)"),
        ({"gain": ONES[np.newaxis]}, "gain: expected 2 dimensions (y, x), got shape (1, 4, 4)"),
        ({"dark": with_one(np.nan)}, "dark: expected finite values, got nan at y 2, x 3 (1 such pixels)"),
        ({"gain": with_one(np.inf)}, "gain: expected finite values, got inf at y 2, x 3 (1 such pixels)"),
        ({"gain": with_one(0)}, "gain: expected values above 0, got 0.0 at y 2, x 3 (1 such pixels)"),
        ({"gain": -ONES}, "gain: expected values above 0, got -1.0 at y 0, x 0 (16 such pixels)"),
        (
            {"gain": with_one(2.0**-130)},
            "gain: expected values whose inverse is finite, got 7.346839692639297e-40 at y 2, x 3 (1 such pixels)",
        ),
        (
            {"dark": with_one(70_000)},
            "dark: expected -65535 to 65535 detector counts, got 70000.0 at y 2, x 3 (1 such pixels)",
        ),
        (
            {"dark": with_one(0.1, np.float64)},
            "dark: expected values that float32 holds without loss (dark.astype(np.float32) helps), "
            "got 0.1 at y 2, x 3 (1 such pixels)",
        ),
        (
            {"gain": with_one(10, np.float64)},
            "gain: expected 1 / gain that float32 holds without loss (gain.astype(np.float32) helps), "
            "got 0.1 at y 2, x 3 (1 such pixels)",
        ),
        ({"dark": ONES, "gain": ONES[:, :3]}, "gain: expected the shape of dark, (4, 4), got (4, 3)"),
        ({"row_dark": "mean"}, "optimized_mean: expected a mean in detector counts with row_dark, got none"),
        ({"optimized_mean": 12.0}, "optimized_mean: expected none without row_dark, got 12.0"),
        ({"row_dark": "mode", "optimized_mean": 1}, "row_dark: expected one of mean, median, got 'mode'"),
        (
            {"row_dark": "mean", "optimized_mean": np.nan},
            "optimized_mean: expected a mean in detector counts, got nan",
        ),
        (
            {"row_dark": "mean", "optimized_mean": 1e39},
            "optimized_mean: expected a mean in detector counts, got 1e+39",
        ),
    ],
)
def test_unusable_corrections_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counting.Corrections(**given)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counting.count_frames(np.zeros((1, 4, 4), np.uint16), 5, 100, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dark": ONES}, "dark: expected the shape of a frame (y, x), (2, 4), got (4, 4)"),
        ({"gain": ONES.T[:3]}, "gain: expected the shape of a frame (y, x), (2, 4), got (3, 4)"),
        (
            {"row_dark": "median", "optimized_mean": 12},
            "row_dark: expected square frames, as stempy does, got 2 rows of 4",
        ),
    ],
)
@pytest.mark.parametrize("engine", counting.ENGINES)
def test_corrections_for_other_frames_are_refused(given: dict[str, Any], message: str, engine: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counting.count_frames(np.zeros((1, 2, 4), np.uint16), 5, 100, **given, engine=engine)
    sectors, slots = (np.zeros((1, 1, 4), np.uint16),) * 2, np.zeros((1, 2), np.int64)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counting.count_sectors(sectors, slots, 5, 100, corrections=counting.Corrections(**given), engine=engine)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16])
def test_a_dark_of_any_real_type_is_taken_as_float32(dtype: type) -> None:
    dark = counting.Corrections(dark=np.full((4, 4), 12, dtype)).dark
    assert dark is not None
    assert dark.dtype == np.float32
    assert (dark == 12).all()


def test_the_gain_is_inverted_in_its_own_type_as_stempy_does_it() -> None:
    gain = np.random.default_rng(0).normal(1, 0.1, (50, 50)).astype(np.float32)
    inverse = counting.Corrections(gain=gain).inverse_gain
    assert inverse is not None
    assert inverse.dtype == np.float32
    assert np.array_equal(inverse, np.power(gain, -1))
    wide = np.array([[2.0, 4.0]])
    inverse = counting.Corrections(gain=wide).inverse_gain
    assert inverse is not None
    assert inverse.tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("given", [{"dark": with_one(0.1, np.float64)}, {"gain": with_one(10, np.float64)}])
def test_stempy_refuses_the_same_references_in_float64(given: dict[str, Any]) -> None:
    given = {"darkreference" if name == "dark" else name: reference for name, reference in given.items()}
    with pytest.raises(ValueError, match="without loss of precision"):
        electron_count_frame(np.zeros((4, 4), np.uint16), **given)


def test_references_changed_afterwards_change_nothing() -> None:
    frames = np.array([[[0, 50, 0, 0]]], np.uint16)
    dark, gain = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    corrections = counting.Corrections(dark, gain)
    dark[:], gain[:] = 1000, 1000
    indices, _ = counting.count_sectors((frames,), np.zeros((1, 1), np.int64), 5, 100, corrections=corrections)
    assert indices.tolist() == [1]
    assert corrections.gain is not None
    assert not corrections.gain.flags.writeable


def test_the_frames_stay_as_they_were() -> None:
    frames = np.random.default_rng(0).integers(0, 60, (2, 9, 9), np.uint16)
    before = frames.copy()
    references: dict[str, Any] = {"dark": np.full((9, 9), 5.5, np.float32), "gain": np.full((9, 9), 1.5, np.float32)}
    for engine in counting.ENGINES:
        counting.count_frames(frames, 2, 50, **references, engine=engine)
        counting.count_frames(frames, 2, 50, **references, row_dark="mean", optimized_mean=9, engine=engine)
    assert np.array_equal(frames, before)


def test_read_only_references_that_are_not_contiguous_are_taken() -> None:
    frames = np.array([[[0, 50, 0], [0, 0, 0]]], np.uint16)
    dark = np.zeros((6, 4), np.float32).T[::2, ::2]
    dark.flags.writeable = False
    for engine in counting.ENGINES:
        indices, _ = counting.count_frames(frames, 5, 100, dark=dark, gain=dark + 1, engine=engine)
        assert indices.tolist() == [1]


def test_what_depends_on_the_corrections_only_is_prepared_once() -> None:
    from counting import fast

    sectors, slots = (np.zeros((1, 1, 70), np.uint16),) * 4, np.zeros((1, 4), np.int64)
    corrections = counting.Corrections(np.ones((4, 70), np.float32), np.ones((4, 70), np.float32))
    fast._plan.cache_clear()
    for _ in range(3):
        counting.count_sectors(sectors, slots, 5, 100, corrections=corrections)
    assert fast._plan.cache_info().misses == 1
    counting.count_sectors(sectors, slots, 6, 100, corrections=corrections)
    assert fast._plan.cache_info().misses == 2


def test_one_compiled_kernel_serves_all_corrections() -> None:
    from counting import correcting, fast

    frames = np.zeros((1, 4, 4), np.uint16)
    for given in ({}, {"dark": ONES}, {"gain": ONES}, {"dark": ONES, "gain": ONES.astype(np.float64)}):
        counting.count_frames(frames, 5, 100, **given)
        counting.count_frames(frames, np.float64(5.5), 100.5, **given, row_dark="mean", optimized_mean=3)
        counting.count_frames(frames, -1, 100, **given, row_dark="median", optimized_mean=np.float64(3))
    assert len(fast._count_until_full.signatures) == 1
    assert len(correcting._count_frame.signatures) == 1


def test_threads_count_side_by_side_with_the_same_corrections() -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 60, (16, 64, 64), np.uint16)
    dark, gain = rng.normal(5, 1, (64, 64)).astype(np.float32), rng.normal(1, 0.1, (64, 64)).astype(np.float32)
    all_corrections = [
        counting.Corrections(dark),
        counting.Corrections(dark, gain),
        counting.Corrections(dark, gain, "mean", 20.0),
    ]
    jobs = [(slot, corrections) for slot in range(16) for corrections in all_corrections]

    def count(job: tuple[int, counting.Corrections]) -> list[int]:
        slots = np.array([[job[0]]])
        return list(map(int, counting.count_sectors((frames,), slots, 20, 50, corrections=job[1])[0]))

    expected = [count(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, jobs)) == expected


def test_corrections_and_thresholds_import_nothing_heavy() -> None:
    program = (
        "import sys, counting.thresholds, counting.corrections; counting.Corrections();"
        "print(sorted({'numba', 'llvmlite', 'stempy', 'h5py', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
