"""Find out a scan's width, height and frames a position from the frames themselves.

The feed's two size fields are named "minus one" but used as numbers by public code; some cameras add a flyback column.
Which it is shows as soon as a frame's x equals the field, or a second row begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from topics.geometry import MAX_SCAN_EDGE


class SizeFields(StrEnum):
    """What the two size fields of the feed's header say."""

    AUTO = "auto"  # found out from the frames; number, until they say otherwise
    NUMBER = "number"  # numbers of columns and rows
    MINUS_ONE = "minus-one"  # one less than the numbers of columns and rows
    FLYBACK = "flyback"  # number of rows, and of columns without the flyback column


@dataclass(frozen=True, slots=True)
class ScanShape:
    """Columns, rows and frames a position."""

    width: int
    height: int
    frames_per_position: int

    @property
    def frames(self) -> int:
        """Frames of the complete scan."""
        return self.width * self.height * self.frames_per_position


@dataclass(slots=True)
class _Hypothesis:
    """One reading of the size fields: which frames a position it allows, and how many frames contradict it."""

    width: int
    height: int
    low: int = 1
    high: int = MAX_SCAN_EDGE
    contradictions: int = 0
    lead: int = 0  # of the frames that agree on the range over those that do not

    def add(self, frame_number: int, x: int, y: int) -> None:
        position = y * self.width + x
        low = max(self.low, frame_number // (position + 1) + 1)
        high = min(self.high, frame_number // position) if position else self.high
        if x >= self.width or y >= self.height:
            self.contradictions += 1
        elif low <= high:
            self.low, self.high = low, high
            self.lead += 1
        else:
            self.contradictions += 1
            self.lead -= 1
            if self.lead < 0:  # the frames so far were the wrong ones
                self.low, self.high, self.lead = 1, MAX_SCAN_EDGE, 0


class ScanShapeFinder:
    """Takes the numbers and positions of a scan's first frames, and says its shape once it is certain."""

    def __init__(
        self,
        width_field: int,
        height_field: int,
        size_fields: SizeFields,
        preferred: SizeFields = SizeFields.NUMBER,
    ) -> None:
        readings = {
            SizeFields.NUMBER: (width_field, height_field),
            SizeFields.MINUS_ONE: (width_field + 1, height_field + 1),
            SizeFields.FLYBACK: (width_field + 1, height_field),
        }
        # Rows are seen at the end only: reading one too many of them marks a scan incomplete, one too few loses frames.
        wanted = [SizeFields.NUMBER, SizeFields.MINUS_ONE] if size_fields is SizeFields.AUTO else [size_fields]
        wanted.sort(key=lambda kind: kind is not preferred)
        self._hypotheses = {kind: _Hypothesis(*readings[kind]) for kind in wanted}

    def add(self, frame_number: int, x: int, y: int) -> None:
        """Take in a frame."""
        for hypothesis in self._hypotheses.values():
            hypothesis.add(frame_number, x, y)

    def certain(self) -> ScanShape | None:
        """The shape, when the frames allow no other."""
        fewest = min(h.contradictions for h in self._hypotheses.values())
        left = [h for h in self._hypotheses.values() if h.contradictions == fewest]
        if len(left) == 1 and left[0].low == left[0].high:
            return self.likely()
        return None

    def likely(self) -> ScanShape:
        """The shape that fits best so far; among equals the preferred reading, the fewest frames a position."""
        best = self._hypotheses[self.reading()]
        return ScanShape(max(1, best.width), max(1, best.height), best.low)

    def reading(self) -> SizeFields:
        """The reading of the size fields that fits best so far."""
        return min(self._hypotheses, key=lambda kind: self._hypotheses[kind].contradictions)
