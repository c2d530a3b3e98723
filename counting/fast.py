"""The fast engine: strict maxima by a numba kernel that reads frames or sector frames in place.

Electrons are rare, so a frame is searched in three steps, a few rows at a time:

1. One vector comparison tells of 64 pixels which are *candidates*: within the thresholds.
2. Groups of 16 pixels with a candidate are listed. Up to here no branch depends on pixels: a wrong guess of the
   processor costs more than the work that a branch would save.
3. Each group is compared with its neighbours, 16 pixels at once.

A shift makes thresholds and dark reference part of the comparisons. A pixel survives if ``lowest <= raw - dark <=
highest``, in uint16 arithmetic that wraps round. Let ``shifted = raw - dark - (highest + 1)``, wrapping round as well:
values from 0 to ``highest`` become the greatest of all numbers, in their order, and all others lie below them. So
``shifted >= least`` says that a pixel survives, and such a pixel is an electron if its shifted value exceeds those of
its neighbours.

With gain, values are float32, but they still grow with the raw value. So step 1 is the same, with a shift for each
pixel that lets all pixels through which may survive; then each candidate and its neighbours are corrected.

The kernel knows pixels by address. So one compiled kernel serves any number of sectors, arrays that are read-only (to
numba those are another type) and arrays at odd addresses (a payload behind a message header), and nothing is copied.
All that the kernel calls stays in this file, as numba's cache only notices changes of the kernel's own file.
"""

# ruff: noqa: PLR0917 - a kernel has no objects that could hold its arrays together

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from counting import correcting
from counting.corrections import PIXEL_MAX, WRAPPING_XRAY, Corrections

PIXEL_BYTES = 2
FLOAT_BYTES = 4
STRETCH_PX = 64  # the bits of a uint64 mask; 576 = 9 * 64
GROUP_PX = 16  # the uint16 of an AVX2 register
WINDOW_PX = 4  # the 3 pixels side by side, and one more to make a vector
BLOCK_ROWS = 8  # few enough that what step 1 read is still in the first-level cache in step 3
PREFETCH_BYTES = 2048  # the processor by itself does not read ahead beyond a page of memory
CACHE_LINE_BYTES = 64
PREPARED_ROWS = 64  # what is computed on the way fits into the second-level cache
BUFFER_INDICES = 1 << 18  # 1 MiB: a chunk of frames seldom needs more, and it stays in the second-level cache

_thread = threading.local()


class _Plan(NamedTuple):
    """What depends only on corrections, thresholds and the size of the frame."""

    rows: NDArray[np.int64]  # (3, height + 2) addresses of rows: shift, and dark and 1 / gain if there is a gain
    least: np.uint16  # what the shifted value of a candidate reaches
    with_gain: bool
    limits: tuple[np.float32, np.float32]  # with gain: a corrected value between them survives
    kept: tuple[NDArray[Any], ...]  # the arrays that the addresses point into


