"""How two counted files differ, frame by frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.counted_file import CountedEvents
from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Comparison:
    """Frames and electrons that two files have alike and not.

    ``differing`` lists (row, electrons only in the first, electrons only in the second) of the first frames that
    differ; a row is scan position · frames per position + k.
    """

    frames: int
    frames_equal: int
    frames_differing: int
    frames_missing_in_first: int
    frames_missing_in_second: int
    electrons_in_first: int
    electrons_in_second: int
    electrons_only_in_first: int
    electrons_only_in_second: int
    differing: list[tuple[int, int, int]]

    def to_json(self) -> dict[str, Any]:
        """Fields for ``--json``."""
        return asdict(self)


def compare_events(first: CountedEvents, second: CountedEvents, most_listed: int = 20) -> Comparison:
    """Compare two counted files.

    A frame that one of the files lacks is no difference: it is counted as missing there.

    Raises
    ------
    InputError
        They are not of scans of the same size.
    """
    for name in ("scan_shape", "frames_per_position", "frame_shape"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise InputError(f"the files cannot be compared: {name.replace('_', ' ')} {one} and {other}")
    pixels = first.frame_shape[0] * first.frame_shape[1]
    keys_first, keys_second = _keys(first, pixels), _keys(second, pixels)
    only_first = np.setdiff1d(keys_first, keys_second, assume_unique=True)
    only_second = np.setdiff1d(keys_second, keys_first, assume_unique=True)
    rows = len(first.missing_sectors)
    count_first = np.bincount(only_first // pixels, minlength=rows)
    count_second = np.bincount(only_second // pixels, minlength=rows)
    comparable = (first.missing_sectors == 0) & (second.missing_sectors == 0)
    differing = np.flatnonzero(comparable & ((count_first > 0) | (count_second > 0)))
    return Comparison(
        frames=rows,
        frames_equal=int(np.count_nonzero(comparable)) - len(differing),
        frames_differing=len(differing),
        frames_missing_in_first=int(np.count_nonzero(first.missing_sectors)),
        frames_missing_in_second=int(np.count_nonzero(second.missing_sectors)),
        electrons_in_first=len(keys_first),
        electrons_in_second=len(keys_second),
        electrons_only_in_first=int(count_first[comparable].sum()),
        electrons_only_in_second=int(count_second[comparable].sum()),
        differing=[(int(row), int(count_first[row]), int(count_second[row])) for row in differing[:most_listed]],
    )


def _keys(events: CountedEvents, pixels: int) -> NDArray[np.int64]:
    """One number an electron: row · pixels a frame + flat pixel index."""
    rows = np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
    keys: NDArray[np.int64] = rows * pixels + events.indices.astype(np.int64)
    return keys
