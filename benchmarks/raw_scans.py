"""Raw files of simulated scans, on a RAM disk if there is one that is large enough."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.command_line import stemstream
from benchmarks.workloads import Scan
from topics.geometry import SECTOR_FRAME_BYTES, SECTORS

FRAME_BYTES = SECTORS * SECTOR_FRAME_BYTES
RAM_DISK = Path("/dev/shm")
_COPIES = 2  # the scan, and what the file way writes again


@contextmanager
def raw_scan(scan: Scan, scratch: Path) -> Iterator[Path]:
    """Folder with the raw files of a scan, removed afterwards."""
    folder = fast_folder(scan, scratch)
    raw = folder / "raw"
    try:
        options = ["--scan", f"{scan.edge}x{scan.edge}", "--electrons", scan.electrons, "--noise", scan.noise]
        stemstream("simulate", *options, "--output", raw)
        yield raw
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fast_folder(scan: Scan, scratch: Path) -> Path:
    """A folder of this process on the RAM disk, below ``scratch`` if the scan does not fit there twice."""
    needed = _COPIES * scan.frames * FRAME_BYTES
    on_ram = RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > 1.2 * needed
    return (RAM_DISK if on_ram else scratch) / f"stemstream-benchmark-{scratch.name}"
