"""Pictures of a counted scan: they show the object, and what is missing."""

from pathlib import Path

import numpy as np
import pytest
import stempy.image
from matplotlib.image import imread
from numpy.typing import NDArray

from producers.simulator import Simulation
from service.counted_file import CountedEvents, CountedFileWriter
from stemstream import pictures
from stemstream.pictures import draw_pictures, find_detectors, virtual_images, write_pictures
from topics.geometry import ScanGeometry

NAMES = ["bright_field", "dark_field", "diffraction_pattern"]


def events(rows: list[NDArray[np.uint32]], scan_shape: tuple[int, int], frames_per_position: int = 1) -> CountedEvents:
    return CountedEvents(
        indices=np.concatenate(rows).astype(np.uint32),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        scan_shape=scan_shape,
        missing_sectors=np.zeros(len(rows), np.uint8),
        frames_per_position=frames_per_position,
        frame_shape=(576, 576),
        label="default/1",
    )


def true_events(simulation: Simulation) -> CountedEvents:
    """Events of a perfect count."""
    _, truth = simulation.frames(0, simulation.frame_count)
    index = np.floor(truth.y + 0.5).astype(np.uint32) * 576 + np.floor(truth.x + 0.5).astype(np.uint32)
    rows = np.split(index, truth.offsets[1:-1])
    return events(rows, (simulation.height, simulation.width), simulation.frames_per_position)


def disk(centre_y: float, centre_x: float, radius: float) -> NDArray[np.float64]:
    y, x = np.ogrid[:576, :576]
    return np.where(np.hypot(y - centre_y, x - centre_x) <= radius, 100.0, 1.0)


def test_the_images_show_the_object() -> None:
    simulation = Simulation(18, 12, electrons=100)
    pixels, _ = simulation.frames(0, simulation.frame_count)
    counted = [
        stempy.image.electron_count_frame(frame, background_threshold=40, xray_threshold=2000).data[0, 0]
        for frame in pixels
    ]
    images = virtual_images(events(counted, (12, 18)))
    particle = simulation.scattering(np.arange(simulation.frame_count)).particle.reshape(12, 18)
    inside, outside = particle == 1, particle == 0
    for image, sign in ((images["bright_field"], -1), (images["dark_field"], 1)):
        contrast = sign * (image[inside].mean() - image[outside].mean())
        assert contrast > 3 * max(image[inside].std(), image[outside].std())


def test_without_an_object_the_images_show_none() -> None:
    simulation = Simulation(18, 12, electrons=100)
    rng = np.random.default_rng(0)
    bright = np.flatnonzero(disk(291, 283, 44) > 1).astype(np.uint32)
    image = virtual_images(events([rng.choice(bright, 100) for _ in range(18 * 12)], (12, 18)))["bright_field"]
    particle = simulation.scattering(np.arange(simulation.frame_count)).particle.reshape(12, 18)
    contrast = abs(image[particle == 1].mean() - image[particle == 0].mean())
    assert contrast < max(1.0, image.std())


@pytest.mark.parametrize(("centre", "radius"), [((291, 283), 44), ((250, 330), 20), ((288, 288), 130)])
def test_the_bright_field_detector_covers_the_bright_disk(centre: tuple[int, int], radius: int) -> None:
    detectors = find_detectors(np.random.default_rng(0).poisson(disk(*centre, radius) / 10).astype(float))
    assert (detectors.centre_y, detectors.centre_x) == pytest.approx(centre, abs=1)
    assert detectors.disk_radius == pytest.approx(radius, abs=2)
    assert detectors.disk_radius < detectors.dark_inner < detectors.dark_outer


def test_a_single_frame_is_enough_to_find_the_disk() -> None:
    for seed in range(4):
        images = virtual_images(true_events(Simulation(1, 1, electrons=300, seed=seed)))
        detectors = find_detectors(images["diffraction_pattern"])
        assert (detectors.centre_y, detectors.centre_x) == pytest.approx((291, 283), abs=12)
        assert detectors.disk_radius == pytest.approx(44, abs=12)


def test_the_pattern_is_the_sum_of_all_electrons() -> None:
    counted = events([np.array([0, 7, 577], np.uint32), np.array([7], np.uint32)], (1, 2))
    pattern = virtual_images(counted)["diffraction_pattern"]
    assert np.argwhere(pattern).tolist() == [[0, 0], [0, 7], [1, 1]]
    assert pattern[0, 7] == 2
    assert pattern.sum() == 4


def test_a_position_is_the_mean_of_its_complete_frames() -> None:
    centre = np.uint32(288 * 576 + 288)
    rows = [np.full(n, centre) for n in (10, 20, 30, 50, 60, 70)]
    counted = events(rows, (1, 2), frames_per_position=3)
    counted.missing_sectors[1] = 0b0100
    assert virtual_images(counted)["bright_field"].tolist() == [[20, 60]]


def test_a_position_without_a_complete_frame_is_missing_and_not_dark() -> None:
    counted = true_events(Simulation(6, 4, electrons=50, frames_per_position=2))
    counted.missing_sectors[[8, 9, 15]] = [0b0001, 0b1000, 0b1111]
    images = virtual_images(counted)
    for name in ("bright_field", "dark_field"):
        assert np.argwhere(np.isnan(images[name])).tolist() == [[0, 4]]


def test_a_scan_in_several_parts_gives_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = true_events(Simulation(6, 4, electrons=50))
    whole = virtual_images(counted)
    monkeypatch.setattr(pictures, "_ROWS_AT_ONCE", 5)
    parts = virtual_images(counted)
    assert all(np.array_equal(whole[name], parts[name]) for name in NAMES)


def test_a_counted_file_gets_three_pictures_beside_it(tmp_path: Path) -> None:
    counted = true_events(Simulation(9, 4, electrons=50))
    geometry = ScanGeometry(width=9, height=4, frames_per_chunk=36, partitions=1)
    writer = CountedFileWriter(tmp_path / "scan_00001_17.h5", geometry)
    writer.write(0, counted.indices, counted.offsets, counted.missing_sectors)
    writer.close({"session": "default", "number": 1})

    paths = write_pictures(writer.path)
    assert [path.name for path in paths] == [f"scan_00001_17_{name}.png" for name in NAMES]
    for path in paths:
        picture = imread(path)[..., :3]
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 0.1


def test_missing_positions_are_drawn_in_a_colour_of_their_own(tmp_path: Path) -> None:
    def coloured_pixels(missing: int) -> int:
        counted.missing_sectors[:missing] = 1
        picture = imread(draw_pictures(counted, tmp_path / str(missing))[0])[..., :3]
        return int(np.count_nonzero(np.ptp(picture, axis=-1) > 0.5))

    counted = true_events(Simulation(8, 8, electrons=50))
    assert coloured_pixels(16) / coloured_pixels(64) == pytest.approx(16 / 64, rel=0.1)


def test_without_electrons_the_detectors_lie_in_the_middle_of_the_frame() -> None:
    images = virtual_images(events([np.zeros(0, np.uint32)] * 6, (2, 3)))
    assert not any(image.any() for image in images.values())
    detectors = find_detectors(images["diffraction_pattern"])
    assert (detectors.centre_y, detectors.centre_x) == (287.5, 287.5)
