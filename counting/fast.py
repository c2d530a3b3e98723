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

PIXEL_BYTES = 2
PIXEL_MAX = 65_535
STRETCH_PX = 64  # the bits of a uint64 mask; 576 = 9 * 64
BUFFER_INDICES = 1 << 18  # 1 MiB: a chunk of frames seldom needs more, and it stays in the second-level cache

_thread = threading.local()


def count(
    sectors: Sequence[NDArray[np.uint16]], slots: NDArray[np.int64], background: float, xray: float
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
    lowest, highest = surviving_range(background, xray)
    if lowest > highest:
        return np.empty(0, np.uint32), offsets

    starts = np.array([sector.ctypes.data for sector in sectors], np.int64)
    addresses = starts + slots * (rows * width * PIXEL_BYTES)
    surviving = (np.uint16(lowest), np.uint16(highest))
    buffer = _thread_buffer(frame_px=sector_count * rows * width)
    pieces = [np.empty(0, np.uint32)]
    first = 0
    while first < n:
        end = first + _count_until_full(addresses[first:], (rows, width), surviving, buffer, offsets[first:])
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


@njit(cache=True, nogil=True)
def _reaching_few(address: np.int64, count_px: int, lowest: np.uint16) -> np.uint64:
    """Do what `_reaching` does for the last, shorter stretch of a row, without reading beyond it."""
    mask = np.uint64(0)
    for k in range(count_px):
        if _pixel(address + PIXEL_BYTES * k) >= lowest:
            mask |= np.uint64(1) << np.uint64(k)
    return mask


@njit(cache=True, nogil=True)
def _candidates(row: np.int64, x: int, width: int, lowest: np.uint16) -> np.uint64:
    """Give the mask of the pixels x … x + 63 of a row that reach `lowest`, as far as the row goes."""
    if x + STRETCH_PX <= width:
        mask: np.uint64 = _reaching(row + PIXEL_BYTES * x, lowest)
        return mask
    return _reaching_few(row + PIXEL_BYTES * x, width - x, lowest)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
