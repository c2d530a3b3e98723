"""Same pixels, same corrections, same electrons: the fast engine against stempy, for every combination."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stempy import _image
from stempy.image import electron_count_frame
from stempy.io import PyReader

import counting

MAX = 65_535
STEMPY_XRAY = 60_000  # above it dark without gain is not stempy's
SETTINGS = settings(max_examples=40, deadline=None)
COMBINATIONS = [(dark, gain, row) for dark in (0, 1) for gain in (0, 1) for row in (None, "mean", "median")]
COMBINATION = pytest.mark.parametrize(
    ("dark", "gain", "row_dark"),
    COMBINATIONS,
    ids=["+".join(filter(None, ("dark" * d, "gain" * g, row))) or "none" for d, g, row in COMBINATIONS],
)


@dataclass
class Case:
    frames: NDArray[np.uint16]
    background: float
    xray: float
    corrections: dict[str, Any]

    def count(self, engine: str) -> counting.Electrons:
        return counting.count_frames(self.frames, self.background, self.xray, **self.corrections, engine=engine)


def assert_same(got: counting.Electrons, expected: counting.Electrons) -> int:
    """Compare exactly and give the number of electrons."""
    assert [part.dtype for part in got] == [part.dtype for part in expected]
    assert np.array_equal(got[1], expected[1])
    assert np.array_equal(got[0], expected[0])
    return len(got[0])


def draw_dark(rng: np.random.Generator, shape: tuple[int, int], limit: int) -> NDArray[np.float32]:
    kinds = [
        rng.normal(limit / 5, limit / 20, shape),  # as a detector has it, with a fraction
        rng.integers(-2, 4, shape),  # ties after subtraction
        rng.choice([0, 0.25, 0.5, 0.999], shape),  # a fraction only
        rng.uniform(-MAX, MAX, shape),
        np.full(shape, limit + 7.5),  # above every pixel
    ]
    return kinds[rng.integers(len(kinds))].clip(-MAX, MAX).astype(np.float32)


def draw_gain(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    kinds = [
        rng.normal(1, 0.05, shape).clip(0.5),
        rng.choice([0.5, 1, 2], shape),  # ties of unequal raw values
        rng.choice([1e-6, 0.1, 1, 3, 1e6], shape),
    ]
    return kinds[rng.integers(len(kinds))].astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, *, dark: bool, gain: bool, row_dark: str | None, widths: st.SearchStrategy[int]) -> Case:
    """Frames with many ties or over the full range, references, and thresholds that many pixels are equal to."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(widths)
    rows = max(width, 2) if row_dark else draw(st.integers(1, 9))
    width = rows if row_dark else width
    limit = draw(st.sampled_from([1, 4, 60, 1000, MAX]))
    frames = rng.integers(0, limit, (draw(st.integers(0, 3)), rows, width), np.uint16, endpoint=True)
    if draw(st.booleans()):
        frames[:, :: draw(st.integers(1, 3))] = draw(st.sampled_from([0, limit]))
    corrections: dict[str, Any] = {}
    if dark:
        corrections["dark"] = draw_dark(rng, (rows, width), limit)
    if gain:
        corrections["gain"] = draw_gain(rng, (rows, width))
    if row_dark:
        corrections |= {"row_dark": row_dark, "optimized_mean": draw(st.sampled_from([limit / 5, 1.0, 12.5, -3, 1e8]))}
    thresholds = st.integers(-2, 8) | st.floats(-limit, 1.1 * limit) | st.sampled_from([limit, limit / 2])
    background, xray = draw(thresholds), draw(thresholds | st.sampled_from([2000, STEMPY_XRAY, MAX, MAX + 1, np.inf]))
    if dark and not gain:
        xray = min(xray, STEMPY_XRAY)
    if gain and len(frames):  # exactly the corrected value of some pixel
        subtracted = frames[0, 0, 0].astype(np.float32) - (corrections["dark"][0, 0] if dark else np.float32(0))
        corrected = float(subtracted * np.power(corrections["gain"], -1)[0, 0])
        background, xray = draw(st.sampled_from([(background, xray), (corrected, xray), (background, corrected)]))
    return Case(frames, background, xray, corrections)


@COMBINATION
@SETTINGS
@given(data=st.data())
def test_engines_agree_on_small_frames(data: st.DataObject, dark: bool, gain: bool, row_dark: str | None) -> None:
    case = data.draw(cases(dark=dark, gain=gain, row_dark=row_dark, widths=st.integers(2, 9)))
    assert_same(case.count("fast"), case.count("stempy"))


@COMBINATION
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_engines_agree_on_wide_frames(data: st.DataObject, dark: bool, gain: bool, row_dark: str | None) -> None:
    case = data.draw(cases(dark=dark, gain=gain, row_dark=row_dark, widths=st.integers(62, 150)))
    assert_same(case.count("fast"), case.count("stempy"))


