"""Write the golden files that are not there yet: python -m tests.golden.make

Files that are there stay as they are, whatever today's encoders write: they are what was released.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden.values import FOLDER, encoded


def make(folder: Path) -> list[str]:
    """Write what is missing; returns the names of the files made."""
    made = []
    for name, message in encoded().items():
        path = folder / f"{name}.bin"
        if not path.exists():
            path.write_bytes(message)
            made.append(path.name)
    return made


if __name__ == "__main__":
    sys.stdout.write(f"made: {', '.join(make(FOLDER)) or 'nothing, all are there'}\n")
