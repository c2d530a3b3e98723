"""Same pixels, same electrons: the fast engine against stempy's compiled code."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

import counting

MAX = 65_535
THOROUGH = settings(max_examples=300, deadline=None)


def assert_engines_agree(frames: NDArray[np.uint16], background: float, xray: float) -> int:
    """Compare the engines exactly and give the number of electrons."""
    fast_indices, fast_offsets = counting.count_frames(frames, background, xray, engine="fast")
    stempy_indices, stempy_offsets = counting.count_frames(frames, background, xray, engine="stempy")
    assert (fast_indices.dtype, fast_offsets.dtype) == (stempy_indices.dtype, stempy_offsets.dtype)
    assert np.array_equal(fast_offsets, stempy_offsets)
    assert np.array_equal(fast_indices, stempy_indices)
    return len(fast_indices)


def frames_drawn_below(limit: int) -> st.SearchStrategy[NDArray[np.uint16]]:
    shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(2, 9))
    return npst.arrays(np.uint16, shapes, elements=st.integers(0, limit))


@THOROUGH
@given(frames=frames_drawn_below(MAX), background=st.floats(-10, 70_000), xray=st.floats(-10, 1e6))
@example(frames=np.array([[[MAX, 0]]], np.uint16), background=65_534.999, xray=65_535.001)
def test_engines_agree_over_the_full_range_of_values(
    frames: NDArray[np.uint16], background: float, xray: float
) -> None:
    assert_engines_agree(frames, background, xray)


@THOROUGH
@given(
    frames=frames_drawn_below(7),
    background=st.integers(-1, 7) | st.floats(-1, 8),
    xray=st.integers(0, 9) | st.floats(0, 9),
)
def test_engines_agree_where_ties_and_threshold_values_are_everywhere(
    frames: NDArray[np.uint16], background: float, xray: float
) -> None:
    assert_engines_agree(frames, background, xray)


@THOROUGH
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 6),
    width=st.integers(60, 200),
    limit=st.sampled_from([1, 2, 5, 40, 1000, MAX]),
    thresholds=st.tuples(st.floats(-0.1, 1.1), st.floats(0, 1.2)),
)
def test_engines_agree_on_wide_frames(
    seed: int, rows: int, width: int, limit: int, thresholds: tuple[float, float]
) -> None:
    background, xray = thresholds
    frames = np.random.default_rng(seed).integers(0, limit, (2, rows, width), np.uint16, endpoint=True)
    assert_engines_agree(frames, background * limit, xray * limit)


def simulated_frames(seed: int, electrons: int) -> NDArray[np.uint16]:
    """Four 576 x 576 frames: an offset with noise, charge-shared hits, and some x-rays."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(12, 5, (4, 576, 576))
    for frame in frames:
        y, x = rng.integers(0, 576, (2, electrons))
        charge = rng.gamma(4, 40, electrons)
        for dy, dx, share in [(0, 0, 0.6), (0, 1, 0.2), (1, 0, 0.15), (-1, -1, 0.05)]:
            np.add.at(frame, (np.clip(y + dy, 0, 575), np.clip(x + dx, 0, 575)), charge * share)
        y, x = rng.integers(0, 575, (2, 20))
        frame[y, x] += rng.uniform(1500, 70_000, 20)
        frame[y, x + 1] += rng.uniform(0, 3000, 20)
    return np.clip(np.rint(frames), 0, MAX).astype(np.uint16)


@pytest.mark.parametrize("electrons", [0, 80, 500, 2000])
@pytest.mark.parametrize(("background", "xray"), [(28, 2000), (34.5, 2000), (12.25, 61.75)])
def test_engines_agree_on_simulated_frames(electrons: int, background: float, xray: float) -> None:
    found = assert_engines_agree(simulated_frames(electrons, electrons), background, xray)
    assert found > 4 * 0.5 * electrons


@pytest.mark.parametrize("limit", [3, 60, MAX])
def test_engines_agree_on_576_pixels_of_pure_noise(limit: int) -> None:
    frames = np.random.default_rng(limit).integers(0, limit, (3, 576, 576), np.uint16, endpoint=True)
    assert assert_engines_agree(frames, 0.3 * limit, 0.9 * limit) > 1000
