"""Tables and plots of docs/performance.md, from the JSON of a run: ``python -m benchmarks.report [RESULTS.json]``.

A table goes between ``<!-- measured: NAME -->`` and ``<!-- end -->``; what was there is replaced.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.raw_scans import FRAME_BYTES
from benchmarks.report_plots import draw
from benchmarks.report_targets import speed_ratios, targets
from benchmarks.workloads import FILE_WAY, OURS, SOCKET_WAY, SUPPRESSED, TWO_COUNTERS

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
PROCESSES = {
    "receiver": "receiver",
    "kafka": "broker",
    "counter": "counters",
    "sink": "sink",
    "supervisor": "supervisor",
}

Results = dict[str, Any]


def main(arguments: list[str]) -> int:
    results = json.loads(Path(arguments[0] if arguments else RESULTS).read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(text, results), encoding="utf-8")
    draw(results, IMAGES)
    return 0


def filled(text: str, results: Results) -> str:
    """The page with the tables of these results; a table whose benchmark was not run stays as it is."""

    def table(match: re.Match[str]) -> str:
        made = TABLES[match[2]](results)
        return f"{match[1]}\n\n{made}\n\n{match[4]}" if made else match[0]

    return re.sub(r"(<!-- measured: ([\w-]+) -->)(.*?)(<!-- end -->)", table, text, flags=re.DOTALL)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def shown(figure: dict[str, Any], digits: int = 2) -> str:
    """Median, with smallest and largest behind it."""
    return f"{figure['median']:.{digits}f} ({figure['min']:.{digits}f} to {figure['max']:.{digits}f})"


def end_to_end(results: Results) -> list[dict[str, Any]]:
    return results["benchmarks"].get("end-to-end") or []


def name_of(workload: dict[str, Any]) -> str:
    noise = "" if workload["noise"] == 5 else f", noise {workload['noise']:g}"
    return f"{workload['electrons']}, {workload['edge']}²{noise}"


# Tables.


def reached(results: Results) -> str:
    rows = [target.cells() for target in targets(results)]
    return markdown(["what", "wanted", "reached", "met"], rows) if rows else ""


def machine(results: Results) -> str:
    of = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in of["packages"].items())
    lines = [
        f"{of['machine']}, {of['cores']} cores, {of['memory_gb']} GB; {of['system']}; Python {of['python']}.",
        f"{packages}.",
        f"Commit {of['commit']}, {of['date'][:10]}; load average when it began: {of['load_before']:.1f}.",
    ]
    return "\n".join(lines)


def throughput(results: Results) -> str:
    rows = []
    for measured in end_to_end(results):
        for name, figures in measured["contenders"].items():
            rows.append(
                [
                    name_of(measured["workload"]),
                    name,
                    shown(figures["frames_per_second"], 0),
                    f"{figures['megabytes_per_second']['median']:.0f}",
                    shown(figures["cpu_seconds_per_gb"]["total"]),
                    f"1/{figures['compression_ratio']['median']:.1f}" if "compression_ratio" in figures else "",
                    f"{figures['latency_seconds']['median']:.2f}" if "latency_seconds" in figures else "",
                    f"{figures['electrons_per_frame']['median']:.1f}",
                ]
            )
    head = ["electrons, scan", "way", "frames/s", "MB/s", "CPU s/GB", "traffic", "tail, s", "electrons counted a frame"]
    return markdown(head, rows) if rows else ""


def ratios(results: Results) -> str:
    rows = []
    for measured in end_to_end(results):
        contenders = measured["contenders"]
        if not {FILE_WAY, SOCKET_WAY} <= set(contenders):
            continue
        for name in (OURS, TWO_COUNTERS, SUPPRESSED):
            if name in contenders:
                rows.append(
                    [name_of(measured["workload"]), name, *(f"{r:.1f}" for r in speed_ratios(name, contenders))]
                )
    head = ["electrons, scan", "way", "times the file way's counting", "times the file way", "times the socket way"]
    return markdown(head, rows) if rows else ""


def cpu(results: Results) -> str:
    rows = []
    for measured in end_to_end(results):
        start = start_up(measured)
        for name, figures in measured["contenders"].items():
            if name not in (FILE_WAY, SOCKET_WAY):
                used = by_kind(figures["cpu_seconds_per_gb"])
                cells = [f"{used[kind]:.2f}" for kind in PROCESSES]
                rows.append([name_of(measured["workload"]), name, *cells, f"{used['total']:.2f}", f"{start:.2f}"])
    head = ["electrons, scan", "way", *PROCESSES.values(), "total", "of it the receiver's start"]
    return markdown(head, rows) if rows else ""


def by_kind(figures: dict[str, Any]) -> dict[str, float]:
    """Medians by kind of process: the counters are added up."""
    used = dict.fromkeys((*PROCESSES, "total"), 0.0)
    for name, figure in figures.items():
        used[name.split("-")[0]] += figure["median"]
    return used


def stages(results: Results) -> str:
    measured = results["benchmarks"].get("stages")
    return "\n\n".join(stages_of(results, codec, measured) for codec in CONTENDERS) if measured else ""


CONTENDERS = {"full": OURS, "zero-suppressed": SUPPRESSED}
STAGED = ("receiver", "counter", "sink")


def stages_of(results: Results, codec: str, all_measured: list[dict[str, Any]]) -> str:
    measured = [each for each in all_measured if each["codec"] == codec]
    head = [f"{codec}: stage", *(f"{each['electrons']} electrons" for each in measured)]
    rows = []
    for process in STAGED:
        names = [name for name in measured[0]["cpu_seconds_per_gb"] if name.startswith(process)]
        rows += [[name, *(f"{each['cpu_seconds_per_gb'][name]['median']:.3f}" for each in measured)] for name in names]
        rest = [rest_of(results, each, process) for each in measured]
        rows.append([f"{process}: the rest", *("" if value is None else f"{value:.2f}" for value in rest)])
    return markdown(head, rows)


def rest_of(results: Results, measured: dict[str, Any], process: str) -> float | None:
    """What a process took end to end, but for its stages and the receiver's start."""
    figures = measured["cpu_seconds_per_gb"]
    stages = sum(figure["median"] for name, figure in figures.items() if name.startswith(process))
    contender = CONTENDERS[measured["codec"]]
    for each in end_to_end(results):
        of = each["workload"]
        if (of["electrons"], of["noise"]) == (measured["electrons"], 5) and contender in each["contenders"]:
            used = by_kind(each["contenders"][contender]["cpu_seconds_per_gb"])[process]
            rest: float = used - stages - (start_up(each) if process == "receiver" else 0.0)
            return rest
    return None


