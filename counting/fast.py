"""The fast engine: strict maxima by a numba kernel that reads frames or sector frames in place.

A row is read 64 pixels at a time: one vector comparison gives a bit mask of the pixels above the background. Most masks
are 0, which makes the speed nearly that of reading the memory; only the pixels in the mask are compared with their
neighbours.

The kernel knows pixels by address. So one compiled kernel serves any number of sectors, arrays that are read-only (to
numba those are another type) and arrays at odd addresses (a payload behind a message header), and nothing is copied.
Everything that is compiled stays in this file, as numba's cache only notices changes of the kernel's own file.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from counting.corrections import ROW_DARK_STATISTICS, Corrections

PIXEL_BYTES = 2
PIXEL_MAX = 65_535
STRETCH_PX = 64  # the bits of a uint64 mask; 576 = 9 * 64
BUFFER_INDICES = 1 << 18  # 1 MiB: a chunk of frames seldom needs more, and it stays in the second-level cache

WRAPPING_XRAY = 60_000.0
NOTHING = np.empty((0, 0), np.float32)  # the reference that is not given
NOTHING.flags.writeable = False  # as those that are: to numba a writable array is another type

_thread = threading.local()


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
    n, sector_count = slots.shape
    _, rows, width = sectors[0].shape
    offsets = np.zeros(n + 1, np.int64)
    starts = np.array([sector.ctypes.data for sector in sectors], np.int64)
    addresses = starts + slots * (rows * width * PIXEL_BYTES)
    buffer = _thread_buffer(frame_px=sector_count * rows * width)
    if corrections.dark is None and corrections.gain is None and corrections.row_dark is None:
        lowest, highest = surviving_range(background, xray)
        if lowest > highest:
            return np.empty(0, np.uint32), offsets
        kernel: Callable[..., int] = _count_until_full
        how: tuple[Any, ...] = (np.uint16(lowest), np.uint16(highest))
    else:
        kernel = _count_corrected_until_full
        how = (
            (float(background), float(xray)),
            NOTHING if corrections.dark is None else corrections.dark,
            NOTHING if corrections.inverse_gain is None else corrections.inverse_gain,
            0 if corrections.row_dark is None else ROW_DARK_STATISTICS.index(corrections.row_dark) + 1,
            np.float32(corrections.optimized_mean or 0.0),
        )
    pieces = [np.empty(0, np.uint32)]
    first = 0
    while first < n:
        end = first + kernel(addresses[first:], (rows, width), how, buffer, offsets[first:])
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


def _instruction(write: Callable[..., Any]) -> Callable[..., Any]:
    """Make an intrinsic, typed loosely: numba's own types take its typing context for an argument of the caller."""
    return cast("Callable[..., Any]", intrinsic(write))


# What numba has no words for, in LLVM's. The kernel calls each like a function of the arguments after `_`; each returns
# numba's type signature and the function that writes the instructions.


