"""The detector's raw files: one record a sector frame, one or more files a module.

A module of the camera is a sector of the frame: module m holds the rows 144·m … 144·m + 143.

References
----------
OpenChemistry/stempy docs/source/4dCamera_header_versions.rst, header version 5.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from topics.geometry import FRAME_WIDTH, SECTOR_ROWS

RAW_RECORD: Final = np.dtype(
    [
        ("scan_number", "<u4"),
        ("frame_number", "<u4"),
        ("scan_size", "<u2", (2,)),  # width, height
        ("scan_position", "<u2", (2,)),  # x, y
        ("pixels", "<u2", (SECTOR_ROWS, FRAME_WIDTH)),
    ]
)

_FILE_NAME = re.compile(r"data_scan(\d+)_module(\d+)_(\d+)\.data")


def raw_file_name(scan_number: int, module: int, part: int) -> str:
    """Name of one raw file, for example ``data_scan0000000001_module0_0000000000.data``."""
    return f"data_scan{scan_number:010d}_module{module}_{part:010d}.data"


def parse_raw_file_name(name: str) -> tuple[int, int, int] | None:
    """Scan number, module and part of a raw file's name; None if it is not one."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        return None
    scan_number, module, part = (int(group) for group in match.groups())
    return scan_number, module, part
