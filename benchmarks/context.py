"""What every benchmark is given."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workloads import Plan


@dataclass(frozen=True)
class Context:
    """The plan, a folder for what is made on the way, and a way to say how it goes."""

    plan: Plan
    scratch: Path
    begin: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", file=sys.stderr, flush=True)
