"""Archive the classes that the embedded broker loads, by starting and stopping one: later starts take half the time."""

import sys
import tempfile
from pathlib import Path

from stemstream.broker import archive_classes

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        sys.stdout.write(f"archived Kafka's classes in {archive_classes(Path(home)).name}\n")