def count(
    sectors: Sequence[NDArray[np.uint16]],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    corrections: Corrections,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count electrons; arguments as checked by counting.count_sectors, which describes them.

    Parameters
    ----------
    sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
        The sector frames, C-contiguous.
    slots : (n, S) int64
        Frame ``i`` is made of ``sectors[m][slots[i, m]]``.
    background, xray : float, detector counts
        The thresholds.
    corrections : Corrections
        Made for frames of this size.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices, ascending within each frame.
    offsets : (n + 1,) int64
        Where each frame's electrons begin and end in ``indices``.
    """
    if corrections.row_dark is not None or (corrections.gain is not None and background < 0):
        return correcting.count(sectors, slots, background, xray, corrections)
    n, sector_count = slots.shape
    _, rows, width = sectors[0].shape
    offsets = np.zeros(n + 1, np.int64)
    pieces = [np.empty(0, np.uint32)]
    plan = _plan(corrections, float(background), float(xray), sector_count * rows, width)
    if plan is not None:
        wide = [_widened(sector) for sector in sectors]
        sector_bytes, row_bytes, _ = wide[0].strides
        addresses = np.array([sector.ctypes.data for sector in wide], np.int64) + slots * sector_bytes
        buffer = _thread_buffer(frame_px=sector_count * rows * width)
        first = 0
        while first < n:
            end = first + _count_until_full(
                addresses[first:], (rows, width, row_bytes), buffer, offsets[first:], *plan[:4]
            )
            pieces.append(buffer[: offsets[end] - offsets[first]].copy())
            first = end
    return np.concatenate(pieces), offsets


def surviving_range(background: float, xray: float) -> tuple[int, int]:
    """Turn the two thresholds into the lowest and the highest pixel value that survives and can be an electron.

    Parameters
    ----------
    background, xray : float, detector counts
        The thresholds; infinite ones too.

    Returns
    -------
    lowest : int
        1 to 65,536: never 0, as a pixel of 0 exceeds no neighbour.
    highest : int
        0 to 65,535. Below ``lowest`` if no pixel survives.
    """
    lowest = math.floor(min(max(background, 0.0), PIXEL_MAX)) + 1
    highest = math.ceil(min(max(xray, 1.0), PIXEL_MAX + 1)) - 1
    return lowest, highest


def _thread_buffer(frame_px: int) -> NDArray[np.uint32]:
    """Give this thread's index buffer, kept from call to call, with room for whatever a frame of this size can hold."""
    buffer: NDArray[np.uint32] | None = getattr(_thread, "buffer", None)
    if buffer is None or len(buffer) < frame_px:
        buffer = _thread.buffer = np.empty(max(frame_px, BUFFER_INDICES), np.uint32)
    return buffer


def _widened(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give rows at least the width of a stretch, with zeros at their right, so that every vector fits into a row."""
    missing = STRETCH_PX - pixels.shape[-1]
    return np.pad(pixels, [(0, 0)] * (pixels.ndim - 1) + [(0, missing)]) if missing > 0 else pixels


@functools.lru_cache(maxsize=8)
def _plan(corrections: Corrections, background: float, xray: float, height: int, width: int) -> _Plan | None:
    """Prepare for these settings; None if no pixel survives them."""
    dark, inverse_gain = corrections.dark, corrections.inverse_gain
    if inverse_gain is not None:
        return _plan_with_gain(
            np.zeros((1, width), np.float32) if dark is None else dark, inverse_gain, background, xray
        )
    if dark is not None and xray > WRAPPING_XRAY:  # in floats nothing wraps, and negative is below the background
        return _plan_with_gain(np.trunc(dark), np.ones_like(dark), max(background, 0.0), xray)
    lowest, highest = surviving_range(background, xray)
    if lowest > highest:
        return None
    shift = np.zeros((1, width), np.int32) if dark is None else np.trunc(dark).astype(np.int32)
    shift += highest + 1
    return _plan_in_place(height, PIXEL_MAX - (highest - lowest), shift.astype(np.uint16))


def _plan_with_gain(
    dark: NDArray[np.float32], inverse_gain: NDArray[np.float32], background: float, xray: float
) -> _Plan:
    """Let through all pixels that may survive; each is looked at in float32 afterwards."""
    height, width = inverse_gain.shape
    margin = 0.5  # detector counts; float32 rounds them by less than a tenth
    with np.errstate(over="ignore"):
        lower, upper = np.float32(background), np.float32(xray)
        shift = np.empty((height, width), np.uint16)
        span = 0
        for first in range(0, height, PREPARED_ROWS):
            some = slice(first, first + PREPARED_ROWS)
            dark_rows = dark[some] if len(dark) > 1 else dark
            shift[some] = _raw_values(lower, inverse_gain[some], dark_rows - margin)
            highest = _raw_values(upper, inverse_gain[some], dark_rows + margin)
            span = max(span, int((highest.astype(np.int32) - shift[some]).max()))
    shift += np.uint16((span + 1) & PIXEL_MAX)
    # A float32 is at or below the background if it is at or below the greatest float32 that is; and so on.
    lower = np.nextafter(lower, np.float32(-np.inf)) if float(lower) > background else lower
    upper = np.nextafter(upper, np.float32(np.inf)) if float(upper) < xray else upper
    return _plan_in_place(height, PIXEL_MAX - span, shift, dark, inverse_gain, limits=(lower, upper))


def _raw_values(
    corrected: np.float32, inverse_gain: NDArray[np.float32], dark: NDArray[np.floating[Any]]
) -> NDArray[np.uint16]:
    """Give the raw values that become `corrected`, cut off to whole counts."""
    return np.clip(corrected / inverse_gain + dark, 0, PIXEL_MAX).astype(np.uint16)


def _plan_in_place(
    height: int,
    least: int,
    *references: NDArray[Any],
    limits: tuple[np.float32, np.float32] = (np.float32(0), np.float32(0)),
) -> _Plan:
    """Lay out shift, dark and 1 / gain (each with one row for all, or each row its own), with rows of zeros around."""
    kept = [_widened(reference) for reference in references]
    zeros = np.zeros(kept[0].shape[1], np.float32)
    rows = np.full((3, height + 2), zeros.ctypes.data, np.int64)
    for row, reference in zip(rows, kept, strict=False):
        row[1:-1] = reference.ctypes.data + (np.arange(height) * reference.strides[0] if len(reference) > 1 else 0)
    return _Plan(rows, np.uint16(least), len(references) > 1, limits, (*kept, zeros))


# What numba has no words for, in LLVM's. The kernel calls each like a function of the arguments after `_`; each returns
# numba's type signature and the function that writes the instructions.

_Instruction = tuple[Any, Callable[..., ir.Value]]
_INT16, _INT32, _INT64, _FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_THREE_ROWS = types.UniTuple(types.int64, 3)  # type: ignore[no-untyped-call]


def _instruction(write: Callable[..., Any]) -> Callable[..., Any]:
    """Make an intrinsic, typed loosely: numba's own types take its typing context for an argument of the caller."""
    return cast("Callable[..., Any]", intrinsic(write))


def _load(builder: ir.IRBuilder, kind: ir.Type, address: ir.Value, offset_bytes: int = 0) -> ir.Value:
    """Read a value or a vector at an address, which may be odd."""
    place = builder.add(address, ir.Constant(_INT64, offset_bytes))
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=1)


def _lanes(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT32, len(numbers)), list(numbers))


