"""``stemstream dark``: a dark reference from the raw files of a scan without beam."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from service.errors import InputError
from stemstream.commands.feed import frames_bar


def dark(
    source: Annotated[str, typer.Argument(help="Folder or glob of raw .data files of one scan without beam.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.npy", help="File for the dark reference.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Average raw frames into a dark reference, for --dark.

    Frames that lack a sector are left out. Exit code 0: written; 2: wrong input, or no frame is complete; 1: a fault.
    """
    from producers.raw_files import open_raw_files  # noqa: PLC0415  # the services start without what only this needs
    from stemstream.dark import check_output, complete_frames, mean_frame, write  # noqa: PLC0415
    from topics.reference import sha256_of  # noqa: PLC0415

    check_output(output)
    files = open_raw_files(source)
    complete, left_out = complete_frames(files)
    if not len(complete):
        raise InputError(f"{source}: none of {left_out} frames has all four sectors: nothing to average")
    with frames_bar("averaged", len(complete)) as progress:
        pixels = mean_frame(files, complete, progress)
    write(output, pixels)
    mean, least, most = (float(value) for value in (pixels.mean(dtype="f8"), pixels.min(), pixels.max()))
    sha256 = sha256_of(pixels)
    if json:
        counts = {"frames": len(complete), "frames_left_out": left_out}
        values = {"mean": mean, "min": least, "max": most, "sha256": sha256, "output": str(output.resolve())}
        typer.echo(json_module.dumps(counts | values))
        return
    for name, value in (
        ("frames", f"{len(complete)} averaged, {left_out} left out as incomplete"),
        ("pixels", f"mean {mean:.3f}, min {least:.3f}, max {most:.3f} counts"),
        ("SHA-256", sha256),
        ("file", str(output.resolve())),
    ):
        typer.echo(f"{name:<10} {value}")
