"""The benchmarks that also stand alone, called as a person calls them: ``python -m benchmarks.NAME --json``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.command_line import CommandError
from benchmarks.context import Context
from benchmarks.machine import ROOT


def measure_counting(context: Context) -> Any:  # noqa: ANN401  # what it prints
    """One core: the counting engines against each other and the memory."""
    return _called(context, "counting", "--repeats", max(5, context.plan.repeats))


def measure_recall(context: Context) -> Any:  # noqa: ANN401
    """How right counting is, against the simulator's truth."""
    return _called(context, "recall", "--frames", context.plan.recall_frames)


def measure_suppression(context: Context) -> Any:  # noqa: ANN401
    """One core: dropping pixels at or below a floor, and counting from what is left."""
    return _called(context, "suppression")


def _called(context: Context, name: str, *options: object) -> Any:  # noqa: ANN401
    if not Path(__file__).with_name(f"{name}.py").exists():
        context.say(f"{name}: left out, this version has no benchmarks/{name}.py")
        return None
    words = [sys.executable, "-m", f"benchmarks.{name}", "--json", *map(str, options)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    try:
        said = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise CommandError(f"benchmarks.{name} printed no JSON and ended with {done.returncode}") from error
    context.say(f"{name}: done" if done.returncode == 0 else f"{name}: ended with {done.returncode}")
    return said
