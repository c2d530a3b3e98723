"""How the pixels of a chunk become the payload of a raw message, and back.

A payload of codec BLOSC2 is one standard Blosc2 buffer: ``blosc2.decompress2(payload)`` opens it anywhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import blosc2
import numpy as np

from topics.errors import DecodeError
from topics.geometry import FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Codec(IntEnum):
    """Codec id in the chunk header. New ids are added, never reused."""

    BLOSC2 = 1
    ZERO_SUPPRESSED = 2  # topics.suppressed


# The Blosc2 header: its size, where its flags and filters are, and what may be in them.
_HEADER_BYTES, _FLAGS_AT, _FILTERS_AT, _SPECIAL_AT = 32, 2, slice(16, 22), 31
_BLOSC2_FORMAT = 0x05
_FILTERS = {blosc2.Filter.NOFILTER.value, blosc2.Filter.SHUFFLE.value, blosc2.Filter.BITSHUFFLE.value}
_UNINITIALISED = 4  # of the kinds of special values
_LAST_CODEC = 4  # BloscLZ, LZ4, Zlib, Zstd; behind them are plugins

# Bitshuffle + LZ4 at level 1: three times smaller at 3.6 GB/s a core (docs/decisions/0003-wire-format.md).
_COMPRESSION = {
    "codec": blosc2.Codec.LZ4,
    "clevel": 1,
    "filters": [blosc2.Filter.BITSHUFFLE],
    "filters_meta": [0],
    "typesize": 2,
    "blocksize": 1 << 17,  # of Blosc2's own, smaller ones decompression takes half as long again (docs/performance.md)
    "nthreads": 1,
}


def compress(sector_frames: NDArray[np.uint16]) -> bytes:
    """Compress sector frames into one Blosc2 buffer.

    Parameters
    ----------
    sector_frames : (n, 144, 576) uint16, C-contiguous, detector counts
    """
    payload: bytes = blosc2.compress2(sector_frames, **_COMPRESSION)
    return payload


def decompress(payload: memoryview, sector_frames: int, out: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Decompress a payload whose hash has been checked.

    Parameters
    ----------
    payload : the Blosc2 buffer
    sector_frames : number of sector frames that the header promises
    out : (>= sector_frames · 165,888,) uint8, memory to decompress into

    Returns
    -------
    (sector_frames, 144, 576) uint16, a view of ``out``

    Raises
    ------
    DecodeError
        The buffer is not Blosc2, or not as large as promised. Checked before anything is written.
    ValueError
        ``out`` is too small.
    """
    expected = sector_frames * SECTOR_FRAME_BYTES
    if len(out) < expected:  # Blosc2 would write beyond it
        raise ValueError(f"out has {len(out)} bytes, {sector_frames} sector frames need {expected}")
    check_header(payload)
    try:
        size, compressed_size, _ = blosc2.get_cbuffer_sizes(payload)
    except (RuntimeError, ValueError, TypeError) as error:
        raise DecodeError(f"payload is no Blosc2 buffer: {error}") from error
    if size != expected or compressed_size != len(payload):
        raise DecodeError(
            f"Blosc2 buffer of {compressed_size} bytes for {size} does not fit the payload of {len(payload)} "
            f"bytes for {sector_frames} sector frames ({expected} bytes)"
        )
    target = out[:expected]
    try:
        blosc2.decompress2(payload, dst=target, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise DecodeError(f"Blosc2 buffer cannot be decompressed: {error}") from error
    return target.view(np.uint16).reshape(sector_frames, SECTOR_ROWS, FRAME_WIDTH)


def check_header(payload: memoryview) -> None:
    """Refuse what Blosc2 would read beyond, load plugins for, or (a damaged delta filter) wait for without end."""
    if len(payload) < _HEADER_BYTES:
        raise DecodeError(f"payload of {len(payload)} bytes is no Blosc2 buffer")
    flags, filters = payload[_FLAGS_AT], set(payload[_FILTERS_AT])
    if payload[_SPECIAL_AT] >> 4 & 7 == _UNINITIALISED:  # decompression would leave what the buffer held before
        raise DecodeError("Blosc2 buffer of uninitialised values")
    if flags & _BLOSC2_FORMAT != _BLOSC2_FORMAT or flags >> 5 > _LAST_CODEC or not filters <= _FILTERS:
        raise DecodeError(f"Blosc2 buffer with flags {flags:#x} and filters {sorted(filters)}")
