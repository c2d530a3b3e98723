"""Processes that a file remembers: find them again without mistaking another one for them, and end them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

KILLED_TIMEOUT_S = 10.0
# psutil derives a process's start from the wall clock, which may have been set a little since.
_SAME_START_S = 2.0
_PAUSE_S = 0.02


def find(pid: int, create_time: float) -> psutil.Process | None:
    """Return the process that began at that time (in seconds since 1970), if it is still there."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - create_time) <= _SAME_START_S and not is_gone(process, 0):
            return process
    except psutil.NoSuchProcess:
        pass
    return None


def end(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Ask them to end, wait, and end by force those that do not.

    Returns
    -------
    list of psutil.Process
        Those that are there even so.
    """
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    left = _not_gone(left, timeout_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return _not_gone(left, KILLED_TIMEOUT_S)


def is_gone(process: psutil.Process, timeout_s: float) -> bool:
    """Wait for the end of all its threads, and collect it if it is a child of ours."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            process.wait(0)
        except psutil.TimeoutExpired:
            if _is_empty(process):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True


def _not_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    return [process for process in processes if not is_gone(process, deadline - time.monotonic())]


def _is_empty(process: psutil.Process) -> bool:
    """Whether it has ended and its parent did not ask how, as in a container whose first process asks for nothing.

    The status alone would not do: a JVM is shown as a zombie while its last threads still hold the data.
    """
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE) and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True
