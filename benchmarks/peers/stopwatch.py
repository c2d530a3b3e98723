"""What a way takes, stage by stage."""

import resource
import time
from typing import Any

from benchmarks.raw_scans import FRAME_BYTES


def cpu_seconds() -> float:
    """Of this process with all its threads and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Stopwatch:
    """Wall-clock and CPU seconds of stages that follow one another; imports before it was made are not counted.

    ``children`` is what children that still run had used by then: the kernel adds all of theirs when they end.
    """

    def __init__(self, children: float = 0.0) -> None:
        self._begin = self._last = (time.perf_counter(), cpu_seconds() + children)
        self._stages: dict[str, tuple[float, float]] = {}

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = (time.perf_counter(), cpu_seconds())
        self._stages[stage] = (now[0] - self._last[0], now[1] - self._last[1])
        self._last = now

    def report(self, frames: int, electrons: int) -> dict[str, Any]:
        """Figures as `benchmarks.system` gives them, for the whole and by stage."""
        seconds, cpu = self._last[0] - self._begin[0], self._last[1] - self._begin[1]
        gigabytes = frames * FRAME_BYTES / 1e9
        return {
            "seconds": seconds,
            "frames_per_second": frames / seconds,
            "megabytes_per_second": 1e3 * gigabytes / seconds,
            "electrons_per_frame": electrons / frames,
            "cpu_seconds_per_gb": {
                **{stage: used / gigabytes for stage, (_, used) in self._stages.items()},
                "total": cpu / gigabytes,
            },
            "stage_frames_per_second": {stage: frames / took for stage, (took, _) in self._stages.items()},
        }
