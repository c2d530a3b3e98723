"""Thresholds from samples: those of stempy, the same ones each time, or a clear reason why there are none."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stempy import _image
from stempy.io import PyReader

import counting
from counting.thresholds import ThresholdError, Thresholds, ThresholdSamples

MAX = 65_535
SHAPE = (96, 96)


def noise(frames: int = 20, mean: float = 40, std: float = 5, seed: int = 0) -> NDArray[np.uint16]:
    """Pedestal and noise, and some hits."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(mean, std, (frames, *SHAPE))
    hits = rng.random(pixels.shape) < 0.002
    pixels[hits] += rng.gamma(4, 40, int(hits.sum()))
    return np.clip(np.rint(pixels), 0, MAX).astype(np.uint16)


def references(seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "dark": rng.normal(10, 1, SHAPE).astype(np.float32),
        "gain": rng.normal(1, 0.05, SHAPE).astype(np.float32),
    }


def find(pixels: NDArray[np.uint16], sigmas: tuple[float, float] = (4.5, 175), **given: Any) -> Thresholds:  # noqa: ANN401
    samples = ThresholdSamples(counting.Corrections(**given))
    samples.add((pixels,), np.arange(len(pixels)).reshape(-1, 1))
    return samples.find(*sigmas)


def find_with_stempy(
    pixels: NDArray[np.uint16], sigmas: tuple[float, float] = (4.5, 175), **given: NDArray[np.float32]
) -> Any:  # noqa: ANN401
    """Give stempy one block of one image of all frames, one below the other: then it has nothing to draw lots about."""
    n = len(pixels)
    block = PyReader(np.ascontiguousarray(pixels.reshape(1, -1, pixels.shape[2])), [0], (1, 1), 1, 1).read()._block
    dark = [np.tile(given["dark"], (n, 1))] if "dark" in given else []
    inverse_gain = [np.tile(np.power(given["gain"], -1), (n, 1))] if "gain" in given else []
    return _image.calculate_thresholds([block], *dark, 1, *sigmas, *inverse_gain)


@pytest.mark.parametrize(
    "names", [(), ("dark",), ("gain",), ("dark", "gain")], ids=lambda names: "+".join(names) or "none"
)
@pytest.mark.parametrize("sigmas", [(4, 10), (4.5, 175)])
def test_thresholds_are_those_of_stempy_on_the_same_samples(
    names: tuple[str, ...], sigmas: tuple[float, float]
) -> None:
    given = {name: references()[name] for name in names}
    pixels = np.maximum(noise(), 16)  # nothing below the dark, where stempy's samples wrap round
    found, expected = find(pixels, sigmas, **given), find_with_stempy(pixels, sigmas, **given)
    assert found.background == pytest.approx(expected.background_threshold, rel=1e-9)
    assert found.xray == pytest.approx(expected.xray_threshold, rel=1e-9)
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    assert found.std == pytest.approx(expected.std_dev, rel=1e-9)
    assert found.optimized_mean == pytest.approx(expected.optimized_mean, rel=1e-9)
    assert found.optimized_std == pytest.approx(expected.optimized_std_dev, rel=1e-9)
    assert (found.min_sample, found.max_sample) == (expected.min_sample, expected.max_sample)
    assert len(found.histogram) == expected.number_of_bins


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mean=st.floats(20, 400),
    std=st.floats(1, 12),
    frames=st.integers(1, 6),
    sigmas=st.tuples(st.floats(1, 8), st.floats(9, 200)),
)
def test_thresholds_are_those_of_stempy_for_any_noise(
    seed: int, mean: float, std: float, frames: int, sigmas: tuple[float, float]
) -> None:
    pixels = noise(frames, mean, std, seed)
    found, expected = find(pixels, sigmas), find_with_stempy(pixels, sigmas)
    assert found.background == pytest.approx(expected.background_threshold, rel=1e-6)
    assert found.xray == pytest.approx(expected.xray_threshold, rel=1e-6)