def _everywhere(builder: ir.IRBuilder, vector: ir.VectorType, value: ir.Value) -> ir.Value:
    """Give a vector that is one value everywhere."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, _lanes([0] * vector.count))


@_instruction
def _fetch_ahead(_: object, address: types.Type) -> _Instruction:
    """Tell the processor that a cache line will soon be read; any address will do."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
    read, keep, data = (ir.Constant(_INT32, number) for number in (0, 3, 1))

    def write(context: Any, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:  # noqa: ANN401
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(prefetch, [builder.inttoptr(arguments[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.none(types.int64), write


@_instruction
def _lowest_bit(_: object, mask: types.Type) -> _Instruction:
    """Give the number of the lowest set bit of a mask; 64 if there is none."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), write


@_instruction
def _candidates(_: object, raw: types.Type, shift: types.Type, least: types.Type) -> _Instruction:
    """Shift the 64 pixels at an address: bit k of the result is set if pixel k reaches `least`."""
    stretch = ir.VectorType(_INT16, STRETCH_PX)

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        raw, shift, least = arguments
        shifted = builder.sub(_load(builder, stretch, raw), _load(builder, stretch, shift))
        reaching = builder.icmp_unsigned(">=", shifted, _everywhere(builder, stretch, least))
        return builder.bitcast(reaching, ir.IntType(STRETCH_PX))

    return types.uint64(types.int64, types.int64, types.uint16), write


def _make_maxima(edge: int) -> Callable[..., Any]:
    """Make the comparison of step 3 for groups at the left (-1) or right (1) edge of the frame or elsewhere (0)."""
    group = ir.VectorType(_INT16, GROUP_PX)
    zeros = ir.Constant(group, [0] * GROUP_PX)

    def beyond(edge: int) -> ir.Constant:
        """Pick each lane's neighbour out of a group; a zero (the first lane after it) stands beyond the edge."""
        return _lanes([lane + edge if 0 <= lane + edge < GROUP_PX else GROUP_PX for lane in range(GROUP_PX)])

    @_instruction
    def maxima(_: object, raw: types.Type, shift: types.Type) -> _Instruction:
        """Shift the 16 pixels at the middle one of three addresses: bit k is set if pixel k exceeds its neighbours."""

        def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
            def shifted(row: int, dx: int) -> ir.Value:
                if dx and dx == edge:
                    return builder.shuffle_vector(shifted(row, 0), zeros, beyond(edge))
                loaded = (
                    _load(builder, group, builder.extract_value(rows, row), PIXEL_BYTES * dx) for rows in arguments
                )
                return builder.sub(*loaded)

            def greater(a: ir.Value, b: ir.Value) -> ir.Value:
                return builder.select(builder.icmp_unsigned(">", a, b), a, b)

            neighbours = [shifted(row, dx) for row in range(3) for dx in (-1, 0, 1) if (row, dx) != (1, 0)]
            exceeding = builder.icmp_unsigned(">", shifted(1, 0), functools.reduce(greater, neighbours))
            return builder.zext(builder.bitcast(exceeding, ir.IntType(GROUP_PX)), _INT64)

        return types.uint64(_THREE_ROWS, _THREE_ROWS), write

    return maxima


_maxima_at_left, _maxima_inside, _maxima_at_right = map(_make_maxima, (-1, 0, 1))


def _correct(builder: ir.IRBuilder, lanes: int, raw: ir.Value, dark: ir.Value, inverse_gain: ir.Value) -> ir.Value:
    """Correct pixels at an address, given those of their dark and 1 / gain."""
    pixels, counts, floats = (ir.VectorType(kind, lanes) for kind in (_INT16, _INT32, _FLOAT))
    value = builder.sitofp(builder.zext(_load(builder, pixels, raw), counts), floats)
    value = builder.fsub(value, _load(builder, floats, dark))
    return builder.fmul(value, _load(builder, floats, inverse_gain))


@_instruction
def _corrected(_: object, raw: types.Type, dark: types.Type, inverse_gain: types.Type) -> _Instruction:
    """Correct the pixel at an address."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.extract_element(_correct(builder, 1, *arguments), ir.Constant(_INT32, 0))

    return types.float32(types.int64, types.int64, types.int64), write


@_instruction
def _reaching(
    _: object, raw: types.Type, dark: types.Type, inverse_gain: types.Type, value: types.Type, xray: types.Type
) -> _Instruction:
    """Correct the 4 pixels at an address: bit k is set if pixel k reaches `value`, and is no x-ray."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        corrected = _correct(builder, WINDOW_PX, *arguments[:3])
        value, xray = (_everywhere(builder, corrected.type, argument) for argument in arguments[3:])
        reaching = builder.fcmp_ordered(">=", corrected, value)
        reaching = builder.and_(reaching, builder.fcmp_ordered("<", corrected, xray))
        return builder.zext(builder.bitcast(reaching, ir.IntType(WINDOW_PX)), _INT64)

    return types.int64(types.int64, types.int64, types.int64, types.float32, types.float32), write


_inlined = njit(inline="always")


@_inlined
def _list_stretches(
    raw_rows: NDArray[np.int64],
    shift_rows: NDArray[np.int64],
    rows: tuple[int, int],
    width: int,
    least: np.uint16,
    places: NDArray[np.int64],
    masks: NDArray[np.uint64],
) -> int:
    """Do step 1 for some rows: list the stretches with candidates by place and mask; give their number."""
    listed = 0
    for y in range(rows[0], rows[1]):
        raw, shift = raw_rows[y], shift_rows[y]
        for x in range(0, width, STRETCH_PX):
            start = min(x, width - STRETCH_PX)  # the last stretch of a row may overlap the one before it
            offset = PIXEL_BYTES * start
            _fetch_ahead(raw + offset + PREFETCH_BYTES)
            _fetch_ahead(raw + offset + PREFETCH_BYTES + CACHE_LINE_BYTES)
            seen_before = np.uint64(x - start)
            mask = _candidates(raw + offset, shift + offset, least) >> seen_before << seen_before
            places[listed] = (y << 16) | start
            masks[listed] = mask
            listed += mask != 0
    return listed


@_inlined
def _list_groups(
    stretches: int, places: NDArray[np.int64], masks: NDArray[np.uint64], groups: NDArray[np.int64]
) -> int:
    """Do step 2: list the groups with candidates, as row, column and mask in one number; give their number."""
    listed = 0
    for i in range(stretches):
        for start in range(0, STRETCH_PX, GROUP_PX):
            mask = np.int64(masks[i] >> np.uint64(start)) & 0xFFFF
            groups[listed] = ((places[i] + start) << 16) | mask
            listed += mask != 0
    return listed


@_inlined
def _near(rows: NDArray[np.int64], y: int, offset: int) -> tuple[np.int64, np.int64, np.int64]:
    return rows[y - 1] + offset, rows[y] + offset, rows[y + 1] + offset


@_inlined
def _maxima(raw_rows: NDArray[np.int64], shift_rows: NDArray[np.int64], y: int, x: int, width: int) -> np.uint64:
    """Do step 3 for the 16 pixels from x of row y on: mark those that exceed their neighbours."""
    raw, shift = _near(raw_rows, y, PIXEL_BYTES * x), _near(shift_rows, y, PIXEL_BYTES * x)
    found: np.uint64
    if x == 0:
        found = _maxima_at_left(raw, shift)
    elif x + GROUP_PX == width:
        found = _maxima_at_right(raw, shift)
    else:
        found = _maxima_inside(raw, shift)
    return found


@_inlined
def _is_electron_with_gain(
    raw_rows: NDArray[np.int64],
    rows: NDArray[np.int64],
    y: int,
    x: int,
    width: int,
    limits: tuple[np.float32, np.float32],
) -> bool:
    """Tell whether a candidate, corrected, lies between the limits and exceeds its neighbours."""
    background, xray = limits
    value = _corrected(raw_rows[y] + PIXEL_BYTES * x, rows[1, y] + FLOAT_BYTES * x, rows[2, y] + FLOAT_BYTES * x)
    first = min(max(x - 1, 0), width - WINDOW_PX)
    itself = 1 << (x - first)
    side_by_side = itself << 1 | itself | itself >> 1
    reaching = 0
    for y_near in range(y - 1, y + 2):
        raw, offset = raw_rows[y_near] + PIXEL_BYTES * first, FLOAT_BYTES * first
        near = _reaching(raw, rows[1, y_near] + offset, rows[2, y_near] + offset, value, xray)
        reaching |= near & (side_by_side - itself * (y_near == y))
    electron: bool = (reaching == 0) & (value > background) & (value < xray)
    return electron


@njit(cache=True, nogil=True)
def _count_until_full(
    addresses: NDArray[np.int64],
    sector_shape: tuple[int, int, int],
    buffer: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    rows_of: NDArray[np.int64],
    least: np.uint16,
    with_gain: bool,
    limits: tuple[np.float32, np.float32],
) -> int:
    """Count frame after frame while the buffer has room for one more that is full of electrons.

    `addresses` (n, S) says where each sector frame begins, `sector_shape` its rows, their width in pixels and in bytes;
    the rest is a plan's. Fills `buffer` from its start, and ``offsets[1:]`` going on from ``offsets[0]``; gives the
    number of frames counted.
    """
    n, sector_count = len(addresses), addresses.shape[1]
    rows, width, row_bytes = sector_shape
    height, stored_width = sector_count * rows, row_bytes // PIXEL_BYTES
    most_electrons = ((height + 1) // 2) * ((width + 1) // 2)  # one in each 2 x 2 pixels
    shift_rows = rows_of[0]
    raw_rows = shift_rows.copy()  # rows 1 to height are set below; the rows of zeros around them stay
    # Each list has room for one more: what comes last is written in any case, and then listed or not.
    most_stretches = BLOCK_ROWS * ((stored_width + STRETCH_PX - 1) // STRETCH_PX)
    places = np.empty(most_stretches + 1, np.int64)
    masks = np.empty(most_stretches + 1, np.uint64)
    groups = np.empty(most_stretches * (STRETCH_PX // GROUP_PX) + 1, np.int64)
    used = 0
    for i in range(n):
        if used + most_electrons >= len(buffer):
            return i
        for m in range(sector_count):
            for row in range(rows):
                raw_rows[1 + m * rows + row] = addresses[i, m] + row * row_bytes
        for first in range(1, height + 1, BLOCK_ROWS):
            block = (first, min(first + BLOCK_ROWS, height + 1))
            stretches = _list_stretches(raw_rows, shift_rows, block, stored_width, least, places, masks)
            if with_gain:
                for j in range(stretches):
                    y, mask = places[j] >> 16, masks[j]
                    while mask:
                        x = (places[j] & 0xFFFF) + _lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        buffer[used] = (y - 1) * width + x
                        used += _is_electron_with_gain(raw_rows, rows_of, y, x, stored_width, limits)
                continue
            for j in range(_list_groups(stretches, places, masks, groups)):
                y, x = groups[j] >> 32, (groups[j] >> 16) & 0xFFFF
                found = np.uint64(groups[j] & 0xFFFF) & _maxima(raw_rows, shift_rows, y, x, stored_width)
                start = (y - 1) * width + x
                buffer[used] = start + _lowest_bit(found)
                used += found != 0
                found &= found - np.uint64(1)
                while found:
                    buffer[used] = start + _lowest_bit(found)
                    used += 1
                    found &= found - np.uint64(1)
        offsets[i + 1] = offsets[0] + used
    return n