@_instruction
def _pixel(_: object, address: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Read the uint16 at an address, which may be odd."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        pointer = builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint16(types.int64), write


@_instruction
def _reaching(_: object, address: types.Type, lowest: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Compare the 64 pixels at an address with `lowest`: bit k is set if pixel k reaches it."""
    pixels = ir.VectorType(ir.IntType(16), STRETCH_PX)
    undefined = ir.Constant(pixels, ir.Undefined)
    all_lanes = ir.Constant(ir.VectorType(ir.IntType(32), STRETCH_PX), [0] * STRETCH_PX)

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        values = builder.load(builder.inttoptr(arguments[0], pixels.as_pointer()), align=1)
        first_lane = builder.insert_element(undefined, arguments[1], ir.Constant(ir.IntType(32), 0))
        limits = builder.shuffle_vector(first_lane, undefined, all_lanes)
        return builder.bitcast(builder.icmp_unsigned(">=", values, limits), ir.IntType(STRETCH_PX))

    return types.uint64(types.int64, types.uint16), write


@_instruction
def _lowest_bit(_: object, mask: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Give the number of the lowest set bit of a mask that is not 0."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), write


@njit(cache=True, nogil=True, error_model="numpy")
def _reaching_few(address: np.int64, count_px: int, lowest: np.uint16) -> np.uint64:
    """Do what `_reaching` does for the last, shorter stretch of a row, without reading beyond it."""
    mask = np.uint64(0)
    for k in range(count_px):
        if _pixel(address + PIXEL_BYTES * k) >= lowest:
            mask |= np.uint64(1) << np.uint64(k)
    return mask


@njit(cache=True, nogil=True, error_model="numpy")
def _candidates(row: np.int64, x: int, width: int, lowest: np.uint16) -> np.uint64:
    """Give the mask of the pixels x … x + 63 of a row that reach `lowest`, as far as the row goes."""
    if x + STRETCH_PX <= width:
        mask: np.uint64 = _reaching(row + PIXEL_BYTES * x, lowest)
        return mask
    return _reaching_few(row + PIXEL_BYTES * x, width - x, lowest)


@njit(cache=True, nogil=True, error_model="numpy")
def _is_electron(frame_rows: NDArray[np.int64], width: int, y: int, x: int, highest: np.uint16) -> bool:
    """Tell whether a pixel that reaches the lowest value is an electron; above `highest` is an x-ray, which is 0."""
    value = _pixel(frame_rows[y] + PIXEL_BYTES * x)
    if value > highest:
        return False
    for y_near in range(max(y - 1, 0), min(y + 2, len(frame_rows))):
        for x_near in range(max(x - 1, 0), min(x + 2, width)):
            near = _pixel(frame_rows[y_near] + PIXEL_BYTES * x_near)
            if value <= near <= highest and (y_near != y or x_near != x):
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _count_frame(
    frame_rows: NDArray[np.int64], width: int, surviving: tuple[np.uint16, np.uint16], electrons: NDArray[np.uint32]
) -> int:
    """Write one frame's electrons to the start of `electrons` and give their number."""
    lowest, highest = surviving
    found = 0
    for y in range(len(frame_rows)):
        for x_first in range(0, width, STRETCH_PX):
            mask = _candidates(frame_rows[y], x_first, width, lowest)
            while mask:
                x = x_first + _lowest_bit(mask)
                mask &= mask - np.uint64(1)
                if _is_electron(frame_rows, width, y, x, highest):
                    electrons[found] = y * width + x
                    found += 1
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _count_until_full(
    addresses: NDArray[np.int64],
    sector_shape: tuple[int, int],
    surviving: tuple[np.uint16, np.uint16],
    buffer: NDArray[np.uint32],
    offsets: NDArray[np.int64],
) -> int:
    """Count frame after frame while the buffer has room for one more that is full of electrons.

    `addresses` (n, S) says where each sector frame begins. Fills `buffer` from its start, and ``offsets[1:]`` going on
    from ``offsets[0]``; gives the number of frames counted.
    """
    n = len(addresses)
    sector_count = addresses.shape[1]
    rows, width = sector_shape
    frame_rows = np.empty(sector_count * rows, np.int64)
    most_electrons = ((len(frame_rows) + 1) // 2) * ((width + 1) // 2)  # one in each 2 x 2 pixels
    used = 0
    for i in range(n):
        if used + most_electrons > len(buffer):
            return i
        for m in range(sector_count):
            for row in range(rows):
                frame_rows[m * rows + row] = addresses[i, m] + row * width * PIXEL_BYTES
        used += _count_frame(frame_rows, width, surviving, buffer[used:])
        offsets[i + 1] = offsets[0] + used
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _wrapped(value: np.float32) -> int:
    """Cut a float off to uint16 as stempy's compiled code does: the low 16 bits of the int32, 0 if it is none."""
    if abs(value) < np.float32(2147483648.0):
        return int(value) & 0xFFFF
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def _half_row_statistic(pixels: NDArray[np.float32], which: int) -> np.float32:
    if which == 1:
        total = np.float32(0.0)
        for value in pixels:
            total = np.float32(total + value)
        return np.float32(total / np.float32(len(pixels)))
    in_order = np.sort(pixels)
    middle = len(pixels) // 2
    if len(pixels) % 2:
        return np.float32(in_order[middle])
    return np.float32(np.float32(in_order[middle - 1] + in_order[middle]) / np.float32(2.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _correct_row(
    row: np.int64,
    y: int,
    how: tuple[Any, ...],
    corrected: NDArray[np.float32],
) -> None:
    """Write a row as it is compared: corrected, and 0 where it does not survive the thresholds."""
    (background, xray), dark, inverse_gain, row_dark, optimized_mean = how
    width = len(corrected)
    whole = len(inverse_gain) == 0
    wraps = xray <= WRAPPING_XRAY
    for x in range(width):
        corrected[x] = np.float32(_pixel(row + PIXEL_BYTES * x))
    left = np.float32(1.0)
    right = np.float32(1.0)
    if row_dark:
        left = np.float32(optimized_mean / _half_row_statistic(corrected[: width // 2], row_dark))
        right = np.float32(optimized_mean / _half_row_statistic(corrected[width // 2 :], row_dark))
    for x in range(width):
        value = corrected[x]
        if len(dark):
            offset = dark[y, x]
            if whole and not row_dark:
                offset = np.float32(np.trunc(offset))
            value = np.float32(value - offset)
            if whole and not wraps:
                value = min(max(value, np.float32(0.0)), np.float32(PIXEL_MAX))
            if whole:
                value = np.float32(_wrapped(value))
        if row_dark:
            value = np.float32(value * (left if x < width // 2 else right))
            if whole:
                value = np.float32(_wrapped(value))
        if not whole:
            value = np.float32(value * inverse_gain[y, x])
        if value <= background or value >= xray:
            value = np.float32(0.0)
        corrected[x] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _is_maximum(frame: NDArray[np.float32], y: int, x: int) -> bool:
    value = frame[y, x]
    for y_near in range(max(y - 1, 0), min(y + 2, frame.shape[0])):
        for x_near in range(max(x - 1, 0), min(x + 2, frame.shape[1])):
            if (y_near != y or x_near != x) and not value > frame[y_near, x_near]:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _count_corrected_until_full(
    addresses: NDArray[np.int64],
    sector_shape: tuple[int, int],
    how: tuple[Any, ...],
    buffer: NDArray[np.uint32],
    offsets: NDArray[np.int64],
) -> int:
    n = len(addresses)
    rows, width = sector_shape
    height = addresses.shape[1] * rows
    corrected = np.empty((height, width), np.float32)
    most_electrons = ((height + 1) // 2) * ((width + 1) // 2)
    used = 0
    for i in range(n):
        if used + most_electrons > len(buffer):
            return i
        for y in range(height):
            _correct_row(addresses[i, y // rows] + (y % rows) * width * PIXEL_BYTES, y, how, corrected[y])
        for y in range(height):
            for x in range(width):
                if _is_maximum(corrected, y, x):
                    buffer[used] = y * width + x
                    used += 1
        offsets[i + 1] = offsets[0] + used
    return n
