"""A simulated scan as a live feed, with faults on request.

All that will go wrong is drawn before the first frame is sent, and is a function of the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.feed_sender import FeedScan, OutgoingFrame
from producers.frames_ahead import FramesAhead
from producers.raw_writer import write_truth
from producers.scan_shape import SizeFields
from producers.simulator import Simulation
from topics.geometry import SECTORS

MAX_FRAMES_TO_SEND: Final = 2**24  # 11 TB; the plan of the sending is held in memory

_FAULT_STREAM = 2  # of random numbers, beside those of the simulator
_REPEATED_AFTER = 0.5  # frame periods
_ROWS_AT_A_TIME = 4096

# Columns and rows by which a field is less than their number.
_SIZE_FIELDS_LESS = {SizeFields.NUMBER: (0, 0), SizeFields.MINUS_ONE: (1, 1), SizeFields.FLYBACK: (1, 0)}

_GOOD, _LOST, _WRONG_MODULE, _REPEATED = range(4)


@dataclass(frozen=True, slots=True)
class Faults:
    """What is to go wrong. Fractions are of the sector frames of the scan, up to where it is aborted."""

    lose: float = 0.0
    """Fraction that is not sent."""
    lose_sectors: tuple[int, ...] = ()
    """Sectors of which nothing is sent."""
    wrong_module: float = 0.0
    """Fraction that is sent under the number of the next module: lost for their own sector."""
    repeat: float = 0.0
    """Fraction that is sent twice."""
    abort_at: float = 1.0
    """Fraction of the frames after which the scan stops."""
    late_s: tuple[float, ...] = (0.0,) * SECTORS
    """How much later than the scan each sector starts."""

    def __post_init__(self) -> None:
        for name in ("lose", "wrong_module", "repeat"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a fraction from 0 to 1")
        if not self.lose + self.wrong_module + self.repeat <= 1:
            raise ValueError("lose, wrong_module and repeat are more than 1 together: a frame has one fault at most")
        if not 0 < self.abort_at <= 1:
            raise ValueError(f"abort_at is {self.abort_at}, expected a fraction above 0, at most 1")
        if not all(0 <= sector < SECTORS for sector in self.lose_sectors):
            raise ValueError(f"lose_sectors is {self.lose_sectors}, the sectors are 0 to {SECTORS - 1}")
        if len(self.late_s) != SECTORS or not all(0 <= late <= 3600 for late in self.late_s):
            raise ValueError(f"late_s is {self.late_s}, expected {SECTORS} times from 0 to 3600 s")


class SectorPlan(NamedTuple):
    """What a sector sends, in this order: (n,) each."""

    slots: NDArray[np.float64]
    """When, in frame periods after the scan's start."""
    frame_numbers: NDArray[np.int64]
    modules: NDArray[np.int64]
    """The module number that the header says."""


class ScanPlan(NamedTuple):
    """What all sectors send of a scan."""

    frames: int
    """Frames up to where the scan is aborted, all if it is not."""
    sectors: list[SectorPlan]
    not_sent: NDArray[np.bool_]
    """(frames of the scan, 4): sector frames that no receiver gets as what they are."""

    @property
    def sector_frames(self) -> int:
        """Number of messages."""
        return sum(len(sector.slots) for sector in self.sectors)


def plan_scan(frames: int, faults: Faults, *, out_of_order: int = 0, seed: int = 0) -> ScanPlan:
    """Draw what happens to each sector frame.

    Parameters
    ----------
    frames
        Frames of the complete scan.
    faults
        What is to go wrong.
    out_of_order
        How many places a frame may be away from where its number belongs, in each sector differently.
    seed
        The same seed gives the same plan.
    """
    if not 1 <= frames <= MAX_FRAMES_TO_SEND:
        raise ValueError(f"the scan has {frames} frames, expected at most {MAX_FRAMES_TO_SEND} to send")
    if out_of_order < 0:
        raise ValueError(f"out_of_order is {out_of_order}, expected 0 or more")
    sent_frames = max(1, round(frames * faults.abort_at))
    fault = _draw_faults(sent_frames, faults, np.random.default_rng((seed, _FAULT_STREAM)))
    not_sent = np.ones((frames, SECTORS), bool)
    not_sent[:sent_frames] = (fault == _LOST) | (fault == _WRONG_MODULE)
    sectors = []
    for sector in range(SECTORS):
        random = np.random.default_rng((seed, _FAULT_STREAM, sector))
        sectors.append(_plan_sector(sector, fault[:, sector], out_of_order, random))
    return ScanPlan(sent_frames, sectors, not_sent)


