"""The shape of a scan, found out from the frames of a live feed."""

from __future__ import annotations

import random

import pytest

from producers.scan_shape import ScanShape, ScanShapeFinder, SizeFields


def frames_of(shape: ScanShape) -> list[tuple[int, int, int]]:
    positions = [(x, y) for y in range(shape.height) for x in range(shape.width)]
    k = shape.frames_per_position
    return [(p * k + i, x, y) for p, (x, y) in enumerate(positions) for i in range(k)]


def found(shape: ScanShape, fields: tuple[int, int], reading: SizeFields, seed: int = 0) -> ScanShape | None:
    finder = ScanShapeFinder(*fields, reading)
    frames = frames_of(shape)
    swapped = random.Random(seed)
    for i in range(len(frames) - 1):
        if swapped.random() < 0.3:
            frames[i], frames[i + 1] = frames[i + 1], frames[i]
    for frame in frames:
        finder.add(*frame)
        if finder.certain():
            break
    return finder.certain()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("width", "height"), [(5, 4), (64, 64), (3, 9), (2, 2)])
def test_fields_that_are_numbers_are_recognised(width: int, height: int, k: int) -> None:
    shape = ScanShape(width, height, k)
    assert found(shape, (width, height), SizeFields.AUTO) == shape


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize(("width", "height"), [(5, 4), (64, 64), (3, 9)])
def test_fields_that_are_one_less_are_recognised(width: int, height: int, k: int) -> None:
    shape = ScanShape(width, height, k)
    assert found(shape, (width - 1, height - 1), SizeFields.AUTO) == shape


def test_a_flyback_column_is_taken_as_told() -> None:
    shape = ScanShape(9, 6, 1)
    assert found(shape, (8, 6), SizeFields.FLYBACK) == shape


def test_nothing_is_certain_before_a_second_row_or_the_column_too_many() -> None:
    finder = ScanShapeFinder(8, 8, SizeFields.AUTO)
    for frame in frames_of(ScanShape(8, 8, 1))[:8]:
        finder.add(*frame)
    assert finder.certain() is None
    finder.add(8, 0, 1)
    assert finder.certain() == ScanShape(8, 8, 1)


def test_a_scan_of_one_position_has_as_many_frames_as_came() -> None:
    finder = ScanShapeFinder(1, 1, SizeFields.NUMBER)
    for k in range(5):
        finder.add(k, 0, 0)
    assert finder.certain() is None
    assert finder.likely() == ScanShape(1, 1, 5)


def test_a_frame_that_contradicts_all_others_changes_nothing() -> None:
    finder = ScanShapeFinder(8, 8, SizeFields.AUTO)
    finder.add(77, 3, 5)  # its number is not that of its position
    for frame in frames_of(ScanShape(8, 8, 1))[:20]:
        finder.add(*frame)
    assert finder.likely() == ScanShape(8, 8, 1)


def test_a_first_frame_that_is_wrong_does_not_decide() -> None:
    finder = ScanShapeFinder(8, 8, SizeFields.AUTO)
    finder.add(5000, 0, 0)
    for frame in frames_of(ScanShape(8, 8, 2))[:40]:
        finder.add(*frame)
    assert finder.likely() == ScanShape(8, 8, 2)
