"""The plots of docs/performance.md."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.workloads import FILE_WAY, OURS, SOCKET_WAY, SUPPRESSED

DPI = 80
COLOURS_IN_FILE = 32  # pictures of a repository should be small
COLOURS = {OURS: "tab:blue", SUPPRESSED: "tab:green", FILE_WAY: "tab:orange", SOCKET_WAY: "tab:red"}
PARTS = {
    "receiver": "tab:blue",
    "kafka": "tab:orange",
    "counter": "tab:green",
    "sink": "tab:red",
    "supervisor": "tab:gray",
}


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw what the results have."""
    benchmarks = results["benchmarks"]
    workloads = [each for each in benchmarks.get("end-to-end") or [] if FILE_WAY in each["contenders"]]
    if workloads:
        figure = Figure((8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_speed(left, workloads)
        draw_cpu(right, workloads)
        save(figure, folder / "performance-end-to-end.png")
    if benchmarks.get("live"):
        figure = Figure((8, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_tail(left, benchmarks["live"]["tail"]["series"])
        draw_memory(right, benchmarks["live"]["tail"]["series"])
        save(figure, folder / "performance-tail.png")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(COLOURS_IN_FILE).save(path, optimize=True)


def draw_speed(axes: Axes, workloads: list[dict[str, Any]]) -> None:
    """Frames/s by way; a bar's line goes from the slowest to the fastest run."""
    names = [name for name in COLOURS if any(name in each["contenders"] for each in workloads)]
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        of = [(x, each["contenders"][name]) for x, each in enumerate(workloads) if name in each["contenders"]]
        x = np.array([x for x, _ in of]) + (place - (len(names) - 1) / 2) * width
        figures = [figures["frames_per_second"] for _, figures in of]
        medians = np.array([each["median"] for each in figures])
        spread = [medians - [each["min"] for each in figures], [each["max"] for each in figures] - medians]
        axes.bar(x, medians, width, yerr=spread, label=name, color=COLOURS[name], error_kw={"linewidth": 1})
    axes.set_yscale("log")
    label(axes, workloads, "frames/s")
    explain(axes, 2)


def draw_cpu(axes: Axes, workloads: list[dict[str, Any]]) -> None:
    """CPU seconds per raw GB: ours by process, full frames and zero-suppressed ones; the others as a whole."""
    for x, each in enumerate(workloads):
        contenders = each["contenders"]
        for place, way in ((-0.3, OURS), (-0.1, SUPPRESSED)):
            bottom = 0.0
            for part, colour in PARTS.items() if way in contenders else ():
                height = part_of(contenders[way]["cpu_seconds_per_gb"], part)
                said = shown(part) if (x, way) == (0, OURS) else None
                axes.bar(x + place, height, 0.18, bottom, color=colour, label=said)
                bottom += height
        for place, way, hatch in ((0.1, FILE_WAY, "//"), (0.3, SOCKET_WAY, "..")):
            total = contenders[way]["cpu_seconds_per_gb"]["total"]["median"]
            said = way if x == 0 else None
            axes.bar(x + place, total, 0.18, color="white", edgecolor="black", hatch=hatch, label=said)
    label(axes, workloads, "CPU s per raw GB")
    explain(axes, 4)


def part_of(figures: dict[str, Any], part: str) -> float:
    """Of all processes of a service."""
    return float(sum(figure["median"] for name, figure in figures.items() if name.split("-")[0] == part))


def shown(part: str) -> str:
    return "broker" if part == "kafka" else part


def explain(axes: Axes, columns: int) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(fontsize=7, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def label(axes: Axes, workloads: list[dict[str, Any]], said: str) -> None:
    axes.set_xticks(range(len(workloads)), [str(each["workload"]["electrons"]) for each in workloads])
    axes.set_xlabel("electrons a frame")
    axes.set_ylabel(said)


def draw_tail(axes: Axes, series: list[dict[str, Any]]) -> None:
    """Part of the scans whose file was there after so many seconds."""
    for each in series:
        latencies = np.sort(each["latency_seconds"]["runs"])
        axes.step(latencies, np.arange(1, len(latencies) + 1) / len(latencies), where="post", label=f"{each['edge']}²")
    axes.set_xlabel("last chunk published → file, s")
    axes.set_ylabel("part of the scans")
    axes.set_xlim(0)
    explain(axes, 3)


def draw_memory(axes: Axes, series: list[dict[str, Any]]) -> None:
    """Peak memory of each process by the size of the scans."""
    for part, colour in PARTS.items():
        peaks = [max((v for n, v in s["peak_megabytes"].items() if n.split("-")[0] == part), default=0) for s in series]
        axes.plot(range(len(series)), peaks, "o-", color=colour, label=shown(part))
    axes.set_xticks(range(len(series)), [f"{each['edge']}²" for each in series])
    axes.set_xlabel("scan")
    axes.set_ylabel("peak memory, MB")
    axes.set_ylim(0)
    explain(axes, 5)
