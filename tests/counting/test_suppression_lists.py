"""Which pixels are listed, how, and how frames come back from the list."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import counting
from counting import SuppressedFrames


def assert_lists_what_is_above(frames: NDArray[np.uint16], floors: NDArray[np.uint16]) -> SuppressedFrames:
    suppressed = counting.suppress(frames, floors)
    assert suppressed.shape == frames.shape
    assert np.array_equal(suppressed.dense(), np.where(frames > floors, frames, 0))
    bridges = suppressed.listed[:, 1] == 0
    assert (suppressed.listed[bridges, 0] == 65_535).all()
    assert np.count_nonzero(~bridges) == np.count_nonzero(frames > floors)
    return suppressed


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 200)),
    limit=st.sampled_from([1, 5, 1000, 65_535]),
    part=st.floats(0, 1),
)
def test_the_pixels_above_their_floors_are_listed(
    seed: int, shape: tuple[int, int, int], limit: int, part: float
) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, limit, shape, np.uint16, endpoint=True)
    floors = rng.integers(0, int(part * limit), shape[1:], np.uint16, endpoint=True)
    assert_lists_what_is_above(frames, floors)


def test_pixels_are_listed_by_gap_and_value_through_all_frames() -> None:
    frames = np.zeros((2, 2, 3), np.uint16)
    frames[0, 0, 1], frames[0, 0, 2], frames[0, 1, 1], frames[1, 0, 0] = 7, 65_535, 5, 6
    suppressed = counting.suppress(frames, np.full((2, 3), 5, np.uint16))
    assert suppressed.listed.tolist() == [[1, 7], [0, 65_535], [3, 6]]


@pytest.mark.parametrize("gap", [65_534, 65_535, 65_536, 65_537, 131_071, 131_072, 8 * 82_944 - 2])
def test_gaps_of_any_size_are_bridged(gap: int) -> None:
    frames = np.zeros((8, 144, 576), np.uint16)
    frames.reshape(-1)[[0, 1 + gap]] = 3
    suppressed = assert_lists_what_is_above(frames, np.zeros((144, 576), np.uint16))
    assert len(suppressed.listed) == 2 + gap // 65_536


def test_frames_of_the_detector_with_noise_are_listed() -> None:
    rng = np.random.default_rng(1)
    frames = rng.normal(12, 5, (16, 144, 576)).clip(0).astype(np.uint16)
    floors = rng.integers(20, 30, (144, 576)).astype(np.uint16)
    assert_lists_what_is_above(frames, floors)


def test_nothing_above_the_floors_is_an_empty_list() -> None:
    suppressed = counting.suppress(np.full((16, 144, 576), 9, np.uint16), np.full((144, 576), 9, np.uint16))
    assert suppressed.listed.shape == (0, 2)


def test_everything_above_the_floors_is_listed_in_full() -> None:
    frames = np.random.default_rng(2).integers(1, 65_535, (3, 144, 576), np.uint16, endpoint=True)
    suppressed = assert_lists_what_is_above(frames, np.zeros((144, 576), np.uint16))
    assert len(suppressed.listed) == frames.size


@pytest.mark.parametrize("message_header", [1, 16, 33], ids="{}-byte header".format)
def test_read_only_pixels_at_odd_addresses_are_listed_by_the_same_compiled_kernel(message_header: int) -> None:
    from counting import suppression

    pixels = np.arange(2 * 3 * 70, dtype=np.uint16).reshape(2, 3, 70)
    message = bytes(message_header) + pixels.tobytes()
    frames = np.frombuffer(message, np.uint16, offset=message_header).reshape(pixels.shape)
    floors = np.full((3, 70), 100, np.uint16)
    floors.flags.writeable = False
    assert np.array_equal(counting.suppress(frames, floors).dense(), np.where(pixels > 100, pixels, 0))
    assert len(suppression._suppress.signatures) == 1


def test_lists_do_not_share_memory_with_later_ones() -> None:
    floors = np.zeros((2, 64), np.uint16)
    first = counting.suppress(np.full((1, 2, 64), 3, np.uint16), floors)
    counting.suppress(np.full((1, 2, 64), 4, np.uint16), floors)
    assert (first.listed == [0, 3]).all()


def test_threads_suppress_and_count_side_by_side() -> None:
    frames = np.random.default_rng(1).integers(0, 60, (8, 64, 200), np.uint16)
    floors = np.full((64, 200), 20, np.uint16)

    def electrons(i: int) -> NDArray[np.uint32]:
        suppressed = counting.suppress(frames[i : i + 1], floors)
        return counting.count_suppressed([suppressed], np.zeros((1, 1), np.int64), 20, 50, floor=20)[0]

    expected = [electrons(i) for i in range(8)] * 8
    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(electrons, list(range(8)) * 8))
    assert all(np.array_equal(a, b) for a, b in zip(counted, expected, strict=True))


def test_frames_are_filled_up_with_what_is_asked_for() -> None:
    suppressed = SuppressedFrames(np.array([[1, 9], [2, 8]], np.uint16), (2, 1, 3))
    assert suppressed.dense().tolist() == [[[0, 9, 0]], [[0, 8, 0]]]
    assert suppressed.dense(4).tolist() == [[[4, 9, 4]], [[4, 8, 4]]]
    assert suppressed.dense(np.array([[1, 2, 3]], np.uint16)).tolist() == [[[1, 9, 3]], [[1, 8, 3]]]


@pytest.mark.parametrize(
    ("listed", "shape", "pixel"),
    [
        ([[6, 1]], (2, 1, 3), 6),
        ([[0, 1]], (0, 1, 3), 0),
        ([[65_535, 9]] * 200, (1, 144, 576), 13_107_199),
    ],
)
def test_pixels_beyond_the_last_frame_are_refused_or_not_counted(
    listed: list[list[int]], shape: tuple[int, int, int], pixel: int
) -> None:
    beyond = SuppressedFrames(np.array(listed, np.uint16), shape)
    with pytest.raises(ValueError, match=f"listed: expected pixels within frames of shape .* got pixel {pixel}"):
        beyond.dense()
    slots = np.arange(shape[0]).reshape(-1, 1)
    indices, _ = counting.count_suppressed([beyond], slots, 0, 100, floor=0)
    assert (indices < shape[1] * shape[2]).all()


@pytest.mark.parametrize(
    ("listed", "shape", "message"),
    [
        (np.array([[0, 1]], np.int32), (2, 1, 3), r"listed: expected an \(m, 2\) array of uint16, got \(1, 2\) int32"),
        (np.array([[0, 1, 2]], np.uint16), (2, 1, 3), r"got \(1, 3\) uint16"),
        ([[0, 1]], (2, 1, 3), "got  list"),
        (np.zeros((4, 4), np.uint16)[:, ::2], (9, 9, 9), "listed: expected a C-contiguous array"),
        (np.zeros((0, 2), np.uint16), (-1, 1, 3), r"shape: expected \(n, rows, width\)"),
        (np.zeros((0, 2), np.uint16), (1, 3), r"shape: expected \(n, rows, width\)"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    listed: NDArray[np.uint16], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SuppressedFrames(listed, shape)


@pytest.mark.parametrize(
    ("frames", "floors", "message"),
    [
        (np.zeros((1, 4, 4), np.int32), np.zeros((4, 4), np.uint16), "sector_frames: expected an array of uint16"),
        (np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.uint16), "sector_frames: expected 3 dimensions"),
        (
            np.zeros((1, 4, 8), np.uint16)[:, :, ::2],
            np.zeros((4, 4), np.uint16),
            "sector_frames: expected a C-contiguous",
        ),
        (np.zeros((1, 4, 4), np.uint16), np.zeros((4, 4)), "floors: expected an array of uint16"),
        (np.zeros((1, 4, 4), np.uint16), np.zeros((4, 8), np.uint16)[:, ::2], "floors: expected a C-contiguous"),
        (np.zeros((1, 4, 4), np.uint16), np.zeros((4, 5), np.uint16), "floors: expected the shape of a sector frame"),
    ],
)
def test_pixels_that_are_none_are_refused(frames: NDArray[np.uint16], floors: NDArray[np.uint16], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        counting.suppress(frames, floors)
