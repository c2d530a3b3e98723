"""``stemstream`` as a person calls it."""

import os
import subprocess
import sys
from functools import cache

from benchmarks.machine import ROOT

TIMEOUT_S = 1800.0


class CommandError(RuntimeError):
    """A command did not do what it should."""


def command(*words: object) -> list[str]:
    """What starts ``stemstream`` with these arguments."""
    return [sys.executable, "-m", "stemstream", *map(str, words)]


def stemstream(*words: object, environment: dict[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """Run a command to its end and return what it printed; CommandError if it failed."""
    done = subprocess.run(
        command(*words), cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    if done.returncode != 0:
        called = " ".join(map(str, words))
        raise CommandError(f"stemstream {called} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


@cache
def has_option(name: str, option: str) -> bool:
    """Whether a command of this version has an option."""
    return option in stemstream(name, "--help", environment=os.environ | {"COLUMNS": "200"}, timeout_s=60)