@COMBINATION
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_sectors_count_like_the_joined_frame(data: st.DataObject, dark: bool, gain: bool, row_dark: str | None) -> None:
    case = data.draw(cases(dark=dark, gain=gain, row_dark=row_dark, widths=st.integers(2, 80)))
    n, rows, _ = case.frames.shape
    sector_count = data.draw(st.sampled_from([s for s in (1, 2, 3, 4) if rows % s == 0]))
    height = rows // sector_count
    order = np.random.default_rng(n).permutation(n)
    sectors = [np.ascontiguousarray(case.frames[order, m * height : (m + 1) * height]) for m in range(sector_count)]
    slots = np.repeat(np.argsort(order)[:, np.newaxis], sector_count, axis=1)
    corrections = counting.Corrections(**case.corrections)
    for engine in counting.ENGINES:
        counted = counting.count_sectors(
            sectors, slots, case.background, case.xray, corrections=corrections, engine=engine
        )
        assert_same(counted, case.count("stempy"))


def detector_frames(seed: int) -> NDArray[np.uint16]:
    """Four 576 x 576 frames: pedestal and noise, charge-shared hits, x-rays, a saturated corner and a dead row."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(12, 5, (4, 576, 576))
    for frame in frames:
        y, x = rng.integers(1, 575, (2, 800))
        charge = rng.gamma(4, 40, 800)
        for dy, dx, share in [(0, 0, 0.6), (0, 1, 0.2), (1, 0, 0.15), (-1, -1, 0.05)]:
            np.add.at(frame, (y + dy, x + dx), charge * share)
        frame[tuple(rng.integers(0, 576, (2, 20)))] += rng.uniform(1500, 70_000, 20)
    frames[1, :30, :30] = MAX
    frames[2, 200] = 0
    return np.clip(np.rint(frames), 0, MAX).astype(np.uint16)


def detector_references(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    dark = rng.normal(12, 1, (576, 576)).astype(np.float32)
    gain = rng.normal(1, 0.05, (576, 576)).astype(np.float32)
    gain[100, 100], dark[200, 300] = 1e-5, -40
    return {"dark": dark, "gain": gain}


@COMBINATION
@pytest.mark.parametrize(("background", "xray"), [(17.25, 59_999.5), (-1.5, 300)])
def test_engines_agree_on_the_detector_and_stempy_itself_gives_the_same(
    dark: bool, gain: bool, row_dark: str | None, background: float, xray: float
) -> None:
    frames = detector_frames(seed=1)
    given = {name: r for name, r in detector_references(seed=2).items() if (dark if name == "dark" else gain)}
    row = {"row_dark": row_dark, "optimized_mean": 12.5} if row_dark else {}
    case = Case(frames, background, xray, given | row)
    assert assert_same(case.count("fast"), case.count("stempy")) > 100
    count_itself = count_rows_with_stempy_itself if row_dark else count_with_stempy_itself
    assert_same(case.count("fast"), count_itself(case))


def test_the_mean_of_a_bright_half_row_is_rounded_on_the_way_as_in_stempy() -> None:
    frames = np.random.default_rng(3).integers(60_000, MAX, (1, 576, 576), np.uint16, endpoint=True)
    case = Case(frames, 0, 60_000, {"row_dark": "mean", "optimized_mean": 30_000})
    assert assert_same(case.count("fast"), case.count("stempy")) > 1000


def count_with_stempy_itself(case: Case) -> counting.Electrons:
    """Call stempy as its users do."""
    rows = [
        electron_count_frame(
            frame,
            darkreference=case.corrections.get("dark"),
            gain=case.corrections.get("gain"),
            background_threshold=case.background,
            xray_threshold=case.xray,
        ).data[0, 0]
        for frame in case.frames
    ]
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])


def count_rows_with_stempy_itself(case: Case) -> counting.Electrons:
    """Call what stempy.image.electron_count calls once it has found thresholds, in one go for all frames."""
    n = len(case.frames)
    options = _image.ElectronCountOptionsClassic()
    options.background_threshold, options.x_ray_threshold = case.background, case.xray
    options.scan_dimensions = (n, 1)
    if "dark" in case.corrections:
        options.dark_reference = case.corrections["dark"]
    if "gain" in case.corrections:
        options.gain = np.power(case.corrections["gain"], -1)
    options.apply_row_dark_subtraction = True
    options.apply_row_dark_use_mean = case.corrections["row_dark"] == "mean"
    options.optimized_mean = case.corrections["optimized_mean"]
    reader = PyReader(case.frames, np.arange(n), (n, 1), 3, n)
    rows = [row[0] for row in _image.electron_count(reader.begin(), reader.end(), options).data]
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])
