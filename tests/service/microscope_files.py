"""Files as microscopes leave them, with nothing in them but what their formats ask for.

Written down here from the formats' descriptions: ncempy reads Digital Micrograph and SER files, and writes neither.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]  # ([frames,] y, x)

_DM_PIXELS = {"float32": (2, 6), "float64": (12, 7), "uint16": (10, 4), "int32": (7, 3), "complex64": (3, 6)}
_SER_PIXELS = {"uint16": 2, "int32": 6, "float32": 7, "float64": 8, "complex64": 9}
_MRC_MODES = {"int8": 0, "int16": 1, "float32": 2, "complex64": 4, "uint16": 6}


def write_mrc(path: Path, pixels: Pixels) -> None:
    """One section a frame."""
    stack = pixels.reshape(-1, *pixels.shape[-2:])
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, *stack.shape[::-1], _MRC_MODES[str(pixels.dtype)])
    struct.pack_into("<3i3f", header, 28, *stack.shape[::-1], *map(float, stack.shape[::-1]))
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    path.write_bytes(bytes(header) + stack.tobytes())


def write_ser(path: Path, pixels: Pixels) -> None:
    """An element a frame, rows from the bottom to the top, as TIA writes them."""
    stack = pixels.reshape(-1, *pixels.shape[-2:])
    elements = [
        struct.pack("<ddiddi", 0, 1e-9, 0, 0, 1e-9, 0)
        + struct.pack("<hii", _SER_PIXELS[str(pixels.dtype)], *frame.shape[::-1])
        + frame[::-1].tobytes()
        for frame in stack
    ]
    dimension = struct.pack("<iddii", len(stack), 0, 1, 0, 6) + b"Number" + struct.pack("<i", 0)
    head_size = 34 + len(dimension)
    head = struct.pack("<3h4iqi", 0x4949, 0x0197, 0x0220, 0x4122, 0x4152, len(stack), len(stack), head_size, 1)
    first = head_size + 16 * len(stack)
    offsets = [first + sum(map(len, elements[:i])) for i in range(len(stack) + 1)]
    tags = [offsets[-1]] * len(stack)
    path.write_bytes(
        head + dimension + struct.pack(f"<{2 * len(stack)}q", *offsets[:-1], *tags) + b"".join(elements) + bytes(8)
    )


def write_dm3(path: Path, pixels: Pixels) -> None:
    """A thumbnail and an image."""
    path.write_bytes(_DigitalMicrograph(3).file(pixels))


def write_dm4(path: Path, pixels: Pixels) -> None:
    """A thumbnail and an image; sizes in 64 bits."""
    path.write_bytes(_DigitalMicrograph(4).file(pixels))


class _DigitalMicrograph:
    """A tree of tags; numbers of the tree are big-endian, data little-endian."""

    def __init__(self, version: int) -> None:
        self._version = version

    def file(self, pixels: Pixels) -> bytes:
        thumbnail = self._image(np.zeros((4, 4), np.uint32), 23, 5)
        image = self._image(pixels, *_DM_PIXELS[str(pixels.dtype)])
        root = self._tags(self._group("ImageList", self._tags(self._group("", thumbnail), self._group("", image))))
        return struct.pack(">I", self._version) + self._size(len(root)) + struct.pack(">I", 1) + root + bytes(8)

    def _size(self, *numbers: int) -> bytes:
        return struct.pack(f">{len(numbers)}{'I' if self._version == 3 else 'Q'}", *numbers)

    def _tags(self, *entries: bytes) -> bytes:
        return b"\x01\x00" + self._size(len(entries)) + b"".join(entries)

    def _entry(self, kind: int, label: str, content: bytes) -> bytes:
        size = self._size(len(content)) if self._version == 4 else b""
        return struct.pack(">BH", kind, len(label)) + label.encode() + size + content

    def _group(self, label: str, tags: bytes) -> bytes:
        return self._entry(20, label, tags)

    def _number(self, label: str, encoded_type: int, code: str, value: float) -> bytes:
        return self._entry(21, label, b"%%%%" + self._size(1, encoded_type) + struct.pack(f"<{code}", value))

    def _array(self, label: str, encoded_type: int, values: Pixels) -> bytes:
        number = values.nbytes // {3: 4, 4: 2, 5: 4, 6: 4, 7: 8}[encoded_type]
        return self._entry(21, label, b"%%%%" + self._size(3, 20, encoded_type, number) + values.tobytes())

    def _image(self, pixels: Pixels, data_type: int, encoded_type: int) -> bytes:
        scales = [
            self._group(
                "",
                self._tags(
                    self._number("Origin", 6, "f", 0),
                    self._number("Scale", 6, "f", 1),
                    self._array("Units", 4, np.frombuffer("nm".encode("utf-16-le"), "<u2")),
                ),
            )
            for _ in pixels.shape
        ]
        lengths = [self._number("", 5, "I", length) for length in pixels.shape[::-1]]
        data = self._tags(
            self._group("Calibrations", self._tags(self._group("Dimension", self._tags(*scales)))),
            self._array("Data", encoded_type, pixels),
            self._number("DataType", 5, "I", data_type),
            self._group("Dimensions", self._tags(*lengths)),
            self._number("PixelDepth", 5, "I", pixels.itemsize),
        )
        return self._tags(self._group("ImageData", data))