def test_samples_below_the_dark_are_negative() -> None:
    pixels = noise(mean=60)
    found = find(pixels, dark=np.full(SHAPE, 60, np.float32))
    unsubtracted = find(pixels)
    assert found.min_sample < 0
    assert found.optimized_mean == pytest.approx(unsubtracted.optimized_mean - 60, abs=1e-6)
    assert found.background == pytest.approx(unsubtracted.background - 60, abs=1e-6)
    assert found.xray == pytest.approx(unsubtracted.xray - 60, abs=1e-6)
    assert found.first_bin == unsubtracted.first_bin - 60
    assert np.array_equal(found.histogram, unsubtracted.histogram)


def test_samples_below_the_dark_are_rounded_down_with_gain() -> None:
    pixels = noise(mean=60)
    shifted = find(pixels, dark=np.full(SHAPE, 60.5, np.float32), gain=np.ones(SHAPE, np.float32))
    assert shifted.optimized_mean == pytest.approx(find(pixels).optimized_mean - 61, abs=1e-6)
    halved = find(pixels, dark=np.full(SHAPE, 60, np.float32), gain=np.full(SHAPE, 0.5, np.float32))
    assert halved.min_sample == 2 * (int(pixels.min()) - 60)
    assert halved.max_sample == 2 * (int(pixels.max()) - 60)


def test_row_dark_is_not_applied_to_samples() -> None:
    assert find(noise(), row_dark="mean", optimized_mean=1000.0) == find(noise())


def test_histogram_and_gaussian_describe_the_samples() -> None:
    pixels = noise()
    found = find(pixels)
    assert found.frames == 20
    assert found.first_bin == found.min_sample == pixels.min()
    assert found.max_sample == pixels.max()
    assert np.array_equal(found.histogram, np.bincount(pixels.reshape(-1))[found.first_bin : -1])
    bins = found.first_bin + np.arange(len(found.histogram))
    bell = found.amplitude * np.exp(-((bins - found.optimized_mean) ** 2) / (2 * found.optimized_std**2))
    assert np.abs(bell - found.histogram).max() < 0.03 * found.histogram.max()
    assert found.background == found.optimized_mean + 4.5 * found.optimized_std
    assert found.xray == found.mean + 175 * found.std


@pytest.mark.parametrize("names", [(), ("dark", "gain")], ids=["none", "dark+gain"])
def test_the_order_of_the_frames_and_how_they_come_changes_nothing(names: tuple[str, ...]) -> None:
    given = {name: references()[name] for name in names}
    pixels = noise(12)
    sectors = [np.ascontiguousarray(part) for part in np.split(pixels, 4, axis=1)]
    samples = ThresholdSamples(counting.Corrections(**given))
    for slots in (np.arange(7, 12), np.arange(7)):
        samples.add(sectors, np.repeat(slots[:, np.newaxis], 4, axis=1))
    assert samples.frames == 12
    assert samples.find(4.5, 175) == samples.find(4.5, 175) == find(pixels, **given)
    assert np.array_equal(samples.find(4.5, 175).histogram, find(pixels, **given).histogram)


def test_each_frame_counts_once_and_only_those_named_by_a_slot() -> None:
    pixels = noise(6)
    samples = ThresholdSamples(counting.NO_CORRECTIONS)
    samples.add((pixels,), np.array([[4], [1]]))
    assert samples.find(4.5, 175) == find(pixels[[1, 4]])


def test_memory_does_not_grow_with_the_frames() -> None:
    pixels = noise(8)
    slots = np.arange(8).reshape(-1, 1)
    samples = ThresholdSamples(counting.NO_CORRECTIONS)
    samples.add((pixels,), slots)
    tracemalloc.start()
    for _ in range(20):
        samples.add((pixels,), slots)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10_000


