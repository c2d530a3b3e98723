"""Zero suppression: the pixels above their floors are listed, all others are left out.

As in counting.fast, one vector comparison tells of 64 pixels which are above their floors, and the stretches of 64 that
have such pixels are listed without a branch; only set bits are visited after that. The kernel knows pixels by address,
so that read-only arrays and arrays at odd addresses need neither a copy nor another compiled kernel. Everything that is
compiled stays in this file, as numba's cache only notices changes of the kernel's own file.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from counting.suppressed_frames import SuppressedFrames

STRETCH_PX = 64  # the bits of a uint64 mask
BLOCK_STRETCHES = 64  # few enough that their pixels are still in the first-level cache when they are visited
PIXEL_BYTES = 2
CACHE_LINE_BYTES = 64
PREFETCH_BYTES = 2048  # the processor itself does not read ahead beyond a page of memory

_thread = threading.local()


def suppress(sector_frames: NDArray[np.uint16], floors: NDArray[np.uint16]) -> SuppressedFrames:
    """List the pixels that are above their floors; arguments as checked by counting.suppress, which describes them."""
    n, rows, width = sector_frames.shape
    buffer = _thread_buffer(sector_frames.size)
    listed = _suppress(sector_frames.ctypes.data, floors.ctypes.data, n, rows * width, buffer)
    pairs = buffer[:listed].copy().view(np.uint16).reshape(-1, 2)
    return SuppressedFrames(pairs, (n, rows, width))


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache."""
    suppress(np.zeros((1, 2, 64), np.uint16), np.zeros((2, 64), np.uint16))


def _thread_buffer(pixels: int) -> NDArray[np.uint32]:
    """Give this thread's buffer, kept from call to call; what is not written to takes no memory."""
    buffer: NDArray[np.uint32] | None = getattr(_thread, "buffer", None)
    if buffer is None or len(buffer) <= pixels:
        buffer = _thread.buffer = np.empty(pixels + 1, np.uint32)
    return buffer


def _instruction(write: Callable[..., Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", intrinsic(write))


def _load(builder: ir.IRBuilder, kind: ir.Type, address: ir.Value) -> ir.Value:
    """Read a value or a vector at an address, which may be odd."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


@_instruction
def _above(_: object, raw: types.Type, floors: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Compare 64 pixels with their floors: bit k is set if pixel k is above."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        raw, floors = (_load(builder, ir.VectorType(ir.IntType(16), STRETCH_PX), address) for address in arguments)
        return builder.bitcast(builder.icmp_unsigned(">", raw, floors), ir.IntType(STRETCH_PX))

    return types.uint64(types.int64, types.int64), write


@_instruction
def _pixel(_: object, address: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Read the uint16 at an address."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return _load(builder, ir.IntType(16), arguments[0])

    return types.uint16(types.int64), write


@_instruction
def _lowest_bit(_: object, mask: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Give the number of the lowest set bit of a mask; 64 if there is none."""

    def write(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), write


@_instruction
def _fetch_ahead(_: object, address: types.Type) -> tuple[Any, Callable[..., ir.Value]]:
    """Tell the processor that the memory at an address will be read soon; any address will do."""

    def write(context: Any, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:  # noqa: ANN401
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), number, number, number])
        name = "llvm.prefetch.p0"
        prefetch = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(prefetch, [builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()), read, keep, data])
        return context.get_dummy_value()

    return types.none(types.int64), write


_inlined = njit(inline="always")


@_inlined
def _append(listed: NDArray[np.uint32], used: int, gap: int, value: int) -> int:
    """List a pixel; give the number of rows then listed."""
    while gap > 65_535:
        listed[used] = 65_535
        used += 1
        gap -= 65_536
    listed[used] = gap | (value << 16)  # gap and value as two uint16, on any little-endian machine
    return used + 1


@njit(cache=True, nogil=True)
def _suppress(raw: int, floors: int, frames: int, frame_px: int, listed: NDArray[np.uint32]) -> int:
    """List the pixels above their floors; give the number of rows."""
    places = np.empty(BLOCK_STRETCHES + 1, np.int64)
    masks = np.empty(BLOCK_STRETCHES + 1, np.uint64)
    vector_px = frame_px // STRETCH_PX * STRETCH_PX
    block_px = BLOCK_STRETCHES * STRETCH_PX
    used = 0
    expected = 0  # where the next pixel lies if the gap is 0
    for frame in range(frames):
        first = frame * frame_px
        for block in range(0, vector_px, block_px):
            stretches = 0
            for place in range(block, min(block + block_px, vector_px), STRETCH_PX):
                address = raw + PIXEL_BYTES * (first + place)
                _fetch_ahead(address + PREFETCH_BYTES)
                _fetch_ahead(address + PREFETCH_BYTES + CACHE_LINE_BYTES)
                mask = _above(address, floors + PIXEL_BYTES * place)
                places[stretches] = first + place
                masks[stretches] = mask
                stretches += mask != 0
            for i in range(stretches):
                mask = masks[i]
                while mask:
                    pixel = places[i] + _lowest_bit(mask)
                    mask &= mask - np.uint64(1)
                    used = _append(listed, used, pixel - expected, int(_pixel(raw + PIXEL_BYTES * pixel)))
                    expected = pixel + 1
        for place in range(vector_px, frame_px):
            pixel = first + place
            value = _pixel(raw + PIXEL_BYTES * pixel)
            if value > _pixel(floors + PIXEL_BYTES * place):
                used = _append(listed, used, pixel - expected, int(value))
                expected = pixel + 1
    return used
