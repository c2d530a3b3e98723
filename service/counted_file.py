"""The counted file: one HDF5 file a count, in stempy's format version 3 with our account beside the events.

What stempy reads: root attribute ``version``, ``electron_events/frames`` (variable-length uint32, a row a frame) and
``electron_events/scan_positions``. Ours: ``electron_events/missing_sectors`` and the group ``metadata/stemstream``.
The fields are described in docs/file-format.md. The door to h5py.

References
----------
OpenChemistry/stempy python/stempy/io/sparse_array.py, ``from_hdf5`` and ``write_to_hdf5`` (stempy 3.6.0). The scan's
Nx, Ny are width and height, the frame's are its first and second axis: stempy turns only the scan's round.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from service.errors import InputError
from topics.event import ALL_SECTORS
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, ScanGeometry

FORMAT_VERSION = 3  # stempy's
_ANNOTATIONS = "metadata/stemstream/annotations"
Value = str | int | float | bool | NDArray[np.generic]
Fields = Mapping[str, "Value | Fields"]


class CountedFileWriter:
    """A file that grows while its scan runs. :meth:`close` completes it under the partial file's name."""

    def __init__(self, path: Path, geometry: ScanGeometry) -> None:
        """Create the file; OSError if it cannot be."""
        self.path = path
        self._geometry = geometry
        self.missing_sectors = np.full(geometry.frames, ALL_SECTORS, np.uint8)
        self._file = h5py.File(path, "w")
        self._file.attrs["version"] = FORMAT_VERSION
        group = self._file.create_group("electron_events")
        self._frames = group.create_dataset("frames", (geometry.frames,), h5py.vlen_dtype(np.uint32))
        self._frames.attrs["Nx"], self._frames.attrs["Ny"] = FRAME_HEIGHT, FRAME_WIDTH
        positions = group.create_dataset(
            "scan_positions", data=np.arange(geometry.width * geometry.height, dtype=np.uint32)
        )
        positions.attrs["Nx"], positions.attrs["Ny"] = geometry.width, geometry.height

    def write(
        self,
        first_frame: int,
        indices: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        missing_sectors: NDArray[np.uint8],
    ) -> None:
        """Write the rows of consecutive frames (CSR, see :class:`topics.event.Events`); OSError if it fails."""
        rows = np.empty(len(missing_sectors), self._frames.dtype)
        for row, (start, stop) in enumerate(itertools.pairwise(offsets)):
            rows[row] = indices[start:stop]
        place = slice(first_frame, first_frame + len(rows))
        # Not self._frames[place] = rows: of equally long rows that makes a matrix, which does not fit.
        self._frames.write_direct(rows, dest_sel=place)
        self.missing_sectors[place] = missing_sectors

    def close(self, metadata: Fields) -> None:
        """Write masks and metadata, and bring the file to the disk; OSError if it fails."""
        dataset = self._file["electron_events"].create_dataset("missing_sectors", data=self.missing_sectors)
        dataset.attrs["meaning"] = "bit m is set where sector m of the frame was missing; such a frame has no electrons"
        _write_fields(self._file.create_group("metadata").create_group("stemstream"), metadata)
        self._file.close()
        _sync(self.path)

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in."""
        with contextlib.suppress(OSError, RuntimeError):  # h5py cannot flush to a full disk
            self._file.close()
        self.path.unlink(missing_ok=True)


def _write_fields(group: h5py.Group, fields: Fields) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _write_fields(group.create_group(name), value)
        elif isinstance(value, np.ndarray):
            group.create_dataset(name, data=value)
        else:
            group.attrs[name] = value


def publish_file(partial: Path, wanted: Path) -> Path:
    """Give a closed file its final name, never an existing one's: then ``-2``, ``-3`` … is added.

    An existing file of the same count is the same file, written before a crash: it stays, the partial one goes.
    """
    identity = read_identity(partial)
    final, number = wanted, 1
    while final.exists():
        if read_identity(final) == identity:
            partial.unlink()
            return final
        number += 1
        final = wanted.with_stem(f"{wanted.stem}-{number}")
    partial.rename(final)
    _sync(final.parent)
    return final


def read_identity(path: Path) -> tuple[str, int, int, str] | None:
    """Cluster id, ordinal, count and account of a counted file; None if it is none of ours."""
    try:
        with h5py.File(path, "r") as file:
            attributes = file["metadata/stemstream"].attrs
            return (
                str(attributes["cluster_id"]),
                int(attributes["ordinal"]),
                int(attributes["count"]),
                str(attributes["account"]),
            )
    except (OSError, KeyError):
        return None


def annotate_file(path: Path, annotations: Mapping[str, str]) -> bool:
    """Put a person's annotations into a finished file, through a copy; False if they are there already.

    OSError if it fails; the file is then as it was.
    """
    with h5py.File(path, "r") as file:
        if dict(file[_ANNOTATIONS].attrs if _ANNOTATIONS in file else {}) == dict(annotations):
            return False
    copy = path.with_name(f".{path.name}.annotated")
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        if _ANNOTATIONS in file:
            del file[_ANNOTATIONS]
        _write_fields(file.create_group(_ANNOTATIONS), annotations)
    _sync(copy)
    copy.replace(path)
    _sync(path.parent)
    return True


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class CountedEvents:
    """What a counted file holds.

    ``indices`` (electrons,) uint32, flat pixel indices y · 576 + x; ``offsets`` (rows + 1,) int64, CSR over the rows
    p · frames_per_position + k; ``missing_sectors`` (rows,) uint8 bit masks.
    """

    indices: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    missing_sectors: NDArray[np.uint8]
    scan_shape: tuple[int, int]
    frames_per_position: int
    frame_shape: tuple[int, int]
    label: str


@dataclass(frozen=True, slots=True)
class FoundThresholds:
    """How a file's thresholds were found; all in detector counts but ``histogram`` and ``amplitude``, which are pixels.

    ``histogram`` (bins,) int64: pixels of the sample frames in unit bins from ``first_bin`` on; the noise is fitted by
    ``amplitude`` · exp(-(value - ``optimized_mean``)² / 2 ``optimized_std``²).
    """

    source: str
    background: float
    xray: float
    frames: int
    amplitude: float
    optimized_mean: float
    optimized_std: float
    first_bin: int
    histogram: NDArray[np.int64]
    label: str


def read_thresholds(path: Path) -> FoundThresholds | None:
    """Read how the thresholds of a counted file were found.

    None if they were given, their histogram is gone, or the file is none of ours.

    Raises
    ------
    InputError
        It cannot be opened.
    """
    try:
        with h5py.File(path, "r") as file:
            group = file.get("metadata/stemstream/thresholds")
            if group is None or "histogram" not in group:
                return None
            ours = file["metadata/stemstream"].attrs
            return FoundThresholds(
                source=str(group.attrs["source"]),
                background=float(group.attrs["background"]),
                xray=float(group.attrs["xray"]),
                frames=int(group.attrs["frames"]),
                amplitude=float(group.attrs["amplitude"]),
                optimized_mean=float(group.attrs["optimized_mean"]),
                optimized_std=float(group.attrs["optimized_std"]),
                first_bin=int(group.attrs["first_bin"]),
                histogram=group["histogram"][()],
                label=f"{ours['session']}/{ours['number']}",
            )
    except OSError as error:
        raise InputError(f"{path}: no counted file: {error}") from error


def read_events(path: Path) -> CountedEvents:
    """Read a counted file whole, also one that stempy wrote: then no sector is missing and the label is its name.

    Raises
    ------
    InputError
        It cannot be opened or is no counted file.
    """
    try:
        with h5py.File(path, "r") as file:
            frames = file["electron_events/frames"]
            positions = file["electron_events/scan_positions"].attrs
            rows = frames[()]
            width, height = int(positions["Nx"]), int(positions["Ny"])
            events = file["electron_events"]
            masks = events["missing_sectors"][()] if "missing_sectors" in events else np.zeros(len(rows), np.uint8)
            ours = file.get("metadata/stemstream")
            return CountedEvents(
                indices=np.concatenate([np.empty(0, np.uint32), *rows]),
                offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]),
                missing_sectors=masks,
                scan_shape=(height, width),
                frames_per_position=len(rows) // (width * height),
                frame_shape=(int(frames.attrs["Nx"]), int(frames.attrs["Ny"])),
                label=f"{ours.attrs['session']}/{ours.attrs['number']}" if ours else path.stem,
            )
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: no counted file: {error}") from error
