"""``stemstream scans``: the catalogue, as the scan log has it."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.catalogue import Scan
from service.errors import InputError
from service.kafka import SINK_GROUP
from service.scan_log import ScanLog
from service.topic_admin import active_members
from stemstream.commands.options import Bootstrap, check_name, embedded_bootstrap
from topics.geometry import SECTORS
from topics.scan_log import LIVE, MAX_FIELDS, CloseRequested, ScanAnnotated

app = typer.Typer(help="The scans: what came, how it was counted, where the files are.", no_args_is_help=True)

ScanName = Annotated[
    str, typer.Argument(metavar="SCAN", help="Ordinal, session/number (the newest of that label) or 'last'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.command("list")
def list_scans(*, json: AsJson = False, bootstrap: Bootstrap = None) -> None:
    """List all scans, in the order in which they began."""
    with ScanLog(bootstrap or embedded_bootstrap()) as log:
        described = [describe(scan) for scan in log.catch_up().scans.values()]
    if json:
        typer.echo(json_module.dumps(described))
        return
    table = Table("ordinal", "scan", "started", "size", "state", "frames", "electrons", "file")
    for column in table.columns:
        column.overflow = "fold"
    for scan in described:
        live: dict[str, Any] = next((count for count in scan["counts"] if count["name"] == LIVE), {})
        frames = f"{live['frames_complete']}/{scan['frames_expected']}" if "frames_complete" in live else ""
        size = f"{scan['width']}x{scan['height']}" + (f"x{k}" if (k := scan["frames_per_position"]) > 1 else "")
        electrons = str(live.get("electrons", ""))
        files = "\n".join(scan["files"])
        table.add_row(
            str(scan["ordinal"]), scan["scan"], scan["started"], size, scan["state"], frames, electrons, files
        )
    Console(soft_wrap=True).print(table)


@app.command()
def show(scan: ScanName, *, json: AsJson = False, bootstrap: Bootstrap = None) -> None:
    """Show all that the log has on one scan."""
    with _log_and_scan(scan, bootstrap) as (_, found):
        described = describe(found)
    if json:
        typer.echo(json_module.dumps(described))
        return
    table = Table(show_header=False, box=None)
    for name, value in described.items():
        table.add_row(name, json_module.dumps(value, indent=1) if isinstance(value, dict | list) else str(value))
    Console(soft_wrap=True).print(table)


@app.command()
def annotate(
    scan: ScanName,
    fields: Annotated[list[str], typer.Argument(metavar="NAME=TEXT …", help="An empty text removes the field.")],
    *,
    bootstrap: Bootstrap = None,
) -> None:
    """Note something about a scan; it is put into the file too, also when that is finished."""
    pairs = dict(_pair(text) for text in fields)
    if len(pairs) > MAX_FIELDS:
        raise InputError(f"{len(pairs)} fields at a time; the limit is {MAX_FIELDS}")
    with _log_and_scan(scan, bootstrap) as (log, found):
        log.append(ScanAnnotated(ordinal=found.ordinal, fields=pairs))
        log.catch_up()
        if not active_members(log.bootstrap, (SINK_GROUP,)):  # otherwise the sink does it
            from consumers.sink import annotate_scan  # noqa: PLC0415  # only here

            annotate_scan(found)


@app.command()
def close(scan: ScanName, *, bootstrap: Bootstrap = None) -> None:
    """End a scan that is still open now; what is missing stays missing."""
    with _log_and_scan(scan, bootstrap) as (log, found):
        if found.stated <= set(found.ended):
            raise InputError(f"scan {found.ordinal} has ended already")
        log.append(CloseRequested(ordinal=found.ordinal))


def describe(scan: Scan) -> dict[str, Any]:
    """Fields of a scan for JSON."""
    return {
        "scan": f"{scan.session}/{scan.number}",
        "ordinal": scan.ordinal,
        "session": scan.session,
        "number": scan.number,
        "state": scan.state,
        "started": datetime.fromtimestamp(scan.started_ms / 1000, UTC).isoformat(timespec="seconds"),
        "width": scan.geometry.width,
        "height": scan.geometry.height,
        "frames_per_position": scan.geometry.frames_per_position,
        "frames_expected": scan.geometry.frames,
        "sectors": [_describe_sector(scan, sector) for sector in range(SECTORS)],
        "counts": [_describe_count(scan, name) for name in scan.counts],
        "files": scan.files,
        "annotations": scan.annotations,
    }


def _describe_sector(scan: Scan, sector: int) -> dict[str, Any]:
    ended = scan.ended.get(sector)
    state = "ended" if ended else "open" if sector in scan.stated else "absent"
    return {"sector": sector, "state": state} | ({"reason": ended.reason, **ended.ledger.model_dump()} if ended else {})


def _describe_count(scan: Scan, name: str) -> dict[str, Any]:
    count = scan.counts[name]
    described = {
        "name": name,
        "count": count.offset,
        "state": count.state,
        "settings": count.settings.model_dump(),
    }
    if count.found:
        described["thresholds"] = count.found.model_dump(exclude={"schema_id", "kind", "ordinal", "count"})
    if count.finished:
        account = count.finished.account.model_dump(exclude={"sectors"})
        return described | {"output": count.finished.output, **account}
    return described | ({"why": count.abandoned} if count.abandoned else {})


@contextmanager
def _log_and_scan(name: str, bootstrap: str | None) -> Iterator[tuple[ScanLog, Scan]]:
    with ScanLog(bootstrap or embedded_bootstrap()) as log:
        scan = log.catch_up().find(name)
        if scan is None:
            raise InputError(f"no scan {name}: see 'stemstream scans list'")
        yield log, scan


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"{text!r}: expected NAME=TEXT")
    if len(value) > 400:
        raise InputError(f"{name}: {len(value)} characters; the limit is 400")
    return check_name("field", name), value
