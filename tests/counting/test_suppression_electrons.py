"""Frames of which only the pixels above a floor are left have exactly the electrons of the full frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

import counting
from counting import Corrections, SuppressedFrames
from counting.floors import MAX_DARK, MAX_XRAY

MAX = 65_535
ENGINE = pytest.mark.parametrize("engine", counting.ENGINES)
THOROUGH = settings(max_examples=100, deadline=None)
NO_CORRECTIONS = Corrections()

floors_drawn = st.integers(0, 12) | st.floats(0, 12) | st.floats(0, MAX)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9))


def split(frames: NDArray[np.uint16], sector_count: int) -> list[NDArray[np.uint16]]:
    rows = frames.shape[1] // sector_count
    return [np.ascontiguousarray(frames[:, m * rows : (m + 1) * rows]) for m in range(sector_count)]


def suppress_all(
    frames: NDArray[np.uint16], floor: float, corrections: Corrections, sector_count: int
) -> list[SuppressedFrames]:
    floors = split(counting.pixel_floors(floor, corrections, frames.shape[1:])[np.newaxis], sector_count)
    sectors = split(frames, sector_count)
    return [counting.suppress(s, f[0]) for s, f in zip(sectors, floors, strict=True)]


def same_slots(frames: int, sector_count: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(frames)[:, np.newaxis], sector_count, axis=1)


def assert_same_electrons(
    frames: NDArray[np.uint16],
    floor: float,
    background: float,
    xray: float,
    *,
    corrections: Corrections = NO_CORRECTIONS,
    sector_count: int = 1,
) -> int:
    """Compare full with suppressed frames in both engines, exactly, and give the number of electrons."""
    references: dict[str, Any] = {"dark": corrections.dark, "gain": corrections.gain}
    indices, offsets = counting.count_frames(frames, background, xray, **references, engine="stempy")
    suppressed = suppress_all(frames, floor, corrections, sector_count)
    slots = same_slots(len(frames), sector_count)
    for engine in counting.ENGINES:
        got_indices, got_offsets = counting.count_suppressed(
            suppressed, slots, background, xray, floor=floor, corrections=corrections, engine=engine
        )
        assert (got_indices.dtype, got_offsets.dtype) == (indices.dtype, offsets.dtype)
        assert np.array_equal(got_offsets, offsets)
        assert np.array_equal(got_indices, indices)
    return len(indices)


def frames_drawn_below(limit: int) -> st.SearchStrategy[NDArray[np.uint16]]:
    """Frames of 1 to 4 sectors."""
    sizes = st.tuples(st.integers(0, 3), st.sampled_from([4, 8]), st.integers(2, 9))
    return npst.arrays(np.uint16, sizes, elements=st.integers(0, limit) | st.sampled_from([0, limit]))


@THOROUGH
@given(
    frames=frames_drawn_below(15),
    floor=st.integers(0, 12) | st.floats(0, 12),
    above=st.integers(0, 3) | st.floats(0, 3),
    xray=st.integers(0, 17),
    sector_count=st.sampled_from([1, 2, 4]),
)
def test_electrons_are_the_same_where_ties_and_threshold_values_are_everywhere(
    frames: NDArray[np.uint16], floor: float, above: float, xray: float, sector_count: int
) -> None:
    assert_same_electrons(frames, floor, floor + above, xray, sector_count=sector_count)


@THOROUGH
@given(
    frames=frames_drawn_below(MAX),
    floor=st.floats(0, MAX),
    above=st.floats(0, 70_000),
    xray=st.floats(0, 70_000) | st.just(np.inf),
    sector_count=st.sampled_from([1, 2, 4]),
)
@example(frames=np.array([[[MAX, MAX - 1]] * 2], np.uint16), floor=MAX, above=0.0, xray=np.inf, sector_count=1)
@example(frames=np.zeros((2, 4, 4), np.uint16), floor=0.0, above=0.0, xray=np.inf, sector_count=4)
def test_electrons_are_the_same_over_the_full_range_of_values(
    frames: NDArray[np.uint16], floor: float, above: float, xray: float, sector_count: int
) -> None:
    assert_same_electrons(frames, floor, floor + above, xray, sector_count=sector_count)


@st.composite
def corrected_frames(draw: st.DrawFn, dark: bool, gain: bool) -> tuple[NDArray[np.uint16], Corrections]:
    """Frames whose pixels lie near what the references make of the thresholds, and the references."""
    shape = draw(st.tuples(st.integers(1, 2), st.sampled_from([4, 8]), st.integers(2, 7)))
    darks = draw(npst.arrays(np.float32, shape[1:], elements=st.floats(-3, 30, width=32) | st.just(MAX_DARK)))
    gains = draw(npst.arrays(np.float32, shape[1:], elements=st.floats(0.25, 4, width=32)))
    values = draw(npst.arrays(np.int64, shape, elements=st.integers(-4, 40) | st.sampled_from([-(2**17), 2**17])))
    raw = values * (gains if gain else 1) + (darks if dark else 0)
    frames = np.clip(np.rint(raw), 0, MAX).astype(np.uint16)
    return frames, Corrections(dark=darks if dark else None, gain=gains if gain else None)


@pytest.mark.parametrize(("dark", "gain"), [(True, False), (False, True), (True, True)], ids=["dark", "gain", "both"])
@THOROUGH
@given(data=st.data())
def test_electrons_are_the_same_with_references(data: st.DataObject, dark: bool, gain: bool) -> None:
    frames, corrections = data.draw(corrected_frames(dark, gain))
    floor = data.draw(st.integers(3, 20) | st.floats(3, 20))
    if corrections.dark is not None and corrections.gain is not None:
        assume((-corrections.dark / corrections.gain <= floor).all())
    background = floor + data.draw(st.sampled_from([0, 0.5, 1]) | st.floats(0, 10))
    xray = data.draw(st.integers(0, 50) | st.floats(0, MAX_XRAY) | st.just(float(MAX_XRAY)))
    sectors = data.draw(st.sampled_from([1, 2, 4]))
    assert_same_electrons(frames, floor, background, xray, corrections=corrections, sector_count=sectors)


@pytest.mark.parametrize("dark", [None, 3.0])
def test_corrected_pixels_that_equal_a_threshold_are_cut_off(dark: float | None) -> None:
    frames = np.zeros((1, 4, 20), np.uint16)
    frames[0, ::2, ::2] = np.arange(20).reshape(2, 10)
    darks = None if dark is None else np.full((4, 20), dark, np.float32)
    corrections = Corrections(dark=darks, gain=np.full((4, 20), 2, np.float32))
    for threshold in np.arange(1, 9, 0.5):
        found = assert_same_electrons(frames, 1.0, 1.0, float(threshold), corrections=corrections)
        assert found == max(0, 2 * threshold - 3)
        found = assert_same_electrons(frames, 1.0, float(threshold), 8.0, corrections=corrections)
        assert found == max(0, 15 - 2 * threshold)


@pytest.mark.parametrize("floor", [0.0, 0.5, 3.0])
def test_a_dark_as_great_as_allowed_is_exact_for_every_raw_value(floor: float) -> None:
    frames = np.zeros((1, 512, 512), np.uint16)
    frames[0, ::2, ::2] = np.arange(MAX + 1).reshape(256, 256)
    dark = np.zeros((512, 512), np.float32)
    dark[::2, ::2] = MAX_DARK
    found = assert_same_electrons(frames, floor, floor, MAX_XRAY, corrections=Corrections(dark=dark))
    assert found == MAX_XRAY - np.floor(floor) - 1


@pytest.mark.parametrize("electrons", [80, 2000])
@pytest.mark.parametrize("references", ["none", "dark", "gain", "both"])
def test_electrons_are_the_same_on_noisy_frames_of_the_detector(electrons: int, references: str) -> None:
    rng = np.random.default_rng(electrons)
    frames = rng.normal(12, 5, (2, 576, 576))
    for frame in frames:
        y, x = rng.integers(0, 576, (2, electrons))
        charge = rng.gamma(4, 40, electrons)
        for dy, dx, share in [(0, 0, 0.6), (0, 1, 0.2), (1, 0, 0.15), (-1, -1, 0.05)]:
            np.add.at(frame, (np.clip(y + dy, 0, 575), np.clip(x + dx, 0, 575)), charge * share)
        frame[tuple(rng.integers(0, 576, (2, 20)))] += rng.uniform(1500, 70_000, 20)
    dark = rng.normal(12, 1, (576, 576)).astype(np.float32) if references in {"dark", "both"} else None
    gain = rng.normal(1, 0.05, (576, 576)).astype(np.float32) if references in {"gain", "both"} else None
    floor = 15.0 + (0 if dark is not None else 12)
    corrections = Corrections(dark=dark, gain=gain)
    pixels = np.clip(np.rint(frames), 0, MAX).astype(np.uint16)
    found = assert_same_electrons(pixels, floor, floor + 5, 2000, corrections=corrections, sector_count=4)
    assert found > 0.5 * 2 * electrons


@ENGINE
@pytest.mark.parametrize(
    "hits",
    [
        [(3, 2)],
        [(4, 2)],
        [(3, 2), (4, 2)],
        [(3, 2), (4, 3)],
        [(3, 3), (4, 2)],
        [(3, 0), (3, 5), (4, 5)],
        [(0, 0), (0, 5), (7, 0), (7, 5)],
        [(0, 5), (1, 0)],
        [(3, 5), (4, 0)],
    ],
    ids=str,
)
def test_hits_on_borders_and_corners_see_their_neighbours_and_no_others(
    hits: Sequence[tuple[int, int]], engine: str
) -> None:
    frames = np.zeros((3, 8, 6), np.uint16)
    frames[0] = frames[2] = 50  # what lies before and behind in the arrays is no neighbour
    for k, hit in enumerate(hits):
        frames[1][hit] = 20 + k
    suppressed = suppress_all(frames, 5, NO_CORRECTIONS, 2)
    got, _ = counting.count_suppressed(suppressed, np.array([[1, 1]]), 5, 100, floor=5, engine=engine)
    expected, _ = counting.count_frames(frames[1:2], 5, 100, engine="stempy")
    assert got.tolist() == expected.tolist()
    assert len(got) > 0


@ENGINE
@THOROUGH
@given(data=st.data())
def test_each_frame_takes_its_own_slots_in_any_order(data: st.DataObject, engine: str) -> None:
    sectors = [data.draw(npst.arrays(np.uint16, (n, 2, 5), elements=st.integers(0, 12))) for n in (1, 4, 3)]
    slots = data.draw(npst.arrays(np.int64, st.tuples(st.integers(0, 6), st.just(3)), elements=st.integers(0, 3)))
    slots = np.minimum(slots, [0, 3, 2])
    floors = counting.pixel_floors(4, NO_CORRECTIONS, (6, 5))
    suppressed = [counting.suppress(s, floors[:2]) for s in sectors]
    got = counting.count_suppressed(suppressed, slots, 5, 11, floor=4, engine=engine)
    expected = counting.count_sectors(sectors, slots, 5, 11, engine="stempy")
    assert [a.tolist() for a in got] == [a.tolist() for a in expected]


def test_a_pixel_of_the_frame_before_is_no_neighbour() -> None:
    frames = np.zeros((2, 2, 5), np.uint16)
    frames[0, 0, 1:3] = 7, 9
    frames[1, 0, 1] = 8
    (suppressed,) = suppress_all(frames, 4, NO_CORRECTIONS, 1)
    indices, offsets = counting.count_suppressed([suppressed], same_slots(2, 1), 5, 100, floor=4)
    assert (indices.tolist(), offsets.tolist()) == ([2, 1], [0, 1, 2])


def test_sector_frames_in_no_slot_are_not_counted() -> None:
    sectors = [np.zeros((n, 2, 5), np.uint16) for n in (2, 3)]
    for sector in sectors:
        sector[:, 1, 2] = 9
    floors = np.full((2, 5), 4, np.uint16)
    suppressed = [counting.suppress(s, floors) for s in sectors]
    indices, offsets = counting.count_suppressed(suppressed, np.array([[1, 2]]), 5, 100, floor=4)
    assert (indices.tolist(), offsets.tolist()) == ([7, 17], [0, 2])


def test_a_sector_frame_far_behind_the_one_before_is_found() -> None:
    sector = np.zeros((9, 144, 576), np.uint16)
    sector[0, 5, 5] = sector[8, 143, 575] = 9
    suppressed = counting.suppress(sector, np.full((144, 576), 4, np.uint16))
    indices, offsets = counting.count_suppressed([suppressed], same_slots(9, 1), 5, 100, floor=4)
    assert (indices.tolist(), offsets.tolist()) == ([5 * 576 + 5, 144 * 576 - 1], [0] + [1] * 8 + [2])


def test_frames_with_every_pixel_listed_are_counted() -> None:
    frames = np.random.default_rng(3).integers(1, MAX, (3, 64, 130), np.uint16)
    assert assert_same_electrons(frames, 0, 0, MAX_XRAY, sector_count=4) > 1000


def test_frames_as_full_of_electrons_as_can_be_are_counted() -> None:
    sectors = []
    for _ in range(4):
        sector = np.zeros((10, 144, 576), np.uint16)
        sector[:, ::2, ::2] = 9
        sectors.append(counting.suppress(sector, np.zeros((144, 576), np.uint16)))
    _, offsets = counting.count_suppressed(sectors, same_slots(10, 4), 5, 100, floor=0)
    assert np.array_equal(offsets, 82_944 * np.arange(11))


def test_no_frames_give_no_electrons() -> None:
    empty = SuppressedFrames(np.zeros((0, 2), np.uint16), (0, 2, 4))
    indices, offsets = counting.count_suppressed([empty] * 4, np.zeros((0, 4), np.int64), 5, 100, floor=0)
    assert (indices.tolist(), offsets.tolist()) == ([], [0])


def test_the_compiled_kernels_serve_every_kind_of_array() -> None:
    from counting import from_suppressed

    counting.warm_up()
    before = len(from_suppressed._count.signatures)
    frames = np.full((2, 4, 6), 9, np.uint16)
    reference = np.ones((4, 6), np.float32)
    for corrections in (NO_CORRECTIONS, Corrections(dark=reference), Corrections(gain=reference)):
        (suppressed,) = suppress_all(frames, 3, corrections, 1)
        read_only = SuppressedFrames(np.frombuffer(suppressed.listed.tobytes(), np.uint16).reshape(-1, 2), (2, 4, 6))
        slots = np.zeros((4, 2), np.int64)[::2, :1]
        slots.flags.writeable = False
        for background in (5, 5.5):
            counting.count_suppressed([read_only], slots, background, 100, floor=3, corrections=corrections)
    assert len(from_suppressed._count.signatures) == before == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background": 4.9}, "background: expected at least the floor of 5"),
        ({"floor": -1}, "floor: expected 0 to 65535"),
        ({"floor": np.nan}, "floor: expected 0 to 65535"),
        ({"background": np.nan}, "background: expected a threshold"),
        ({"slots": np.array([[0, 2]])}, r"slots\[0, 1\]: expected 0 to 1"),
        ({"slots": np.array([[-1, 0]])}, r"slots\[0, 0\]: expected 0 to 1"),
        ({"sectors": []}, "sectors: expected at least one"),
        ({"engine": "slow"}, "engine: expected one of fast, stempy"),
        ({"corrections": Corrections(row_dark="mean", optimized_mean=3)}, "row_dark"),
        (
            {"corrections": Corrections(dark=np.ones((4, 4), np.float32)), "xray": 60_001},
            "xray: expected at most 60000",
        ),
        ({"corrections": Corrections(dark=np.ones((3, 4), np.float32))}, "dark: expected the shape of a frame"),
    ],
    ids=str,
)
def test_what_would_not_be_exact_or_fit_is_refused(change: dict[str, Any], message: str) -> None:
    sectors = [SuppressedFrames(np.zeros((0, 2), np.uint16), (2, 2, 4))] * 2
    given: dict[str, Any] = {"sectors": sectors, "slots": same_slots(2, 2), "background": 5, "xray": 100, "floor": 5}
    given |= change
    with pytest.raises(ValueError, match=message):
        counting.count_suppressed(**given)


def test_sectors_of_unequal_width_are_refused() -> None:
    sectors = [SuppressedFrames(np.zeros((0, 2), np.uint16), (1, 2, width)) for width in (4, 5)]
    with pytest.raises(ValueError, match=r"sectors\[1\]: expected rows and width of sectors\[0\]"):
        counting.count_suppressed(sectors, same_slots(1, 2), 5, 100, floor=5)
