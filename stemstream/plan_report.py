"""A plan for people: a table a placement, what does not fit, and what the numbers rest on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stemstream.plan_costs import CODECS
from stemstream.plan_result import PLACEMENTS, Case, Plan, Request

_TIMES = "\N{MULTIPLICATION SIGN}"


def print_plan(plan: Plan, console: Console) -> None:
    """Print all of it."""
    request = plan.request
    copies = "1 copy" if request.replication == 1 else f"{request.replication} copies"
    _print_list(
        console,
        [
            (
                "camera",
                f"{request.frame_rate:,.0f} frames/s, {plan.gb_s:.1f} GB/s; {request.electrons:g} electrons a frame",
            ),
            (
                "scans",
                f"{request.width} {_TIMES} {request.height} positions, {plan.scan_gb:,.1f} GB in "
                f"{_seconds(plan.burst_s)}, one every {_seconds(plan.period_s)}",
            ),
            ("link", f"{request.link_gbit:g} Gbit/s, {request.rtt_ms:g} ms a round trip"),
            ("messages", f"{copies} of each, {'TLS on all connections' if request.tls else 'no TLS'}"),
        ],
    )
    for name, cases in groupby(plan.cases, key=lambda case: case.placement):
        where = next(placement.where for placement in PLACEMENTS if placement.name == name)
        console.print()
        console.print(f"[bold]{name}[/]: {where}", highlight=False)
        console.print(_table(request, list(cases)))
    _print_list(console, _warnings(plan.cases))
    console.print()
    _print_list(console, _basis(plan))


def _table(request: Request, cases: list[Case]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for case in cases:
        table.add_column(_codec_name(case.codec), justify="right")
    for rows in zip(*(_rows(request, case) for case in cases), strict=True):
        table.add_row(rows[0][0], *(Text(value, style) for _, value, style in rows))
    return table


def _rows(request: Request, case: Case) -> Iterator[tuple[str, str, str]]:
    """Name, value, style."""
    brokers, counters, link, kept = case.brokers, case.counters, case.link, case.retention
    found, simulated = case.closed_form, case.simulated
    yield "receiver cores", _there(case.receivers.cores, case.receivers.needed), ""
    yield "broker machines", f"{_there(brokers.machines, brokers.needed)}, for {brokers.decided_by}", ""
    yield "  busy cores of each", f"{brokers.busy_cores / brokers.machines:.1f}", ""
    yield "  network of each, in and out", f"{brokers.network_gbit:.1f} Gbit/s", ""
    yield "  written by each", f"{brokers.disk_gb_s:.2f} GB/s", ""
    yield f"  chunks of {kept.chunks_hours:g} h, all copies", f"{kept.chunks_tb:,.1f} TB", ""
    yield "counter cores", _there(counters.cores, counters.needed), ""
    yield "  at least, to be done by the next scan", str(counters.least), ""
    yield "partitions", str(counters.partitions), ""
    yield "busy cores of the sink", f"{case.sink.cores:.2f}", ""
    yield "CPU-seconds a raw GB", f"{case.load.total_s:.2f}", ""
    if request.tls:
        yield "  of that for TLS (assumed)", f"{case.load.tls_s:.2f}", ""
    yield "over the link, a scan", f"{link.crossing_gb:,.2f} GB", ""
    yield "  link busy", f"{found.link_utilisation:.1%}", "" if found.link_utilisation <= 1 else "red"
    yield "file after the last frame", _seconds(found.time_to_file_s), "bold"
    waits_s = found.time_to_file_s - found.tail.total_s
    yield "  waiting for a station", "none" if not waits_s else f"{found.slowest} {_seconds(waits_s)}", ""
    tail = f"{found.tail.measured_s:.1f} + {found.tail.round_trips_s:.1f} + {found.tail.fsync_s:.1f} s"
    yield "  measured tail + round trips + fsync", tail, ""
    yield "  simulated, first and last scan", " ".join(_seconds(simulated.time_to_file_s[n]) for n in (0, -1)), ""
    state = "steady" if found.stable else f"{_seconds(found.behind_s)} later each"
    yield "scan after scan", state, "" if found.stable else "red"
    lost = f"{found.lost_frames:,}" if found.lost_frames else "none"
    yield "frames lost, a scan", lost, "red" if found.lost_frames else ""


def _there(there: int, needed: int) -> str:
    return str(there) if there >= needed else f"{there} of {needed}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 1000 else f"{seconds:,.0f} s"


def _codec_name(codec: str) -> str:
    return "full chunks" if codec == "full" else codec


def _warnings(cases: list[Case]) -> Iterator[tuple[str, str]]:
    """Where, and what. What holds for all placements is said once."""
    said: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for text in case.warnings:
            said.setdefault((case.codec, text), []).append(case.placement)
    for (codec, text), placements in said.items():
        everywhere = len(placements) == len(PLACEMENTS)
        alike = everywhere and all(said.get((other, text)) == placements for other in CODECS)
        if alike and codec != CODECS[0]:
            continue
        where = [] if everywhere else [", ".join(placements)]
        yield " | ".join([*where, *([] if alike else [_codec_name(codec)])]) or "all", text


def _basis(plan: Plan) -> Iterator[tuple[str, str]]:
    measured, assumed = plan.costs.measured, plan.costs.assumed
    yield "measured", f"{measured.date}, commit {measured.commit}, {measured.machine}: {measured.how}"
    for name in type(assumed).model_fields:
        if plan.request.tls or not name.startswith("tls"):
            assumption = getattr(assumed, name)
            yield "assumed", f"{name} {assumption.value:g}: {assumption.reason}"


def _print_list(console: Console, entries: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in entries:
        table.add_row(Text(name, "bold"), Text(text))
    console.print(table)
