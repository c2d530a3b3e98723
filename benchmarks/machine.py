"""Where and when something was measured."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("blosc2", "confluent-kafka", "h5py", "numba", "numpy", "pyarrow", "pyzmq", "stempy")


def describe_machine() -> dict[str, Any]:
    """Machine, versions, commit and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    """The commit that is checked out, with a + if files differ from it."""
    describe = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    said = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"
