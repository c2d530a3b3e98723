"""The payload of zero-suppressed chunks (codec 2): listed pixels become bytes, and back.

It is one standard Blosc2 buffer of an (m, 2) array of little-endian uint16. Each row is a pixel, in the order of the
flat (n, 144, 576) array of sector frames:

- *gap*: how many pixels lie between it and the one before it (before the first one: since the array's beginning);
- *value* in detector counts, as the detector gave it.

A gap of more than 65,535 is bridged by rows (65,535, 0). In no other row is the value 0. Pixels that are not listed
were at or below their floors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import blosc2
import numpy as np

from topics.codec import check_header
from topics.errors import DecodeError
from topics.geometry import FRAME_WIDTH, SECTOR_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREATEST_GAP = 65_535
ROW_BYTES = 4
_SECTOR_FRAME_PIXELS = SECTOR_ROWS * FRAME_WIDTH

# The four bytes of a row differ, so each is compressed by itself (docs/decisions/0013-zero-suppression.md).
_COMPRESSION = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 1,
    "filters": [blosc2.Filter.BITSHUFFLE],
    "filters_meta": [0],
    "splitmode": blosc2.SplitMode.ALWAYS_SPLIT,
    "typesize": ROW_BYTES,
    "blocksize": 1 << 18,
    "nthreads": 1,
}


def compress(listed: NDArray[np.uint16]) -> bytes:
    """Compress the listed pixels of sector frames into one Blosc2 buffer.

    Parameters
    ----------
    listed : (m, 2) uint16, C-contiguous
        Gap and value of each listed pixel.
    """
    payload: bytes = blosc2.compress2(listed, **_COMPRESSION)
    return payload


def decompress(payload: memoryview, sector_frames: int) -> NDArray[np.uint16]:
    """Decompress a payload whose hash has been checked.

    Parameters
    ----------
    payload : the Blosc2 buffer
    sector_frames : number of sector frames that the header promises

    Returns
    -------
    (m, 2) uint16
        Gap and value of each listed pixel; all lie within the sector frames.

    Raises
    ------
    DecodeError
        The buffer is not Blosc2, or larger than the sector frames allow (checked before anything is allocated), a pixel
        lies beyond the last sector frame, or a value is 0.
    """
    rows = _checked_rows(payload, sector_frames)
    listed = np.empty((rows, 2), np.uint16)
    if rows == 0:
        return listed
    try:
        blosc2.decompress2(payload, dst=listed, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise DecodeError(f"Blosc2 buffer cannot be decompressed: {error}") from error
    _check_pixels(listed, sector_frames)
    return listed


def _checked_rows(payload: memoryview, sector_frames: int) -> int:
    check_header(payload)
    try:
        size, compressed_size, _ = blosc2.get_cbuffer_sizes(payload)
    except (RuntimeError, ValueError, TypeError) as error:
        raise DecodeError(f"payload is no Blosc2 buffer: {error}") from error
    limit = sector_frames * _SECTOR_FRAME_PIXELS * ROW_BYTES
    if size % ROW_BYTES or not 0 <= size <= limit or compressed_size != len(payload):
        raise DecodeError(
            f"Blosc2 buffer of {compressed_size} bytes for {size} does not fit the payload of {len(payload)} bytes, "
            f"rows of {ROW_BYTES} bytes, or {sector_frames} sector frames (at most {limit} bytes)"
        )
    return int(size // ROW_BYTES)


def _check_pixels(listed: NDArray[np.uint16], sector_frames: int) -> None:
    pairs = listed.reshape(-1).view("<u4")  # gap + 65,536 · value
    end = len(pairs) + int((pairs & GREATEST_GAP).sum(dtype=np.uint64))
    if end > sector_frames * _SECTOR_FRAME_PIXELS:
        raise DecodeError(f"pixel {end - 1} of {sector_frames} sector frames of {_SECTOR_FRAME_PIXELS} pixels")
    zeros = int(np.count_nonzero(pairs < GREATEST_GAP))
    if zeros:
        raise DecodeError(f"{zeros} listed pixels are 0")
