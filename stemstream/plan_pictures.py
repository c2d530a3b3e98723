"""Queues of a plan over time, as simulated: a picture a placement, a column a codec."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.errors import FaultError
from stemstream.plan_result import Case, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_LEAST_SHOWN: Final = 0.1  # of a scan: shorter queues are those of single parcels
_LABELS: Final = ("receivers' buffer\n(raw GB)", "waiting before\n(raw GB)", "file after the\nlast frame (s)")
_COLOURS: Final = {"link": "tab:orange", "counters": "tab:blue", "sink": "tab:green"}


def draw_queues(plan: Plan, folder: Path) -> list[Path]:
    """Draw ``queues_<placement>.png`` into a folder, which is made if missing, and say where they are.

    Raises
    ------
    FaultError
        A picture cannot be written.
    """
    # Not pyplot: it would keep the figures and might look for a display. A bare figure is drawn by Agg.
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    paths = []
    for name, cases in groupby(plan.cases, key=lambda case: case.placement):
        figure = Figure(figsize=(9.0, 5.4), layout="constrained")
        request = plan.request
        figure.suptitle(
            f"{name}: scans of {request.width} {_TIMES} {request.height} at {request.frame_rate:,.0f} frames/s, "
            f"{request.electrons:g} electrons, {request.link_gbit:g} Gbit/s",
            fontsize="medium",
        )
        columns = list(cases)
        axes = figure.subplots(3, len(columns), sharex="row", squeeze=False, height_ratios=(3, 6, 4))
        for column, case in enumerate(columns):
            axes[0, column].set_title("full chunks" if case.codec == "full" else case.codec, fontsize="medium")
            _draw_buffer(axes[0, column], plan, case)
            _draw_queues(axes[1, column], plan, case)
            _draw_files(axes[2, column], case)
        for row, label in enumerate(_LABELS):
            axes[row, 0].set_ylabel(label, fontsize="small")
        paths.append(folder / f"queues_{name}.png")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(paths[-1], dpi=100)
        except OSError as error:
            raise FaultError(f"{paths[-1]}: cannot be written: {error.strerror}") from error
    return paths


def _draw_buffer(axes: Axes, plan: Plan, case: Case) -> None:
    _shade_scans(axes, plan, case)
    axes.plot(case.simulated.sample_s, case.simulated.buffer.gb, color="tab:purple", linewidth=1.2)
    axes.axhline(case.closed_form.buffer_gb, color="tab:red", linestyle="--", linewidth=0.8, label="full")
    axes.set_ylim(0, 1.2 * case.closed_form.buffer_gb)
    axes.legend(fontsize="x-small", loc="upper right")


def _draw_queues(axes: Axes, plan: Plan, case: Case) -> None:
    _shade_scans(axes, plan, case)
    for queue in case.simulated.queues:
        axes.plot(case.simulated.sample_s, queue.gb, color=_COLOURS[queue.station], linewidth=1.2, label=queue.station)
    longest = max(queue.most_gb for queue in case.simulated.queues)
    axes.set_ylim(0, 1.3 * max(longest, _LEAST_SHOWN * plan.scan_gb))
    axes.set_xlabel("time (s)", fontsize="small")
    axes.legend(fontsize="x-small", loc="upper left", ncols=len(case.simulated.queues))


def _draw_files(axes: Axes, case: Case) -> None:
    numbers = range(1, len(case.simulated.time_to_file_s) + 1)
    found = case.closed_form
    axes.bar(numbers, case.simulated.time_to_file_s, width=0.6, color="0.6", label="simulated")
    computed = [found.time_to_file_s + (number - 1) * found.behind_s for number in numbers]
    axes.plot(numbers, computed, "_", color="tab:red", markersize=18, label="computed")
    axes.set_xticks(list(numbers))
    axes.set_xlabel("scan", fontsize="small")
    axes.legend(fontsize="x-small", loc="lower right")


def _shade_scans(axes: Axes, plan: Plan, case: Case) -> None:
    for scan in range(len(case.simulated.time_to_file_s)):
        begin = scan * plan.period_s
        axes.axvspan(begin, begin + plan.burst_s, color="0.9", linewidth=0)
