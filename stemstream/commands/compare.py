"""``stemstream compare``: how two counted files differ."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

DIFFER_EXIT_CODE = 1


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.h5")],
    second: Annotated[Path, typer.Argument(metavar="B.h5")],
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Tell frame by frame how two counted files differ, also files that stempy wrote.

    Exit code 0: the same electrons in all frames that both have; 1: not; 2: they cannot be compared.
    """
    from service.counted_file import read_events  # noqa: PLC0415  # only here
    from stemstream.comparison import compare_events  # noqa: PLC0415

    result = compare_events(read_events(first), read_events(second))
    if json:
        typer.echo(json_module.dumps(result.to_json()))
    else:
        table = Table(show_header=False, box=None)
        for name, value in result.to_json().items():
            if name != "differing":
                table.add_row(name.replace("_", " "), str(value))
        console = Console()
        console.print(table)
        for row, in_first, in_second in result.differing:
            console.print(f"frame {row}: {in_first} electrons only in the first, {in_second} only in the second")
    if result.frames_differing:
        raise typer.Exit(DIFFER_EXIT_CODE)
