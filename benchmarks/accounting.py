"""CPU seconds and peak memory of processes, as the kernel accounts for them.

CPU seconds hardly depend on what else a machine does, which wall-clock times do.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

Processes = Mapping[str, psutil.Process]


class CpuMeter:
    """CPU seconds of named processes since the meter was made, ended children included."""

    def __init__(self, processes: Processes) -> None:
        self._processes = dict(processes)
        self._begin = self._now()

    def seconds(self) -> dict[str, float]:
        """Seconds by name. psutil.NoSuchProcess if one has ended: then the figures would be wrong."""
        return {name: now - self._begin[name] for name, now in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:4]) for name, process in self._processes.items()}


def forget_peaks(processes: Iterable[psutil.Process]) -> None:
    """Begin the peak memory of these processes anew (Linux: proc(5), clear_refs)."""
    for process in processes:
        with contextlib.suppress(PermissionError):  # then it stays the peak since their start
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


def peak_megabytes(processes: Processes) -> dict[str, float]:
    """Peak resident memory (VmHWM) by name, in MB."""
    return {name: _peak_bytes(process.pid) / 1e6 for name, process in processes.items()}


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel does not say how much memory process {pid} used")
