"""The simulated detector: known electrons, the same for everyone who asks."""

from dataclasses import replace

import numpy as np
import pytest
import stempy.image
from numpy.typing import NDArray

from producers.simulator import Simulation, Truth

BACKGROUND, XRAY = 40, 2000


def simulation(**parameters: float) -> Simulation:
    return replace(Simulation(6, 4, electrons=40, seed=7), **parameters)  # type: ignore[arg-type]


def charge(frames: int, **parameters: float) -> tuple[NDArray[np.int64], Truth]:
    """What electrons and x-rays leave in the pixels, of a detector without noise."""
    made = simulation(**{"noise_counts": 0, "xrays": 0} | parameters)
    pixels, truth = made.frames(0, frames)
    return pixels.astype(np.int64) - made.dark, truth


def same(truth: Truth, other: Truth) -> bool:
    return all(np.array_equal(getattr(truth, name), getattr(other, name)) for name in Truth._fields)


def electrons_of(truth: Truth, frame: int) -> NDArray[np.float32]:
    """(n, 2) positions y, x."""
    return np.stack([truth.y, truth.x], axis=-1)[truth.offsets[frame] : truth.offsets[frame + 1]]


def nearest(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each point to the nearest of the others."""
    distances: NDArray[np.float32] = np.hypot(*np.moveaxis(points[:, np.newaxis] - others, -1, 0)).min(axis=1)
    return distances


def test_the_same_seed_gives_the_same_frames() -> None:
    pixels, truth = simulation().frames(0, 3)
    again, truth_again = simulation().frames(0, 3)
    assert np.array_equal(pixels, again)
    assert same(truth, truth_again)


def test_another_seed_gives_other_frames() -> None:
    pixels, truth = simulation(seed=1).frames(0, 1)
    others, other_truth = simulation(seed=2).frames(0, 1)
    assert not np.array_equal(pixels, others)
    assert not np.array_equal(truth.y, other_truth.y)


def test_a_frame_does_not_depend_on_the_batch_it_is_made_in() -> None:
    made = simulation(xrays=2)
    pixels, truth = made.frames(0, 12)
    batches = [made.frames(first, count) for first, count in ((0, 1), (1, 4), (5, 6), (11, 1))]
    assert np.array_equal(np.concatenate([part for part, _ in batches]), pixels)
    assert same(Truth.join([part for _, part in batches]), truth)


def test_a_frame_does_not_depend_on_what_was_made_before() -> None:
    made = simulation()
    later, _ = made.frames(20, 1)
    made.frames(0, 3)
    assert np.array_equal(made.frames(20, 1)[0], later)
    assert np.array_equal(simulation().frames(20, 1)[0], later)


def test_frames_go_into_the_memory_they_are_given() -> None:
    memory = np.full((2, 576, 576), 65_535, np.uint16)
    pixels, _ = simulation().frames(3, 2, out=memory)
    assert np.shares_memory(pixels, memory)
    assert np.array_equal(pixels, simulation().frames(3, 2)[0])


def test_frames_of_one_scan_position_look_at_the_same_place() -> None:
    made = simulation(frames_per_position=3)
    y, x = made.scan_position(np.arange(made.frame_count))
    assert (y * made.width + x).tolist() == [frame // 3 for frame in range(6 * 4 * 3)]


def test_counting_finds_the_electrons_that_hit_the_detector() -> None:
    frames = 20
    pixels, truth = simulation(electrons=50).frames(0, frames)
    found = hit = right = counted = 0
    for i in range(frames):
        frame = stempy.image.electron_count_frame(pixels[i], background_threshold=BACKGROUND, xray_threshold=XRAY)
        positions = np.stack(np.divmod(frame.data[0, 0].astype(np.int64), 576), axis=-1).astype(np.float32)
        electrons = electrons_of(truth, i)
        found += int(np.count_nonzero(nearest(electrons, positions) <= 1.5))
        hit += len(electrons)
        right += int(np.count_nonzero(nearest(positions, electrons) <= 1.5))
        counted += len(positions)
    assert hit == pytest.approx(50 * frames, rel=0.1)
    assert found / hit >= 0.85
    assert right / counted >= 0.95


def test_a_typical_hit_peaks_far_above_the_noise_and_far_below_an_xray() -> None:
    pixels, truth = charge(10, electrons=20)
    frame = np.repeat(np.arange(10), np.diff(truth.offsets))
    peaks = pixels[frame, np.rint(truth.y).astype(int), np.rint(truth.x).astype(int)]
    assert 150 < np.percentile(peaks, 25) < np.percentile(peaks, 90) < 400
    assert np.mean(peaks <= BACKGROUND) < 0.01
    assert np.mean(peaks >= XRAY) < 0.01


def test_electrons_share_their_charge_with_the_neighbouring_pixels() -> None:
    pixels, truth = charge(20, electrons=1)
    alone = np.flatnonzero(np.diff(truth.offsets) == 1).tolist()
    assert len(alone) > 3
    for i in alone:
        y, x = np.rint(electrons_of(truth, i)[0]).astype(int)
        around = pixels[i, y - 1 : y + 2, x - 1 : x + 2]
        assert np.count_nonzero(around) >= 4
        assert around.sum() == pixels[i].sum()
        assert around.sum() == pytest.approx(truth.energy[truth.offsets[i]], rel=0.06)


def test_charge_beside_the_frame_is_lost() -> None:
    y, x = np.array([[0, 0, 575, 575, 100], [0, 575, 0, 575, 100]], np.float32)
    none = np.zeros(0, np.uint16)
    truth = Truth(y, x, np.full(5, 1000, np.float32), np.array([0, 5]), none, none, none, np.array([0, 0]))
    pixels = np.zeros((1, 576, 576), np.uint16)
    simulation().expose(pixels, truth)
    whole = pixels[0, 99:102, 99:102]
    assert np.count_nonzero(whole) == 9
    assert np.array_equal(pixels[0, :2, :2], whole[1:, 1:])
    assert np.array_equal(pixels[0, :2, 574:], whole[1:, :2])
    assert np.array_equal(pixels[0, 574:, :2], whole[:2, 1:])
    assert np.array_equal(pixels[0, 574:, 574:], whole[:2, :2])
    assert np.count_nonzero(pixels) == 9 + 4 * 4


def test_without_electrons_there_is_only_dark_pattern_and_noise() -> None:
    made = simulation(electrons=0, xrays=0)
    pixels, truth = made.frames(0, 10)
    assert len(truth.y) == 0
    assert truth.offsets.tolist() == [0] * 11
    assert np.mean(pixels > BACKGROUND) < 1e-5
    noise = pixels.astype(float) - made.dark
    assert noise.std() == pytest.approx(5, rel=0.05)
    assert np.array_equal(simulation(electrons=0, xrays=0, noise_counts=0).frames(0, 1)[0][0], made.dark)


def test_xrays_are_single_pixels_above_the_xray_threshold() -> None:
    pixels, truth = simulation(electrons=0, xrays=4).frames(0, 6)
    frame = np.repeat(np.arange(6), np.diff(truth.xray_offsets))
    expected = sorted(zip(frame.tolist(), truth.xray_y.tolist(), truth.xray_x.tolist(), strict=True))
    assert len(expected) > 10
    assert [tuple(position) for position in np.argwhere(pixels >= XRAY).tolist()] == expected
    assert truth.xray_energy.max() > 10_000


def test_particles_scatter_electrons_out_of_the_central_disk() -> None:
    made = simulation(width=8, height=8, electrons=300)
    particle = made.scattering(np.arange(made.frame_count)).particle
    _, truth = made.frames(0, made.frame_count)
    frame = np.repeat(np.arange(made.frame_count), np.diff(truth.offsets))
    central = np.hypot(truth.y - 291, truth.x - 283) < 50
    in_disk = np.bincount(frame[central], minlength=made.frame_count)
    assert (particle == 1).any()
    assert in_disk[particle == 1].max() < in_disk[particle == 0].min()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 0}, "width is 0, expected 1 to 65535"),
        ({"height": 70_000}, "height is 70000"),
        ({"frames_per_position": 0}, "frames_per_position is 0"),
        ({"electrons": -1}, "electrons is -1"),
        ({"electrons": float("nan")}, "electrons is nan"),
        ({"noise_counts": -5}, "noise_counts is -5"),
        ({"seed": -1}, "seed is -1"),
        ({"width": 65_535, "height": 65_535, "frames_per_position": 2}, "the scan has 8589672450 frames"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulation(**parameters)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (23, 2), (0, 0)])
def test_frames_outside_the_scan_are_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="of a scan of 24 frames"):
        simulation().frames(first, count)
