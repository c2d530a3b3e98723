"""The floor of each pixel: the greatest raw value that counts as 0 at every allowed threshold, and no greater."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import counting
from counting import Corrections
from counting.floors import MAX_DARK, MAX_XRAY, values_that_count_as_zero
from counting.thresholds import ThresholdError

MAX = 65_535
ALL_RAW = np.arange(MAX + 1).astype(np.float32)
darks = st.floats(-20, MAX_DARK, width=32) | st.integers(0, MAX_DARK).map(float)
gains = st.floats(0.0009765625, 1024, width=32)
floors_drawn = st.integers(0, 300) | st.floats(0, 300) | st.floats(0, MAX)


def greatest_at_or_below(floor: float, values: NDArray[np.float32]) -> int:
    return int(np.flatnonzero(values.astype(np.float64) <= floor)[-1])


@settings(max_examples=200, deadline=None)
@given(floor=floors_drawn, dark=darks, gain=gains, with_dark=st.booleans(), with_gain=st.booleans())
def test_a_floor_is_the_greatest_raw_value_that_corrections_turn_into_no_more(
    floor: float, dark: float, gain: float, with_dark: bool, with_gain: bool
) -> None:
    def reference(value: float) -> NDArray[np.float32]:
        return np.array([[value, 1.0]], np.float32)

    corrections = Corrections(reference(dark) if with_dark else None, reference(gain) if with_gain else None)
    values = ALL_RAW
    if with_gain:
        assert corrections.inverse_gain is not None
        values = (ALL_RAW - np.float32(dark if with_dark else 0)) * corrections.inverse_gain[0, 0]
    elif with_dark:
        values = ALL_RAW - np.trunc(np.float32(dark))
    if float(values[0]) > floor:
        with pytest.raises(ValueError, match="dark: expected that a pixel of 0 is at or below the floor"):
            counting.pixel_floors(floor, corrections, (1, 2))
    else:
        floors = counting.pixel_floors(floor, corrections, (1, 2))
        assert floors.dtype == np.uint16
        assert floors[0, 0] == greatest_at_or_below(floor, values)


@pytest.mark.parametrize("engine", counting.ENGINES)
@pytest.mark.parametrize("gain", [None, 0.7, 1.3])
@pytest.mark.parametrize("dark", [None, 0.9, 3.0, 12.6])
def test_the_next_raw_value_above_a_floor_counts(dark: float | None, gain: float | None, engine: str) -> None:
    floor = 20.0
    darks = None if dark is None else np.full((1, 2), dark, np.float32)
    gains = None if gain is None else np.full((1, 2), gain, np.float32)
    at_floor = counting.pixel_floors(floor, Corrections(darks, gains), (1, 2))
    frames = np.zeros((2, 1, 2), np.uint16)
    frames[:, 0, 0] = at_floor[0, 0], at_floor[0, 0] + 1
    _, offsets = counting.count_frames(frames, floor, MAX_XRAY, dark=darks, gain=gains, engine=engine)
    assert offsets.tolist() == [0, 0, 1]


def test_without_corrections_all_pixels_have_the_floor_in_whole_counts() -> None:
    floors = counting.pixel_floors(26.9, counting.NO_CORRECTIONS, (576, 576))
    assert (floors == 26).all()
    assert floors.shape == (576, 576)


def test_a_pixel_that_no_raw_value_lifts_above_the_floor_is_never_kept() -> None:
    floors = counting.pixel_floors(100, Corrections(gain=np.array([[1024.0, 1.0]])), (1, 2))
    assert floors.tolist() == [[MAX, 100]]
    frames = np.full((1, 1, 2), MAX, np.uint16)
    assert counting.suppress(frames, floors).listed.tolist() == [[1, MAX]]


@pytest.mark.parametrize("floor", [-0.001, 65_535.5, np.nan, np.inf])
def test_a_floor_out_of_range_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="floor: expected 0 to 65535 detector counts"):
        counting.pixel_floors(floor, counting.NO_CORRECTIONS, (4, 4))


def test_row_dark_is_refused() -> None:
    with pytest.raises(ValueError, match="row_dark: expected none with zero suppression"):
        counting.pixel_floors(5, Corrections(row_dark="median", optimized_mean=10), (4, 4))


def test_references_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="gain: expected the shape of a frame"):
        counting.pixel_floors(5, Corrections(gain=np.ones((4, 5))), (4, 4))


def test_a_dark_whose_wrap_around_an_x_ray_threshold_may_show_is_refused() -> None:
    dark = np.zeros((3, 3), np.float32)
    dark[1, 2] = MAX_DARK + 0.9
    counting.pixel_floors(5, Corrections(dark=dark), (3, 3))
    dark[1, 2] = MAX_DARK + 1
    with pytest.raises(ValueError, match=r"dark: expected at most 5536 .* got 5537 at y 1, x 2: .* wrap round"):
        counting.pixel_floors(5, Corrections(dark=dark), (3, 3))
    counting.pixel_floors(5, Corrections(dark=dark, gain=np.ones((3, 3))), (3, 3))


@pytest.mark.parametrize("engine", counting.ENGINES)
def test_that_wrap_around_is_real(engine: str) -> None:
    frames = np.array([[[0, MAX_DARK + 1]]], np.uint16)
    dark = np.array([[MAX_DARK + 1, MAX_DARK + 1]], np.float32)
    indices, _ = counting.count_frames(frames, 5, MAX_XRAY, dark=dark, engine=engine)
    assert indices.tolist() == [0]


def test_what_stands_for_pixels_left_out_counts_as_0_where_0_would_wrap_round() -> None:
    dark = np.full((1, 8), 40, np.float32)
    left_out = values_that_count_as_zero(Corrections(dark=dark), (1, 8))
    with_a_zero = left_out.copy()
    with_a_zero[0, 5] = 0
    frames = np.stack([left_out, with_a_zero])
    indices, offsets = counting.count_frames(frames, 0, 65_530, dark=dark, engine="stempy")
    assert (indices.tolist(), offsets.tolist()) == ([5], [0, 0, 1])


def test_0_stands_for_pixels_left_out_without_dark_and_with_gain() -> None:
    dark, gain = np.full((2, 8), 40, np.float32), np.full((2, 8), 0.5, np.float32)
    for corrections in (Corrections(), Corrections(gain=gain), Corrections(dark=dark, gain=gain)):
        assert not values_that_count_as_zero(corrections, (2, 8)).any()


def noisy_sector(mean: float, sigma: float, electrons: int, seed: int = 0) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    frames = rng.normal(mean, sigma, (8, 144, 576))
    for frame in frames:
        frame[rng.integers(0, 144, electrons), rng.integers(0, 576, electrons)] += rng.gamma(4, 50, electrons)
    return np.clip(np.rint(frames), 0, MAX).astype(np.uint16)


@pytest.mark.parametrize("electrons", [0, 125, 500])
def test_the_automatic_floor_is_the_mean_of_the_noise_and_three_sigma(electrons: int) -> None:
    floor = counting.auto_floor(noisy_sector(40, 5, electrons), counting.NO_CORRECTIONS, 0)
    assert floor == pytest.approx(40 + 3 * 5, abs=0.6)


def test_the_same_samples_give_the_same_floor() -> None:
    samples = noisy_sector(12, 5, 125)
    assert counting.auto_floor(samples, counting.NO_CORRECTIONS, 0) == counting.auto_floor(
        samples.copy(), counting.NO_CORRECTIONS, 0
    )


def test_the_automatic_floor_is_that_of_the_corrected_rows_of_the_sector() -> None:
    dark = np.zeros((576, 576), np.float32)
    dark[288:432] = 30
    gain = np.ones((576, 576), np.float32)
    gain[288:432] = 2
    samples = noisy_sector(40, 5, 125)
    assert counting.auto_floor(samples, Corrections(dark=dark), 288) == pytest.approx(25, abs=0.6)
    assert counting.auto_floor(samples, Corrections(dark=dark), 144) == pytest.approx(55, abs=0.6)
    assert counting.auto_floor(samples, Corrections(dark=dark, gain=gain), 288) == pytest.approx(12.5, abs=0.6)


def test_samples_without_noise_give_no_automatic_floor() -> None:
    with pytest.raises(ThresholdError):
        counting.auto_floor(np.full((2, 144, 576), 7, np.uint16), counting.NO_CORRECTIONS, 0)
