"""What corrections do to pixels, case by case, for both engines; and what differs from stempy on purpose."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import counting

MAX = 65_535
ENGINE = pytest.mark.parametrize("engine", counting.ENGINES)

HIT = [[0, 0, 0], [0, 100, 0], [0, 0, 0]]
THIRD = float(np.float32(100) * np.power(np.float32(3), -1))
UNEVEN = [[10, 30, 8, 8]] + [[1] * 4] * 3
BORDER = [[10, 10, 10], [10, 40, 10], [10, 40, 10], [10, 10, 10]]  # two sectors of two rows


def around(value: float, elsewhere: float, shape: tuple[int, int] = (3, 3)) -> NDArray[np.float32]:
    """A reference with one value in the middle and another one elsewhere."""
    reference = np.full(shape, elsewhere, np.float32)
    reference[shape[0] // 2, shape[1] // 2] = value
    return reference


def mean(optimized: float) -> dict[str, Any]:
    return {"row_dark": "mean", "optimized_mean": optimized}


def median(optimized: float) -> dict[str, Any]:
    return {"row_dark": "median", "optimized_mean": optimized}


# name: (frame, background, x-ray, corrections, flat indices of the electrons)
CASES: dict[str, tuple[Any, float, float, dict[str, Any], list[int]]] = {
    # Dark without gain: whole numbers.
    "dark brings a hit to the background threshold": (HIT, 60, 1000, {"dark": around(40, 0)}, []),
    "dark leaves a hit one above the background threshold": (HIT, 60, 1000, {"dark": around(39, 0)}, [4]),
    "without gain the dark's fraction is cut off": (HIT, 60, 1000, {"dark": around(39.99, 0)}, [4]),
    "the fraction of a negative dark is cut off, too": (HIT, 101, 1000, {"dark": around(-1.99, 0)}, []),
    "a negative dark adds": (HIT, 101, 1000, {"dark": around(-2, 0)}, [4]),
    "dark brings an x-ray below its threshold": ([[0, 1005]], 60, 1000, {"dark": [[0, 6.0]]}, [1]),
    "dark leaves an x-ray at its threshold": ([[0, 1005]], 60, 1000, {"dark": [[0, 5.0]]}, []),
    "dark makes a tie": ([[50, 60, 0]], 10, 1000, {"dark": [[0, 10.0, 0]]}, []),
    "dark breaks a tie": ([[60, 60, 0]], 10, 1000, {"dark": [[0, 1.0, 0]]}, [0]),
    "dark makes a plateau": ([[10, 20], [30, 40]], 5, 1000, {"dark": [[0, 10.0], [20, 30]]}, []),
    "below the dark is no electron": (HIT, 10, 2000, {"dark": around(101, 0)}, []),
    "below the dark is no neighbour": ([[5, 50]], 10, 2000, {"dark": [[8.0, 0]]}, [1]),
    "far below the dark wraps round to a hit, as in stempy": ([[0, 0]], 10, 60_000, {"dark": [[0, 5600.0]]}, [1]),
    "a negative dark wraps round above the greatest value": ([[0, MAX]], 0, 60_000, {"dark": [[0, -2.0]]}, [1]),
    "every corner": ([[9, 0, 8], [0, 0, 0], [7, 0, 6]], 3, 100, {"dark": around(0, 2)}, [0, 2, 6, 8]),
    "a tie on a sector border": (BORDER, 25, 100, {"dark": np.full((4, 3), 10.0)}, []),
    "dark decides on a sector border": (BORDER, 25, 100, {"dark": [[10.0] * 3, [10, 11, 10], *[[10.0] * 3] * 2]}, [7]),
    "all zero": ([[0, 0], [0, 0]], 5, 2000, {"dark": np.full((2, 2), 12.0)}, []),
    "all at the greatest value": ([[MAX] * 2] * 2, 5, 60_000, {"dark": np.full((2, 2), 12.0)}, []),
    "all at the greatest value, one dark more": ([[MAX] * 2] * 2, 5, 60_000, {"dark": [[9e3, 8e3], [9e3, 9e3]]}, [1]),
    # Gain, and dark with gain: float32.
    "gain brings a hit to the background threshold": (HIT, 50, 1000, {"gain": around(2, 1)}, []),
    "gain brings a hit above the background threshold": (HIT, 49.999, 1000, {"gain": around(2, 1)}, [4]),
    "gain below 1 makes an x-ray": (HIT, 50, 200, {"gain": around(0.5, 1)}, []),
    "gain below 1, below the x-ray threshold": (HIT, 50, 200.001, {"gain": around(0.5, 1)}, [4]),
    "gain makes a tie": ([[50, 100]], 10, 1000, {"gain": [[1, 2.0]]}, []),
    "gain breaks a tie": ([[50, 50]], 10, 1000, {"gain": [[1, 1.0000001]]}, [0]),
    "gain makes a plateau": ([[10, 20], [40, 80]], 5, 1000, {"gain": [[1, 2.0], [4, 8]]}, []),
    "a brighter raw pixel is darker": ([[50, 60]], 10, 1000, {"gain": [[1.0, 1.5]]}, [0]),
    "an x-ray after gain is no neighbour": ([[50, 60]], 10, 1000, {"gain": [[1, 0.05]]}, [0]),
    "a pixel at the background threshold after gain is no neighbour": ([[40, 41]], 20, 100, {"gain": [[2, 1.0]]}, [1]),
    "values are not rounded to counts": ([[10, 11]], 10.1, 1000, {"gain": [[0.95, 1.0]]}, [1]),
    "with gain the dark's fraction counts": (HIT, 60, 1000, {"dark": around(40.5, 0), "gain": around(1, 1)}, []),
    "dark first, then gain": (HIT, 29, 31, {"dark": around(40, 0), "gain": around(2, 1)}, [4]),
    "dark and gain break a tie": ([[50, 50]], 10, 100, {"dark": [[1.5, 1.25]], "gain": [[1.0, 1.0]]}, [1]),
    "dark and gain make a tie": ([[50, 90]], 10, 100, {"dark": [[10.0, 10]], "gain": [[1.0, 2]]}, []),
    "negative after dark and gain": ([[5, 50]], 10, 100, {"dark": [[40.0, 0]], "gain": [[0.5, 1]]}, [1]),
    "0 between negative values that survive is an electron": (
        [[1, 200, 1]],
        -20,
        100,
        {"dark": [[5.0] * 3], "gain": [[1.0] * 3]},
        [1],
    ),
    "negative values that survive are compared": ([[1, 3]], -20, 100, {"dark": [[5.0, 5]], "gain": [[1.0, 1]]}, [1]),
    "a background between two float32": ([[0, 100]], np.nextafter(THIRD, 0), 100, {"gain": [[3.0, 3]]}, [1]),
    "an x-ray threshold between two float32": ([[0, 100]], 1, np.nextafter(THIRD, 99), {"gain": [[3.0, 3]]}, [1]),
    # Row dark: half rows.
    "each half row is scaled by its own mean": (UNEVEN, 29, 31, mean(20), [1]),
    "below the scaled background": (UNEVEN, 30, 100, mean(20), []),
    "a hit becomes an x-ray": (UNEVEN, 29, 30, mean(20), []),
    "each half row is scaled by its own median": ([[9, 40, 10, 9, 9, 9]] + [[6] * 6] * 5, 79, 81, median(20), [1]),
    "the median of an even half row lies in the middle": (UNEVEN, 29, 31, median(20), [1]),
    "the right half of an odd row is the longer": ([[8, 10, 30]] + [[1] * 3] * 2, 29, 31, mean(20), [2]),
    "scaled values are cut off to whole counts": (UNEVEN, 31, 100, mean(20.9), []),
    "with gain scaled values keep their fraction": (UNEVEN, 31, 100, {**mean(20.9), "gain": np.ones((4, 4))}, [1]),
    "gain comes after row dark": (UNEVEN, 14, 16, {**mean(20), "gain": np.full((4, 4), 2)}, [1]),
    "the statistic is that of the raw values": (
        UNEVEN,
        14,
        16,
        {**mean(20), "dark": [[5.0, 15.0, 0, 0]] + [[0.0] * 4] * 3},
        [1],
    ),
    "with row dark the dark's fraction counts": (
        UNEVEN,
        28.5,
        29.5,
        {**mean(20), "dark": [[0, 0.5, 0, 0]] + [[0.0] * 4] * 3},
        [1],
    ),
    "a half row of zeros stays at 0": ([[0, 0, 9, 9], [0, 0, 9, 30], [0] * 4, [0] * 4], 20, 100, mean(20), [7]),
    "with gain a half row of zeros is not a number and hides its neighbours": (
        [[0, 0, 9, 9], [0, 0, 30, 9], [0] * 4, [0] * 4],
        20,
        100,
        {**mean(20), "gain": np.ones((4, 4))},
        [],
    ),
    "above the greatest value scaled values wrap round": (UNEVEN, 11_427, 11_429, mean(95_000), [1]),
    "an optimized mean of 0 leaves nothing": (UNEVEN, 0, 100, mean(0), []),
}


def split(frames: NDArray[np.uint16], sector_count: int) -> list[NDArray[np.uint16]]:
    return [np.ascontiguousarray(part) for part in np.split(frames, sector_count, axis=1)]


@ENGINE
@pytest.mark.parametrize("name", CASES)
def test_named_cases_give_the_electrons_of_the_table(name: str, engine: str) -> None:
    rows, background, xray, given, electrons = CASES[name]
    frames = np.array([rows], np.uint16)
    references: dict[str, Any] = {k: np.array(v, np.float32) if k in ("dark", "gain") else v for k, v in given.items()}
    indices, offsets = counting.count_frames(frames, background, xray, **references, engine=engine)
    assert indices.tolist() == electrons
    assert offsets.tolist() == [0, len(electrons)]
    slots = np.zeros((1, frames.shape[1]), np.int64)  # each row is a sector
    corrections = counting.Corrections(**references)
    in_sectors, _ = counting.count_sectors(
        split(frames, frames.shape[1]), slots, background, xray, corrections=corrections, engine=engine
    )
    assert in_sectors.tolist() == electrons


def strict_maxima(values: NDArray[np.int64]) -> list[int]:
    """Flat indices of the values above 0 that exceed all their neighbours."""
    padded = np.pad(values, 1, constant_values=-1)
    rows, width = values.shape
    near = [padded[dy : dy + rows, dx : dx + width] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    return [int(i) for i in np.flatnonzero((values > 0) & (values > np.max(near, axis=0)))]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    limit=st.sampled_from([3, 50, MAX]),
    background=st.sampled_from([-5, 0, 1.5, 40, 65_530]),
    xray=st.sampled_from([60_000.5, 65_535, 65_536, 70_000, np.inf]),
)
def test_above_an_xray_threshold_of_60000_below_the_dark_is_0(
    seed: int, limit: int, background: float, xray: float
) -> None:
    rng = np.random.default_rng(seed)
    rows, width = rng.integers(1, 9), rng.choice([2, 5, 70])
    frames = rng.integers(0, limit, (1, rows, width), np.uint16, endpoint=True)
    dark = rng.normal(rng.choice([0, limit / 2, limit]), 2, (rows, width)).clip(-MAX, MAX).astype(np.float32)
    values = frames[0].astype(np.int64) - np.trunc(dark).astype(np.int64)
    values[(values <= background) | (values >= xray)] = 0
    indices, _ = counting.count_frames(frames, background, xray, dark=dark)
    assert indices.tolist() == strict_maxima(np.maximum(values, 0))


def test_above_an_xray_threshold_of_60000_below_the_dark_is_0_with_row_dark_too() -> None:
    frames = np.array([UNEVEN], np.uint16)
    dark = np.full((4, 4), 20.5, np.float32)
    corrections: dict[str, Any] = {"dark": dark, "row_dark": "mean", "optimized_mean": 20}
    electrons = {xray: counting.count_frames(frames, 8, xray, **corrections)[0].tolist() for xray in (60_000, 60_001)}
    assert electrons[60_001] == [1]
    assert electrons[60_000] != [1]  # as in stempy


def test_electrons_may_lie_above_the_greatest_raw_value_after_gain() -> None:
    frames = np.array([[[0, 60_000, 0]]], np.uint16)
    for engine in counting.ENGINES:
        indices, _ = counting.count_frames(
            frames, 100_000, np.inf, gain=np.full((1, 3), 0.5, np.float32), engine=engine
        )
        assert indices.tolist() == [1]
