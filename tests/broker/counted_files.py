"""Counted files as the people who analyse them open them: with stempy, and with h5py for what we add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from stempy.io import SparseArray

from tests.broker.scans import RawScan


def assert_equals_stempy(file: Path, scan: RawScan) -> None:
    """Every frame of the file has the electrons that stempy counts in its pixels, in slot k of its position."""
    counted = SparseArray.from_hdf5(file)
    assert counted.scan_shape == (scan.height, scan.width)
    assert counted.frame_shape == (576, 576)
    assert counted.data.shape == (scan.width * scan.height, scan.frames_per_position)
    for number, expected in enumerate(scan.electrons):
        position, slot = divmod(number, scan.frames_per_position)
        np.testing.assert_array_equal(counted.data[position, slot], expected, f"frame {number}")
    np.testing.assert_array_equal(missing_sectors(file), scan.missing_sectors)


def missing_sectors(file: Path) -> NDArray[np.uint8]:
    with h5py.File(file) as opened:
        masks: NDArray[np.uint8] = opened["electron_events/missing_sectors"][()]
        return masks


def metadata(file: Path) -> dict[str, Any]:
    with h5py.File(file) as opened:
        return dict(opened["metadata/stemstream"].attrs)


def account(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata(file)["account"])
    return found


def files_below(folder: Path) -> list[Path]:
    """All files, the hidden ones too: a partial file is one."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