def start_up(measured: dict[str, Any]) -> float:
    """CPU seconds per raw GB that the start of the receiver takes."""
    gigabytes = measured["workload"]["frames"] * FRAME_BYTES / 1e9
    return float(measured["start_up"]["receiver_cpu_seconds"]["median"] / gigabytes)


def limits(results: Results) -> str:
    of = results["benchmarks"].get("limits")
    if not of:
        return ""
    memory, loopback = of["memory"], of["loopback"]
    rows = [
        ["`np.max` over memory, one core", f"{shown(memory['max_gigabytes_per_second'], 1)} GB/s", ""],
        ["copy of memory, one core", f"{shown(memory['memcpy_gigabytes_per_second'], 1)} GB/s", ""],
        [
            "one loopback socket",
            f"{shown(loopback['megabytes_per_second'], 0)} MB/s",
            f"{shown(loopback['cpu_seconds_per_gb'])} (both sides)",
        ],
    ]
    for each in of["broker"]:
        for way in ("produce", "consume"):
            figures = each[way]
            used = [figures[f"{side}_cpu_seconds_per_gb"]["median"] for side in ("broker", "client")]
            rows.append(
                [
                    f"{way}, messages of {each['message_bytes'] / 1e6:.2f} MB ({each['frames_per_chunk']} frames)",
                    f"{shown(figures['megabytes_per_second'], 0)} MB/s",
                    f"{used[0]:.2f} broker + {used[1]:.2f} client",
                ]
            )
    return markdown(["what", "speed", "CPU s per GB of messages"], rows)


def codecs(results: Results) -> str:
    measured = results["benchmarks"].get("codecs") or []
    head = ["codec", "electrons", "noise", "frames a chunk", "ratio", "compress, CPU s/GB", "decompress, CPU s/GB"]
    rows = [
        [
            each["codec"],
            each["electrons"],
            f"{each['noise']:g}",
            each["frames_per_chunk"],
            f"{each['ratio']['median']:.2f}",
            shown(each["compress_cpu_seconds_per_gb"]),
            shown(each["decompress_cpu_seconds_per_gb"]),
        ]
        for each in measured
    ]
    return markdown(head, rows) if rows else ""


def feed(results: Results) -> str:
    live = results["benchmarks"].get("live")
    if not live:
        return ""
    rows = []
    for name, said in (("feed", "full frames"), ("suppressed feed", "zero-suppressed")):
        for each in live.get(name, {"tried": []})["tried"]:
            how = "complete" if each["complete"] else "frames lost"
            rows.append(
                [said, f"{each['rate']:.0f}", how, f"{each['frames_per_second']:.0f}", f"{each['latency_seconds']:.2f}"]
            )
    return markdown(["codec", "sent, frames/s", "scan", "counted, frames/s", "file after the last chunk, s"], rows)


def tail(results: Results) -> str:
    live = results["benchmarks"].get("live")
    if not live:
        return ""
    rows = []
    for series in live["tail"]["series"]:
        latency = series["latency_seconds"]
        figures = [f"{latency[name]:.2f}" for name in ("median", "p99", "max")]
        peaks = [f"{largest(series['peak_megabytes'], kind):.0f}" for kind in PROCESSES]
        rows.append([f"{series['edge']}²", series["scans"], series["incomplete"], *figures, *peaks])
    head = [
        "scan",
        "scans",
        "of them with frames lost",
        "median, s",
        "p99, s",
        "longest, s",
        *(f"{name}, MB" for name in PROCESSES.values()),
    ]
    return markdown(head, rows)


def largest(peaks: dict[str, float], kind: str) -> float:
    return max((value for name, value in peaks.items() if name.split("-")[0] == kind), default=0.0)


TABLES: dict[str, Callable[[Results], str]] = {
    "machine": machine,
    "targets": reached,
    "throughput": throughput,
    "ratios": ratios,
    "cpu": cpu,
    "stages": stages,
    "limits": limits,
    "codecs": codecs,
    "feed": feed,
    "tail": tail,
}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
