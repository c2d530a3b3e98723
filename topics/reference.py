"""A dark or gain reference (topic ``references``): pixels that anybody reads with numpy, known by their SHA-256.

Layout: the id ``ref1``, then a .npy file (format 1.0) of little-endian float32 in C order, shape (576, 576).

References
----------
The .npy format: numpy's ``numpy.lib.format``. The header is written down here, so that the bytes of a message do not
change with the version of numpy.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topics.errors import DecodeError
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH

SHAPE: Final = (FRAME_HEIGHT, FRAME_WIDTH)
REFERENCE_ID: Final = b"ref1"

_DTYPE: Final = np.dtype("<f4")
_DESCRIPTION: Final = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}, }}".encode().ljust(117) + b"\n"
_HEADER: Final = b"\x93NUMPY\x01\x00" + len(_DESCRIPTION).to_bytes(2, "little") + _DESCRIPTION
_PIXELS_AT: Final = len(REFERENCE_ID) + len(_HEADER)
MESSAGE_BYTES: Final = _PIXELS_AT + FRAME_HEIGHT * FRAME_WIDTH * _DTYPE.itemsize


def encode(pixels: NDArray[np.float32]) -> bytes:
    """Bytes of the message.

    Parameters
    ----------
    pixels
        (576, 576) float32, in any memory order.

    Raises
    ------
    ValueError
        Another shape or dtype, or a pixel that is no finite number: nobody could decode it.
    """
    if pixels.shape != SHAPE or pixels.dtype != np.float32 or not np.isfinite(pixels).all():
        raise ValueError(f"a reference is {SHAPE} float32, finite numbers; this is {pixels.shape} {pixels.dtype}")
    return REFERENCE_ID + _HEADER + pixels.astype(_DTYPE, copy=False).tobytes()


def decode(message: bytes | None) -> NDArray[np.float32]:
    """Pixels of a reference: (576, 576) float32, C order, a copy.

    Raises
    ------
    DecodeError
        Another id, header or length, or a pixel that is no finite number.
    """
    message = message or b""
    if message[:4] != REFERENCE_ID:
        raise DecodeError(f"no reference: the id is {message[:4]!r}, expected {REFERENCE_ID!r}")
    if message[4:_PIXELS_AT] != _HEADER:
        raise DecodeError(f"no reference: its .npy header is not that of {SHAPE} little-endian float32 in C order")
    if len(message) != MESSAGE_BYTES:
        raise DecodeError(f"no reference: {len(message)} bytes, expected {MESSAGE_BYTES}")
    pixels = np.frombuffer(message, _DTYPE, offset=_PIXELS_AT).reshape(SHAPE)
    finite = np.isfinite(pixels)
    if not finite.all():
        y, x = np.unravel_index(np.argmin(finite), SHAPE)
        raise DecodeError(f"no reference: pixel y {y}, x {x} is {pixels[y, x]}")
    return pixels.astype(np.float32)


def sha256_of(pixels: NDArray[np.float32]) -> str:
    """SHA-256, as 64 hexadecimal digits, of the pixels' bytes alone: little-endian float32 in C order, no header.

    With numpy and hashlib: ``hashlib.sha256(numpy.load("dark.npy").astype("<f4").tobytes()).hexdigest()``.
    """
    return hashlib.sha256(pixels.astype(_DTYPE, copy=False).tobytes()).hexdigest()
