"""What every benchmark is given."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.workloads import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """The plan, a folder for what is made on the way, and a way to say how it goes."""

    plan: Plan
    scratch: Path
    begin: float = field(default_factory=time.monotonic)

    def repeat(self, run: Callable[[], T]) -> list[T]:
        """Do something as often as the plan says; what came out, without the warm-ups."""
        return [run() for _ in range(self.plan.warm_ups + self.plan.repeats)][self.plan.warm_ups :]

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", file=sys.stderr, flush=True)
