"""Frames that lie apart as sector frames give the electrons of the joined frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import counting

ENGINE = pytest.mark.parametrize("engine", counting.ENGINES)


def join(sectors: tuple[NDArray[np.uint16], ...], slots: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Build the whole frames by hand."""
    rows, width = sectors[0].shape[1:]
    frames = np.zeros((len(slots), len(sectors) * rows, width), np.uint16)
    for i in range(len(slots)):
        for m, sector in enumerate(sectors):
            frames[i, m * rows : (m + 1) * rows] = sector[slots[i, m]]
    return frames


def assert_counts_like_the_joined_frames(
    sectors: tuple[NDArray[np.uint16], ...], slots: NDArray[np.int64], background: float, xray: float, engine: str
) -> None:
    indices, offsets = counting.count_sectors(sectors, slots, background, xray, engine=engine)
    joined_indices, joined_offsets = counting.count_frames(join(sectors, slots), background, xray, engine=engine)
    assert np.array_equal(offsets, joined_offsets)
    assert np.array_equal(indices, joined_indices)


@st.composite
def sectors_and_slots(
    draw: st.DrawFn,
) -> tuple[tuple[NDArray[np.uint16], ...], NDArray[np.int64]]:
    """1 to 4 sectors, each with its own number of sector frames, taken in any order, with gaps and repetitions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width, n = draw(st.integers(1, 4)), draw(st.integers(2, 140)), draw(st.integers(0, 5))
    capacities = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))  # sector frames of each sector
    limit = draw(st.sampled_from([2, 9, 65_535]))
    sectors = tuple(rng.integers(0, limit, (held, rows, width), np.uint16, endpoint=True) for held in capacities)
    slots = np.stack([rng.integers(0, capacity, n) for capacity in capacities], axis=1)
    return sectors, slots


@settings(max_examples=300, deadline=None)
@given(drawn=sectors_and_slots(), background=st.floats(-1, 9), xray=st.sampled_from([8, 2000.5, 70_000]))
def test_sectors_count_like_the_joined_frame(
    drawn: tuple[tuple[NDArray[np.uint16], ...], NDArray[np.int64]], background: float, xray: float
) -> None:
    for engine in counting.ENGINES:
        assert_counts_like_the_joined_frames(*drawn, background, xray, engine)


@ENGINE
@pytest.mark.parametrize(
    ("upper", "lower", "electrons"),
    [
        ((3, 9), (0, 0), [3 * 6 + 3]),
        ((0, 0), (3, 9), [4 * 6 + 3]),
        ((3, 9), (3, 10), [4 * 6 + 3]),
        ((3, 9), (4, 8), [3 * 6 + 3]),
        ((3, 9), (3, 9), []),
        ((3, 9), (2, 9), []),
        ((3, 9), (3, 100), [3 * 6 + 3]),
        ((0, 9), (5, 9), [3 * 6, 4 * 6 + 5]),
    ],
    ids=[
        "a hit in the last row of a sector",
        "a hit in the first row of a sector",
        "a brighter pixel below the border",
        "a darker pixel across the border",
        "a tie across the border",
        "a diagonal tie across the border",
        "an x-ray across the border",
        "hits at both ends of the border",
    ],
)
def test_a_hit_on_a_sector_border_sees_both_sectors(
    upper: tuple[int, int], lower: tuple[int, int], electrons: list[int], engine: str
) -> None:
    sectors = (np.zeros((1, 4, 6), np.uint16), np.zeros((1, 4, 6), np.uint16))
    sectors[0][0, 3, upper[0]] = upper[1]
    sectors[1][0, 0, lower[0]] = lower[1]
    indices, _ = counting.count_sectors(sectors, np.zeros((1, 2), np.int64), 5, 100, engine=engine)
    assert indices.tolist() == electrons


@ENGINE
def test_the_next_sector_frame_in_the_array_is_no_neighbour(engine: str) -> None:
    sector = np.zeros((3, 2, 4), np.uint16)
    sector[1, 0, 0] = sector[1, 1, 3] = 9
    sector[0, 1, :] = sector[2, 0, :] = 50
    indices, _ = counting.count_sectors((sector,), np.array([[1]]), 5, 100, engine=engine)
    assert indices.tolist() == [0, 7]


@ENGINE
@pytest.mark.parametrize("sector_count", [1, 2, 3, 4])
def test_each_frame_takes_its_own_slot_of_each_sector(sector_count: int, engine: str) -> None:
    # The sector frame in slot k has its one hit in the middle row, column 2k.
    sector = np.zeros((7, 3, 15), np.uint16)
    sector[np.arange(7), 1, 2 * np.arange(7)] = 9
    slots = np.array([[(3 * i + 2 * m) % 7 for m in range(sector_count)] for i in (4, 0, 6)])
    indices, offsets = counting.count_sectors((sector,) * sector_count, slots, 5, 100, engine=engine)
    expected = [[(3 * m + 1) * 15 + 2 * slot for m, slot in enumerate(row)] for row in slots.tolist()]
    assert [indices[offsets[i] : offsets[i + 1]].tolist() for i in range(3)] == expected


@ENGINE
def test_four_sectors_of_the_detector_count_like_its_frames(engine: str) -> None:
    rng = np.random.default_rng(5)
    sectors = tuple(rng.poisson(12, (6, 144, 576)).astype(np.uint16) for _ in range(4))
    slots = np.array([[5, 0, 2, 2], [0, 1, 3, 5]])
    assert_counts_like_the_joined_frames(sectors, slots, 22.5, 30, engine)


@ENGINE
def test_no_frames_of_empty_sectors_give_no_electrons(engine: str) -> None:
    sectors = (np.zeros((0, 2, 4), np.uint16),) * 4
    indices, offsets = counting.count_sectors(sectors, np.zeros((0, 4), np.int64), 5, 100, engine=engine)
    assert (indices.tolist(), offsets.tolist()) == ([], [0])


def test_more_electrons_than_the_buffer_holds_are_all_given() -> None:
    # Each frame is as full as can be (82,944 electrons); the buffer holds four of them, and three kinds take turns.
    sectors = (np.zeros((3, 144, 576), np.uint16),) * 4
    for slot, (y, x) in enumerate([(0, 0), (0, 1), (1, 1)]):
        sectors[0][slot, y::2, x::2] = 9
    slots = np.tile(np.arange(10)[:, np.newaxis] % 3, 4)
    indices, offsets = counting.count_sectors(sectors, slots, 5, 100)
    assert np.array_equal(offsets, 82_944 * np.arange(11))
    frames = join(sectors, slots)
    assert np.array_equal(indices, np.concatenate([np.flatnonzero(frame) for frame in frames]))
