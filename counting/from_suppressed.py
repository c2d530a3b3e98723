"""Counting from zero-suppressed sector frames: only the listed pixels are looked at.

A pixel that is not listed is at or below the background threshold, so it counts as 0, and neighbours are needed only
among the listed pixels. Those of a frame that survive the thresholds are put into a window of zeros, the size of the
frame, where each is compared with its 8 neighbours; then they are taken out again. Nothing but those pixels is written,
and nothing but they and their neighbours is read: the cost is that of the pixels, whatever the size of the frame.

Everything that is compiled stays in this file, as numba's cache only notices changes of the kernel's own file.
"""

# ruff: noqa: PLR0917 - a kernel has no objects that could hold its arrays together

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from counting.corrections import Corrections
from counting.fast import surviving_range
from counting.suppressed_frames import SuppressedFrames

PAIR_BYTES = 4  # gap and value
GREATEST_GAP = 65_535
VECTOR_PX = 4  # read at a time: 3 side by side, and one more
NOWHERE = np.int32(-2)

_thread = threading.local()


def count(
    sectors: Sequence[SuppressedFrames],
    slots: NDArray[np.int64],
    background: float,
    xray: float,
    corrections: Corrections,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count electrons; arguments as checked by counting.count_suppressed, which describes them.

    Parameters
    ----------
    sectors : sequence of S SuppressedFrames
        The sector frames.
    slots : (n, S) int64
        Frame ``i`` is made of sector frame ``slots[i, m]`` of ``sectors[m]``.
    background, xray : float, detector counts
        The thresholds; the background is not below the floor of any sector.
    corrections : Corrections
        Made for frames of this size, without row dark.

    Returns
    -------
    indices : (electrons,) uint32
        Flat pixel indices, ascending within each frame.
    offsets : (n + 1,) int64
        Where each frame's electrons begin and end in ``indices``.
    """
    n, sector_count = slots.shape
    _, rows, width = sectors[0].shape
    height = sector_count * rows
    offsets = np.zeros(n + 1, np.int64)
    dark, references = _references(corrections)
    limits: tuple[Any, Any] = (float(background), float(xray))
    value_type: type[np.generic] = np.float32
    if references is None:
        lowest, highest = surviving_range(background, xray)
        if lowest > highest:
            return np.empty(0, np.uint32), offsets
        limits, value_type = (np.uint16(lowest), np.uint16(highest - lowest)), np.uint16
    scratch = (
        _kept("window", (height + 2) * (width + 2) + VECTOR_PX, value_type),  # zeros, before and after
        _kept("places", height * width + 1, np.int32),
        _kept("values", height * width + 1, value_type),
    )
    most_electrons = ((height + 1) // 2) * ((width + 1) // 2)  # one in each 2 x 2 pixels
    found = _kept("found", n * most_electrons + height * width + 1, np.int32)
    listed = np.array([[sector.listed.ctypes.data, len(sector.listed)] for sector in sectors], np.int64)
    # A copy, as to numba an array that is read-only or not contiguous is another type.
    _count(listed, slots.copy(), (rows, width), limits, dark, references, scratch, found, offsets)
    return found[: offsets[-1]].astype(np.uint32), offsets


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache: without corrections, with dark, with gain."""
    sectors = (SuppressedFrames(np.zeros((0, 2), np.uint16), (1, 2, 2)),)
    reference = np.ones((2, 2), np.float32)
    for corrections in (Corrections(), Corrections(dark=reference), Corrections(gain=reference)):
        count(sectors, np.zeros((1, 1), np.int64), 0.0, 1000.0, corrections)


def _kept(name: str, size: int, value_type: type[np.generic]) -> NDArray[Any]:
    """Give this thread's array of that name and type, kept from call to call; what is not used takes no memory."""
    name = f"{name} {value_type.__name__}"
    kept: NDArray[Any] | None = getattr(_thread, name, None)
    if kept is None or len(kept) < size:
        kept = np.zeros(size, value_type)
        setattr(_thread, name, kept)
    return kept


@functools.lru_cache(maxsize=4)
def _references(corrections: Corrections) -> tuple[NDArray[np.uint16] | None, NDArray[np.float32] | None]:
    """Prepare what the kernel corrects with: the dark in whole counts, or with gain (pixels, 2) dark and 1/gain."""
    dark, inverse_gain = corrections.dark, corrections.inverse_gain
    if inverse_gain is not None:
        zeros = np.zeros_like(inverse_gain)
        return None, np.stack([zeros if dark is None else dark, inverse_gain], axis=-1).reshape(-1, 2)
    return None if dark is None else np.trunc(dark).astype(np.int64).astype(np.uint16).reshape(-1), None


def _instruction(write: Callable[..., Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", intrinsic(write))


_INT32 = ir.IntType(32)


@_instruction
def _pair(_: object, address: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Read gap and value, the lower and the upper half of a uint32, at an address, which may be odd."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.load(builder.inttoptr(arguments[0], _INT32.as_pointer()), align=1)

    return types.uint32(types.int64), write


@_instruction
def _exceeds_rows(
    _: object, window: types.Type, place: types.Type, stride: types.Type
) -> tuple[Any, Callable[..., ir.Value]]:
    """Say whether the value at a place exceeds the 3 nearest in the row above and the 3 in the row below."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:  # noqa: ANN401
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        kind = array.data.type.pointee
        vector = ir.VectorType(kind, VECTOR_PX)
        whole = isinstance(kind, ir.IntType)
        _, place, stride = arguments
        undefined = ir.Constant(vector, ir.Undefined)
        lanes = ir.VectorType(_INT32, VECTOR_PX)

        def three(middle: ir.Value) -> ir.Value:
            address = builder.gep(array.data, [builder.sub(middle, ir.Constant(middle.type, 1))])
            near = builder.load(builder.bitcast(address, vector.as_pointer()), align=2 if whole else 4)
            return builder.shuffle_vector(near, undefined, ir.Constant(lanes, [0, 1, 2, 2]))

        def exceeds(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.icmp_unsigned(">", a, b) if whole else builder.fcmp_ordered(">", a, b)

        above, below = three(builder.sub(place, stride)), three(builder.add(place, stride))
        greatest = builder.select(exceeds(above, below), above, below)
        value = builder.load(builder.gep(array.data, [place]))
        lone = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
        everywhere = builder.shuffle_vector(lone, undefined, ir.Constant(lanes, [0] * VECTOR_PX))
        mask = builder.bitcast(exceeds(everywhere, greatest), ir.IntType(VECTOR_PX))
        return builder.icmp_unsigned("==", mask, ir.Constant(mask.type, (1 << VECTOR_PX) - 1))

    return types.boolean(window, types.int64, types.int64), write


_compiled = njit(nogil=True)


@_compiled
def _skip(address: int, length: int, row: int, pixel: int, first: int) -> tuple[int, int]:
    """Pass over the rows before a sector frame, from a row whose gap begins at `pixel` on; give the first one behind.

    Slots that do not ascend are rare: then it starts at the beginning again.
    """
    if pixel > first:
        row, pixel = 0, 0
    while row < length:
        gap = int(_pair(address + PAIR_BYTES * row) & np.uint32(GREATEST_GAP))
        if pixel + gap >= first:
            break
        pixel += gap + 1
        row += 1
    return row, pixel


@_compiled
def _take_survivors(
    address: int,
    length: int,
    row: int,
    pixel: int,
    end: int,
    limits: tuple[Any, Any],
    dark: NDArray[np.uint16] | None,
    references: NDArray[np.float32] | None,
    places: NDArray[np.int32],
    values: NDArray[Any],
) -> tuple[int, int, int]:
    """Correct the pixels of a sector frame and list those that survive; give the next row, its pixel, and their number.

    Pixels are numbered as in the whole frame; `end` is the first one behind the sector frame.
    """
    used = np.uint64(0)  # unsigned: numba spares the question whether an index is below 0
    while row < length:
        pair = _pair(address + PAIR_BYTES * row)
        listed = pixel + int(pair & np.uint32(GREATEST_GAP))
        if listed >= end:
            break
        raw = np.uint16(pair >> np.uint32(16))
        if references is not None:
            value = (np.float32(raw) - references[np.uint64(listed), 0]) * references[np.uint64(listed), 1]
            survives = (value > limits[0]) & (value < limits[1])
        else:
            value = raw if dark is None else np.uint16(raw - dark[np.uint64(listed)])
            survives = np.uint16(value - limits[0]) <= limits[1]
        places[used] = listed
        values[used] = value
        used += np.uint64(survives)
        pixel = listed + 1
        row += 1
    return row, pixel, int(used)


@_compiled
def _list_maxima(
    window: NDArray[Any],
    places: NDArray[np.int32],
    values: NDArray[Any],
    used: int,
    stride: int,
    found: NDArray[np.int32],
) -> int:
    """List the places whose values exceed those of their neighbours; give their number.

    While a value is put into the window it is compared with the one at its left and at its right, which the list has
    beside it; with the rows above and below when all are there.
    """
    places[used] = NOWHERE
    candidates = np.uint64(0)
    left_place, left = NOWHERE, values[0]
    for k in range(used):
        place, value = places[k], values[k]
        window[np.uint32(place)] = value
        found[candidates] = place
        below_left = (left_place == place - 1) & (left >= value)
        below_right = (places[k + 1] == place + 1) & (values[k + 1] >= value)
        candidates += np.uint64(not (below_left | below_right))
        left_place, left = place, value
    maxima = np.uint64(0)
    for k in range(candidates):
        place = found[k]
        found[maxima] = place
        maxima += np.uint64(_exceeds_rows(window, np.int64(place), stride))
    for k in range(used):
        window[np.uint32(places[k])] = 0
    return int(maxima)


@njit(cache=True, nogil=True)
def _count(
    listed: NDArray[np.int64],
    slots: NDArray[np.int64],
    shape: tuple[int, int],
    limits: tuple[Any, Any],
    dark: NDArray[np.uint16] | None,
    references: NDArray[np.float32] | None,
    scratch: tuple[NDArray[Any], NDArray[np.int32], NDArray[Any]],
    found: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> None:
    """Count all frames. `dark` or `references` or none of both is given: numba compiles for each case what it needs."""
    window, places, values = scratch
    rows, width = shape
    sector_px = rows * width
    stride = width + 2  # the window has a pixel of zeros around the frame
    next_rows = np.zeros((len(listed), 2), np.int64)
    for i in range(len(slots)):
        used = 0
        for m in range(len(listed)):
            address, length = listed[m]
            first = slots[i, m] * sector_px
            row, pixel = _skip(address, length, next_rows[m, 0], next_rows[m, 1], first)
            to_frame = m * sector_px - first
            row, pixel, taken = _take_survivors(
                address,
                length,
                row,
                pixel + to_frame,
                (m + 1) * sector_px,
                limits,
                dark,
                references,
                places[used:],
                values[used:],
            )
            next_rows[m, 0] = row
            next_rows[m, 1] = pixel - to_frame
            used += taken
        for k in range(used):
            y = np.int32((places[k] + 0.5) * (1 / width))
            places[k] += np.int32(2) * y + np.int32(stride + 1)
        offsets[i + 1] = offsets[i] + _list_maxima(window, places, values, used, stride, found[offsets[i] :])
    for k in range(offsets[-1]):
        y = np.int32((found[k] + 0.5) * (1 / stride))
        found[k] -= np.int32(2) * y + np.int32(width + 1)