def test_a_read_only_payload_at_an_odd_address_is_taken() -> None:
    pixels = noise(2)
    payload = np.frombuffer(b"x" + pixels.tobytes(), np.uint16, offset=1, count=pixels.size).reshape(pixels.shape)
    assert not payload.flags.aligned
    assert find(payload) == find(pixels)


def test_the_compiled_histogram_serves_every_kind_of_array() -> None:
    from counting import histogram

    pixels = noise(2)
    read_only = np.frombuffer(pixels.tobytes(), np.uint16).reshape(pixels.shape)
    for corrections in ({}, references()):
        find(pixels, **corrections)
        find(read_only, **corrections)
    assert len(histogram._add.signatures) == 1
    assert pixels.flags.writeable


def flat(value: int) -> NDArray[np.uint16]:
    return np.full((3, *SHAPE), value, np.uint16)


def mostly(value: int, otherwise: int) -> NDArray[np.uint16]:
    pixels = flat(value)
    pixels[:, ::3] = otherwise
    return pixels


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (noise(0), "expected sample frames, got none"),
        (flat(0), "all 27648 sample pixels are equal: 0 counts"),
        (flat(17), "all 27648 sample pixels are equal: 17 counts"),
        (flat(MAX), "all 27648 sample pixels are equal: 65535 counts"),
        (mostly(MAX, 12), "18432 of 27648 sample pixels are saturated (65535)"),
        (mostly(12, 13), "expected samples over more than 3 counts, got 12 to 13"),
    ],
    ids=["no frames", "all zero", "all equal", "all saturated", "mostly saturated", "two values"],
)
def test_samples_without_thresholds_are_an_error_that_says_why(pixels: NDArray[np.uint16], message: str) -> None:
    with pytest.raises(ThresholdError) as raised:
        find(pixels)
    assert str(raised.value) == message


def test_a_background_above_the_xray_threshold_is_an_error() -> None:
    with pytest.raises(ThresholdError, match=r"^expected background below x-ray threshold, got \d+\.\d+ and \d+"):
        find(noise(), (10, 0.1))


@pytest.mark.parametrize(
    "pixels",
    [
        mostly(0, 1000),  # the fit ends far beyond both peaks
        np.tile(np.arange(48, dtype=np.uint16), (3, 96, 2)),  # as flat as can be: wider than all samples
        np.where(np.arange(96 * 96).reshape(1, 96, 96) == 0, np.uint16(50), np.uint16(0)),  # does not converge
    ],
    ids=["two peaks", "no peak", "zeros and one hit"],
)
def test_samples_that_no_gaussian_fits_are_an_error(pixels: NDArray[np.uint16]) -> None:
    with pytest.raises(
        ThresholdError, match=r"^no Gaussian fits the samples' histogram: amplitude .*, mean .*, standard"
    ):
        find(pixels)


def test_hits_without_any_noise_have_thresholds() -> None:
    pixels = flat(0)
    pixels[:, 3::7, ::2], pixels[:, 1::9, ::3] = 50, 20
    found, expected = find(pixels), find_with_stempy(pixels)
    assert found.optimized_mean < 0
    assert 0 < found.background < 1  # many Gaussians fit one full bin; all of them count the same electrons
    assert 0 < expected.background_threshold < 1


def test_a_threshold_error_is_a_value_error() -> None:
    assert issubclass(ThresholdError, ValueError)


def test_frames_of_another_size_are_refused() -> None:
    samples = ThresholdSamples(counting.NO_CORRECTIONS)
    samples.add((noise(1),), np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match=r"^sectors: expected frames of \(96, 96\) as before, got \(48, 96\)$"):
        samples.add((np.ascontiguousarray(noise(1)[:, :48]),), np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match=r"^dark: expected the shape of a frame"):
        find(np.ascontiguousarray(noise(1)[:, :48]), dark=references()["dark"])
    with pytest.raises(ValueError, match=r"^slots\[0, 0\]: expected 0 to 0"):
        samples.add((noise(1),), np.ones((1, 1), np.int64))
