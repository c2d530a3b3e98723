"""``stemstream plan``: what a camera needs, and when its files are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import InputError

_THERE = "What there is"


def _there(said: str) -> Any:  # noqa: ANN401  # so says typer
    return typer.Option(metavar="N", min=1, help=f"{said}. Default: as many as are needed.", rich_help_panel=_THERE)


def plan(
    *,
    frame_rate: Annotated[
        float, typer.Option(metavar="F", min=1, max=10_000_000, help="Frames/s of the camera while it scans.")
    ] = 87_000.0,
    scan: Annotated[str, typer.Option(metavar="WxH", help="Scan positions a row, and rows.")] = "1024x1024",
    electrons: Annotated[float, typer.Option(metavar="N", min=0, max=20_000, help="Electrons a frame.")] = 500.0,
    pause: Annotated[
        float, typer.Option(metavar="S", min=0, max=1_000_000, help="Seconds between a scan and the next.")
    ] = 60.0,
    link_gbit: Annotated[
        float, typer.Option(metavar="GBIT", min=0.001, max=100_000, help="Link to the remote site, Gbit/s.")
    ] = 100.0,
    rtt_ms: Annotated[float, typer.Option(metavar="MS", min=0, max=10_000, help="Round trip on it.")] = 20.0,
    replication: Annotated[int, typer.Option(metavar="R", min=1, max=10, help="Copies of every message.")] = 3,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt all connections.")] = False,
    buffer_gib: Annotated[
        float, typer.Option(metavar="GIB", min=0.01, max=1_000_000, help="--buffer-gib of each receiver, one a sector.")
    ] = 0.5,
    receiver_cores: Annotated[int | None, _there("Cores for receivers")] = None,
    brokers: Annotated[int | None, _there("Broker machines")] = None,
    counters: Annotated[int | None, _there("Counters, a core each")] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Results of make bench, or a table of costs. Default: the built-in one."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the queues over time, a PNG picture a placement.")
    ] = None,
) -> None:
    """Compute cores, brokers, disks, link and time to file from measured costs, and simulate the queues.

    For three placements and both codecs. Exit code 0: computed, whatever the answer; 2: wrong settings or costs.
    """
    from stemstream.plan import make_plan  # noqa: PLC0415  # what only this command needs
    from stemstream.plan_costs import read_costs  # noqa: PLC0415
    from stemstream.plan_result import Request  # noqa: PLC0415

    width, height = _scan_size(scan)
    request = Request(
        frame_rate=frame_rate,
        width=width,
        height=height,
        electrons=electrons,
        pause_s=pause,
        link_gbit=link_gbit,
        rtt_ms=rtt_ms,
        replication=replication,
        tls=tls,
        buffer_gib=buffer_gib,
        receiver_cores=receiver_cores,
        brokers=brokers,
        counters=counters,
    )
    made = make_plan(request, read_costs(costs))
    if pictures is not None:
        from stemstream.plan_pictures import draw_queues  # noqa: PLC0415  # slow to import

        made.pictures.extend(str(path) for path in draw_queues(made, pictures))
    if json:
        from pydantic import TypeAdapter  # noqa: PLC0415

        from stemstream.plan_result import Plan  # noqa: PLC0415

        typer.echo(TypeAdapter(Plan).dump_json(made).decode())
        return
    from rich.console import Console  # noqa: PLC0415

    from stemstream.plan_report import print_plan  # noqa: PLC0415

    print_plan(made, Console())
    for path in made.pictures:
        typer.echo(f"picture    {path}")


def _scan_size(text: str) -> tuple[int, int]:
    from topics.geometry import MAX_SCAN_EDGE  # noqa: PLC0415

    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    edges = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= edge <= MAX_SCAN_EDGE for edge in edges):
        raise InputError(f"--scan is {text!r}, expected WIDTHxHEIGHT, for example 1024x1024")
    return edges