def _draw_faults(frames: int, faults: Faults, random: np.random.Generator) -> NDArray[np.uint8]:
    """(frames, 4) uint8, the fault of each sector frame; as many of each as the fractions say, no more and no less."""
    fault = np.full(frames * SECTORS, _GOOD, np.uint8)
    # Rounded after adding up, lest there are more faults than sector frames.
    up_to = np.rint(np.cumsum([0.0, faults.lose, faults.wrong_module, faults.repeat]) * len(fault)).astype(int)
    counts = np.diff(up_to)
    chosen = random.choice(len(fault), up_to[-1], replace=False)
    fault[chosen] = np.repeat([_LOST, _WRONG_MODULE, _REPEATED], counts)
    by_sector = fault.reshape(frames, SECTORS)
    by_sector[:, list(faults.lose_sectors)] = _LOST
    return by_sector


def _plan_sector(sector: int, fault: NDArray[np.uint8], out_of_order: int, random: np.random.Generator) -> SectorPlan:
    numbers, copies = np.flatnonzero(fault != _LOST), np.flatnonzero(fault == _REPEATED)
    slots = np.concatenate([numbers, copies + _REPEATED_AFTER])
    slots += random.uniform(0, out_of_order, len(slots))
    order = np.argsort(slots, kind="stable")
    frame_numbers = np.concatenate([numbers, copies])[order]
    wrong = fault[frame_numbers] == _WRONG_MODULE
    return SectorPlan(slots[order], frame_numbers, np.where(wrong, (sector + 1) % SECTORS, sector))


def simulated_scan(
    simulation: Simulation,
    plan: ScanPlan,
    ahead: FramesAhead,
    *,
    scan_number: int = 1,
    late_s: tuple[float, ...] = (0.0,) * SECTORS,
    size_fields: SizeFields = SizeFields.NUMBER,
) -> FeedScan:
    """Return the scan as it is to be sent, once. ``size_fields``: how the header's two fields say its size."""
    if size_fields not in _SIZE_FIELDS_LESS:
        raise ValueError(f"size fields {size_fields.value}: choose {', '.join(_SIZE_FIELDS_LESS)}")
    less_columns, less_rows = _SIZE_FIELDS_LESS[size_fields]
    for sector, sector_plan in enumerate(plan.sectors):
        if not len(sector_plan.slots):
            ahead.release(sector, None)  # nobody will ask for its frames
    return FeedScan(
        scan_number=scan_number,
        frames=simulation.frame_count,
        width_field=simulation.width - less_columns,
        height_field=simulation.height - less_rows,
        sectors=[_sector_frames(simulation, sector, plan.sectors[sector], ahead) for sector in range(SECTORS)],
        late_s=late_s,
    )


def write_feed_truth(file: BinaryIO, simulation: Simulation, plan: ScanPlan, ahead: FramesAhead) -> None:
    """Write what hit the detector (see `producers.raw_writer.write_truth`), and what was not sent.

    ``not_sent`` is (frames of the scan, 4) bool. ``frames_made`` says of how many frames this is the truth: frame f
    shows what simulated frame f mod ``frames_made`` shows.
    """
    truth = ahead.truth()
    write_truth(file, simulation, truth, not_sent=plan.not_sent, frames_made=ahead.made)


def _sector_frames(
    simulation: Simulation, sector: int, plan: SectorPlan, ahead: FramesAhead
) -> Iterator[OutgoingFrame]:
    y, x = simulation.scan_position(plan.frame_numbers)
    # Frames come a little out of order: the lowest number that is still to come.
    still_needed = np.minimum.accumulate(plan.frame_numbers[::-1])[::-1]
    columns = (plan.slots, plan.frame_numbers, x, y, plan.modules, still_needed)
    for first in range(0, len(plan.slots), _ROWS_AT_A_TIME):
        rows = zip(*(column[first : first + _ROWS_AT_A_TIME].tolist() for column in columns), strict=True)
        for slot, frame_number, column, row, module, needed in rows:
            ahead.release(sector, needed)
            yield OutgoingFrame(slot, frame_number, column, row, module, ahead.sector_frame(sector, frame_number))
    ahead.release(sector, None)
