"""The rule of counting, case by case, for both engines; and drawn at random against a reference in plain numpy."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

import counting

Rows = Sequence[Sequence[int]]

MAX = 65_535
ENGINE = pytest.mark.parametrize("engine", counting.ENGINES)

# name: (frame, background threshold, x-ray threshold, flat indices of the electrons)
CASES: dict[str, tuple[Rows, float, float, list[int]]] = {
    "a lone hit": ([[0, 0, 0], [0, 9, 0], [0, 0, 0]], 5, 100, [4]),
    "a charge-shared hit is one electron": ([[6, 7, 0], [8, 9, 6], [0, 7, 6]], 5, 100, [4]),
    "noise beside a hit": ([[4, 3, 5], [2, 9, 4], [1, 5, 3]], 5, 100, [4]),
    "a tie of two neighbours": ([[0, 0, 0, 0], [0, 9, 9, 0], [0, 0, 0, 0]], 5, 100, []),
    "a tie across the diagonal": ([[9, 0], [0, 9]], 5, 100, []),
    "a tie down a column": ([[0, 9, 0], [0, 9, 0], [0, 0, 0]], 5, 100, []),
    "equal hits two pixels apart": ([[9, 0, 9], [0, 0, 0], [9, 0, 9]], 5, 100, [0, 2, 6, 8]),
    "a plateau": ([[0] * 5, [0, 9, 9, 9, 0], [0, 9, 9, 9, 0], [0, 9, 9, 9, 0], [0] * 5], 5, 100, []),
    "a plateau with a peak": ([[9, 9, 9], [9, 10, 9], [9, 9, 9]], 5, 100, [4]),
    "every corner": ([[9, 0, 0, 8], [0, 0, 0, 0], [7, 0, 0, 6]], 5, 100, [0, 3, 8, 11]),
    "every edge": ([[0, 9, 0], [0, 0, 0], [9, 0, 9], [0, 0, 0], [0, 9, 0]], 5, 100, [1, 6, 8, 13]),
    "the last pixel of a row is no neighbour of the next row": ([[0, 0, 9], [0, 0, 0], [9, 0, 0]], 5, 100, [2, 6]),
    "rows do not wrap round": ([[0, 0, 0, 9], [9, 0, 0, 0]], 5, 100, [3, 4]),
    "columns do not wrap round": ([[9, 0], [0, 0], [0, 0], [9, 0]], 5, 100, [0, 6]),
    "one row": ([[9, 0, 8, 8, 0, 7, 6]], 5, 100, [0, 5]),
    "one column": ([[9], [0], [8], [8], [0], [6], [7]], 5, 100, [0, 6]),
    "a pixel at the background threshold is 0": ([[0, 0, 0], [0, 5, 0], [0, 0, 0]], 5, 100, []),
    "a pixel one above the background threshold": ([[0, 0, 0], [0, 6, 0], [0, 0, 0]], 5, 100, [4]),
    "a pixel at the x-ray threshold is 0": ([[0, 0, 0], [0, 100, 0], [0, 0, 0]], 5, 100, []),
    "a pixel one below the x-ray threshold": ([[0, 0, 0], [0, 99, 0], [0, 0, 0]], 5, 100, [4]),
    "an electron beside an x-ray": ([[0, 0, 0], [0, 500, 9], [0, 0, 0]], 5, 100, [5]),
    "electrons in the slopes of an x-ray": ([[20, 0, 0], [0, 100, 0], [0, 0, 99]], 5, 100, [0, 8]),
    "fractional background below the value": ([[0, 6]], 5.999, 100, [1]),
    "fractional background above the value": ([[0, 6]], 6.001, 100, []),
    "fractional x-ray above the value": ([[0, 6]], 0.5, 6.001, [1]),
    "fractional x-ray below the value": ([[0, 6]], 0.5, 5.999, []),
    "fractional background between equal and less": ([[6, 7]], 6.5, 100, [1]),
    "both thresholds within one count": ([[0, 6]], 6.1, 6.9, []),
    "only one value survives": ([[5, 6, 7]], 5.5, 6.5, [1]),
    "background at the x-ray threshold": ([[0, 6]], 6, 6, []),
    "background above the x-ray threshold": ([[0, 6]], 50, 5, []),
    "negative background, all zero": ([[0, 0, 0], [0, 0, 0]], -1, 100, []),
    "negative background, a hit of 1": ([[0, 0, 0], [0, 1, 0]], -5.5, 100, [4]),
    "negative background, x-ray threshold below 1": ([[0, 0], [0, 1]], -1, 0.5, []),
    "negative thresholds": ([[0, 1]], -10, -1, []),
    "background of 0": ([[0, 1]], 0, 100, [1]),
    "all zero": ([[0] * 4] * 4, 5, 100, []),
    "all at the greatest value": ([[MAX] * 4] * 4, 5, 1e9, []),
    "all x-rays": ([[MAX] * 4] * 4, 5, 2000, []),
    "the greatest value": ([[0, MAX]], 5, 65_536, [1]),
    "the greatest value at the x-ray threshold": ([[0, MAX]], 5, MAX, []),
    "the greatest value just below the x-ray threshold": ([[0, MAX]], 5, 65_535.5, [1]),
    "background just below the greatest value": ([[MAX - 1, MAX]], 65_534.5, 1e9, [1]),
    "background at the greatest value": ([[0, MAX]], MAX, 1e9, []),
    "background above the greatest value": ([[0, MAX]], 70_000, 1e9, []),
    "values whose sign bit is set": ([[32_767, 32_768], [0, 32_766]], 32_766, 1e9, [1]),
    "no x-ray threshold": ([[0, MAX]], 5, np.inf, [1]),
    "no background threshold": ([[0, 1]], -np.inf, 100, [1]),
    "an infinite background": ([[0, MAX]], np.inf, 100, []),
}


def reference_count(frame: NDArray[np.uint16], background: float, xray: float) -> NDArray[np.uint32]:
    """The rule in plain numpy; -1 stands around the frame, below every pixel."""
    surviving = np.where((frame > background) & (frame < xray), frame, 0).astype(np.int64)
    padded = np.pad(surviving, 1, constant_values=-1)
    neighbours = [
        padded[1 + dy : 1 + dy + frame.shape[0], 1 + dx : 1 + dx + frame.shape[1]]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    ]
    electrons = (surviving > 0) & (surviving > np.max(neighbours, axis=0))
    return np.flatnonzero(electrons).astype(np.uint32)


@ENGINE
@pytest.mark.parametrize("name", CASES)
def test_named_cases_give_the_electrons_of_the_table(name: str, engine: str) -> None:
    rows, background, xray, electrons = CASES[name]
    frames = np.array([rows], np.uint16)
    indices, offsets = counting.count_frames(frames, background, xray, engine=engine)
    assert indices.tolist() == electrons
    assert offsets.tolist() == [0, len(electrons)]


@pytest.mark.parametrize("name", CASES)
def test_the_reference_agrees_with_the_table(name: str) -> None:
    rows, background, xray, electrons = CASES[name]
    assert reference_count(np.array(rows, np.uint16), background, xray).tolist() == electrons


# The kernel reads stretches of 64 pixels, whatever is left of a row one by one.
@ENGINE
@pytest.mark.parametrize("width", [63, 64, 65, 127, 128, 129, 576])
def test_a_hit_is_found_in_every_column_whatever_the_width(width: int, engine: str) -> None:
    frames = np.zeros((width, 3, width), np.uint16)
    frames[np.arange(width), 1, np.arange(width)] = 9
    indices, offsets = counting.count_frames(frames, 5, 100, engine=engine)
    assert indices.tolist() == list(range(width, 2 * width))
    assert offsets.tolist() == list(range(width + 1))


@ENGINE
@pytest.mark.parametrize("x", [62, 63, 64, 126, 127])
def test_a_tie_across_two_stretches_gives_no_electron(x: int, engine: str) -> None:
    frames = np.zeros((1, 2, 130), np.uint16)
    frames[0, 0, x] = frames[0, 1, x + 1] = 9
    indices, _ = counting.count_frames(frames, 5, 100, engine=engine)
    assert indices.tolist() == []


@ENGINE
@pytest.mark.parametrize("shape", [(576, 576), (7, 9), (8, 8), (1, 130), (129, 1)])
def test_a_frame_as_full_as_can_be_has_an_electron_in_every_second_pixel(shape: tuple[int, int], engine: str) -> None:
    frames = np.zeros((5, *shape), np.uint16)
    frames[:, ::2, ::2] = 9
    indices, offsets = counting.count_frames(frames, 5, 100, engine=engine)
    full = np.flatnonzero(frames[0])
    assert np.array_equal(indices, np.tile(full, 5))
    assert np.array_equal(offsets, len(full) * np.arange(6))


@ENGINE
def test_no_frames_give_no_electrons(engine: str) -> None:
    indices, offsets = counting.count_frames(np.zeros((0, 4, 6), np.uint16), 5, 100, engine=engine)
    assert indices.dtype == np.uint32
    assert indices.shape == (0,)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [0]


@ENGINE
def test_frames_without_electrons_have_empty_rows_between_the_others(engine: str) -> None:
    frames = np.zeros((5, 4, 6), np.uint16)
    frames[1, 0, 0] = frames[1, 3, 5] = frames[3, 2, 2] = 9
    indices, offsets = counting.count_frames(frames, 5, 100, engine=engine)
    assert indices.dtype == np.uint32
    assert offsets.dtype == np.int64
    assert indices.tolist() == [0, 23, 14]
    assert offsets.tolist() == [0, 0, 2, 2, 3, 3]


@settings(max_examples=300, deadline=None)
@given(
    frame=npst.arrays(
        np.uint16,
        st.tuples(st.integers(1, 7), st.integers(2, 7)),
        elements=st.integers(0, 4) | st.integers(0, MAX),
    ),
    background=st.integers(-2, 6) | st.floats(-2, 70_000),
    xray=st.integers(-2, 6) | st.floats(-2, 70_000),
)
def test_the_fast_engine_follows_the_reference(frame: NDArray[np.uint16], background: float, xray: float) -> None:
    indices, _ = counting.count_frames(frame[np.newaxis], background, xray)
    assert np.array_equal(indices, reference_count(frame, background, xray))
