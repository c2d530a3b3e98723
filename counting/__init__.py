"""Electron counting: arrays of detector pixels in, positions of electrons out.

The rule is stempy's, pixel for pixel [1]_. A pixel survives if *background threshold < value < x-ray threshold* and is
0 otherwise. An electron is a surviving pixel above 0 that is strictly greater than each of its up to 8 neighbours
inside the frame: two equal neighbours (a plateau) give none, pixels on edges and corners count, and a pixel cut off as
an x-ray is a neighbour of value 0.

Two engines give the same electrons: ``fast`` (numba, counting.fast) and ``stempy`` (stempy's own compiled code,
counting.stempy_engine). Neither numba nor stempy is imported before an engine is used.

Results are in CSR form over frames: the electrons of frame ``i`` are ``indices[offsets[i] : offsets[i + 1]]``, flat
pixel indices y * width + x in ascending order.

References
----------
.. [1] OpenChemistry/stempy@0a191e7, stempy/electron.cpp: ``electronCount`` (lines 527-561, the thresholds) and
   ``maximalPoints`` (lines 339-406, the neighbours).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from counting import checks, suppressed_frames
from counting.corrections import NO_CORRECTIONS, Corrections
from counting.floors import auto_floor, check_suppression, pixel_floors, values_that_count_as_zero
from counting.suppressed_frames import SuppressedFrames

__all__ = [
    "ENGINES",
    "NO_CORRECTIONS",
    "Corrections",
    "Electrons",
    "SuppressedFrames",
    "auto_floor",
    "count_frames",
    "count_sectors",
    "count_suppressed",
    "pixel_floors",
    "suppress",
    "warm_up",
    "warm_up_suppression",
]

ENGINES = ("fast", "stempy")

Electrons = tuple[NDArray[np.uint32], NDArray[np.int64]]
_Engine = Callable[[Sequence[NDArray[np.uint16]], NDArray[np.int64], float, float, Corrections], Electrons]


def count_frames(
    frames: NDArray[np.uint16],
    background: float,
    xray: float,
    *,
    dark: NDArray[Any] | None = None,
    gain: NDArray[Any] | None = None,
    row_dark: Literal["mean", "median"] | None = None,
    optimized_mean: float | None = None,
    engine: str = "fast",
) -> Electrons:
    """Count the electrons of whole frames.

    Parameters
    ----------
    frames : (n, y, x) uint16, detector counts
        Whole frames, C-contiguous; may be read-only. Each has at least 2 pixels and at most 65,535 a side.
    background : float, detector counts
        Background threshold: a pixel at or below it is 0.
    xray : float, detector counts
        X-ray threshold: a pixel at or above it is 0.
    dark, gain, row_dark, optimized_mean
        Corrections applied to the pixels first, as counting.Corrections describes them.
    engine : {"fast", "stempy"}
        Who counts; the result is the same.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices y * width + x, ascending within each frame.
    offsets : (n + 1,) int64
        Frame ``i`` has the electrons ``indices[offsets[i] : offsets[i + 1]]``.

    Raises
    ------
    ValueError
        An argument has the wrong dtype, shape or memory layout, the engine is unknown, a threshold is NaN, or the
        corrections are refused by counting.Corrections.
    """
    checks.check_pixels("frames", frames)
    slots = np.arange(len(frames), dtype=np.int64).reshape(-1, 1)
    given = (dark, gain, row_dark, optimized_mean)
    corrections = NO_CORRECTIONS if all(one is None for one in given) else Corrections(*given)
    return _count((frames,), slots, (background, xray), corrections, engine)


def count_sectors(
    sectors: Sequence[NDArray[np.uint16]],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    *,
    corrections: Corrections = NO_CORRECTIONS,
    engine: str = "fast",
) -> Electrons:
    """Count the electrons of frames that lie apart as sector frames.

    Frame ``i`` is made of ``sectors[m][slots[i, m]]``, m = 0, 1, …, one below the other; a hit on the border of two
    sectors is compared with its neighbours in both. The fast engine reads the sector arrays in place.

    Parameters
    ----------
    sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
        The sector frames, one C-contiguous array a sector; may be read-only. Sector m holds the frame's rows m * rows
        to (m + 1) * rows - 1.
    slots : (n, S) int64
        For each frame, where in each sector's array its sector frame lies: any order, with gaps or repetitions.
    background : float, detector counts
        Background threshold: a pixel at or below it is 0.
    xray : float, detector counts
        X-ray threshold: a pixel at or above it is 0.
    corrections : Corrections
        Applied to the pixels of the whole frame first. Give the same instance in each call: what is prepared for it is
        kept.
    engine : {"fast", "stempy"}
        Who counts; the result is the same.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices y * width + x in the whole frame, ascending within each frame.
    offsets : (n + 1,) int64
        Frame ``i`` has the electrons ``indices[offsets[i] : offsets[i + 1]]``.

    Raises
    ------
    ValueError
        An argument has the wrong dtype, shape or memory layout, a slot lies outside its sector's array, the engine is
        unknown, a threshold is NaN, or the corrections are not made for frames of this size.
    """
    checks.check_sectors(sectors)
    checks.check_slots(slots, sectors)
    return _count(sectors, slots, (background, xray), corrections, engine)


def count_suppressed(
    sectors: Sequence[SuppressedFrames],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    *,
    floor: float,
    corrections: Corrections = NO_CORRECTIONS,
    engine: str = "fast",
) -> Electrons:
    """Count the electrons of frames of which only the pixels above a floor are left.

    The electrons are exactly those of the full frames. The fast engine looks at the listed pixels only; for stempy's,
    frames are filled up with values that count as 0.

    Parameters
    ----------
    sectors : sequence of S SuppressedFrames
        The sector frames, one object a sector. Sector m holds the frame's rows m * rows to (m + 1) * rows - 1.
    slots : (n, S) int64
        For each frame, which sector frame of each sector belongs to it: any order, with gaps or repetitions; fastest if
        ascending.
    background : float, detector counts
        Background threshold: a pixel at or below it is 0.
    xray : float, detector counts
        X-ray threshold: a pixel at or above it is 0.
    floor : float, detector counts
        What the floors of the pixels were made from (pixel_floors); if sectors differ, the greatest.
    corrections : Corrections
        Those that the floors were made with. Give the same instance in each call: what is prepared for it is kept.
    engine : {"fast", "stempy"}
        Who counts; the result is the same.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices y * width + x in the whole frame, ascending within each frame.
    offsets : (n + 1,) int64
        Frame ``i`` has the electrons ``indices[offsets[i] : offsets[i + 1]]``.

    Raises
    ------
    ValueError
        The background is below the floor; the corrections have row dark, or dark without gain and the x-ray threshold
        is above 60,000; or as count_sectors.
    """
    suppressed_frames.check_sectors(sectors)
    checks.check_slots(slots, sectors)
    rows, width = len(sectors) * sectors[0].shape[1], sectors[0].shape[2]
    checks.check_frame_size(rows, width)
    checks.check_thresholds(background, xray)
    corrections.check_frame(rows, width)
    check_suppression(floor, background, xray, corrections)
    if (rows + 2) * (width + 2) >= 2**31:
        raise ValueError(f"frame: expected less than 2**31 pixels with zero suppression, got {rows} rows of {width}")
    if engine == "fast":
        from counting import from_suppressed  # noqa: PLC0415

        return from_suppressed.count(sectors, slots, background, xray, corrections)
    unlisted = values_that_count_as_zero(corrections, (rows, width))
    height = sectors[0].shape[1]
    dense = [sector.dense(unlisted[m * height : (m + 1) * height]) for m, sector in enumerate(sectors)]
    return _load_engine(engine)(dense, slots, background, xray, corrections)


def suppress(sector_frames: NDArray[np.uint16], floors: NDArray[np.uint16]) -> SuppressedFrames:
    """List the pixels that are above their floors.

    Parameters
    ----------
    sector_frames : (n, rows, width) uint16, C-contiguous, detector counts
        Sector frames (or whole ones); may be read-only.
    floors : (rows, width) uint16, C-contiguous, detector counts
        The floor of each pixel: the sector's rows of pixel_floors.

    Returns
    -------
    SuppressedFrames
        The pixels above their floors, with their values unchanged.

    Raises
    ------
    ValueError
        An argument has the wrong dtype, shape or memory layout.
    """
    checks.check_pixels("sector_frames", sector_frames)
    checks.check_pixels("floors", floors[np.newaxis])
    if floors.shape != sector_frames.shape[1:]:
        raise ValueError(f"floors: expected the shape of a sector frame, {sector_frames.shape[1:]}, got {floors.shape}")
    from counting import suppression  # noqa: PLC0415

    return suppression.suppress(sector_frames, floors)


def warm_up() -> None:
    """Compile the fast engine, or load it from numba's cache, so that the first frame does not wait for it.

    Counts a tiny frame in each way there is, and takes it as a sample; all later calls share the compiled code.
    """
    frames = np.zeros((1, 2, 2), np.uint16)
    count_frames(frames, 0, 1000)
    count_frames(frames, 0, 1000, row_dark="mean", optimized_mean=1)
    from counting.thresholds import ThresholdSamples  # noqa: PLC0415

    ThresholdSamples(NO_CORRECTIONS).add((frames,), np.zeros((1, 1), np.int64))
    warm_up_suppression()


def warm_up_suppression() -> None:
    """Compile or load what suppress and count_suppressed need; warm_up does it, too."""
    from counting import from_suppressed, suppression  # noqa: PLC0415

    suppression.warm_up()
    from_suppressed.warm_up()


def _count(
    sectors: Sequence[NDArray[np.uint16]],
    slots: NDArray[np.int64],
    thresholds: tuple[float, float],
    corrections: Corrections,
    engine: str,
) -> Electrons:
    rows, width = len(sectors) * sectors[0].shape[1], sectors[0].shape[2]
    checks.check_frame_size(rows, width)
    checks.check_thresholds(*thresholds)
    corrections.check_frame(rows, width)
    return _load_engine(engine)(sectors, slots, *thresholds, corrections)


def _load_engine(name: str) -> _Engine:
    # Imported here: numba and stempy take about a second, which processes that never count must not pay.
    if name == "fast":
        from counting import fast  # noqa: PLC0415

        return fast.count
    if name == "stempy":
        from counting import stempy_engine  # noqa: PLC0415

        return stempy_engine.count
    raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
