"""``stemstream simulate``: the detector without a microscope."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producers.raw_writer import write_raw_files
from producers.simulator import MAX_ELECTRONS, Simulation
from service.process import print_error


def simulate(
    *,
    scan: Annotated[str, typer.Option(metavar="WxH", help="Scan positions a row, and rows.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the raw files; made if missing.")],
    frames_per_position: Annotated[int, typer.Option(metavar="K", min=1, help="Frames a scan position.")] = 1,
    electrons: Annotated[
        float, typer.Option(metavar="N", min=0, max=MAX_ELECTRONS, help="Mean number of electrons a frame.")
    ] = 300.0,
    noise: Annotated[
        float, typer.Option(metavar="SIGMA", min=0, max=1000, help="Standard deviation of the read noise, counts.")
    ] = 5.0,
    files_per_module: Annotated[
        int, typer.Option(metavar="M", min=1, max=99, help="Raw files a module: frame f is in file f mod M.")
    ] = 1,
    out_of_order: Annotated[
        int, typer.Option(metavar="D", min=0, max=1000, help="Records are up to D places out of order.")
    ] = 0,
    scan_number: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="The camera's scan number.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="The same seed gives the same frames.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write where every electron hit (.npz).")
    ] = None,
) -> None:
    """Simulate a 4D-STEM scan and write the detector's raw files."""
    try:
        width, height = _scan_size(scan)
        simulation = Simulation(
            width,
            height,
            frames_per_position=frames_per_position,
            electrons=electrons,
            noise_counts=noise,
            seed=seed,
        )
        with _frames_bar(simulation.frame_count) as progress:
            paths = write_raw_files(
                simulation,
                output,
                scan_number=scan_number,
                files_per_module=files_per_module,
                out_of_order=out_of_order,
                truth=truth,
                progress=progress,
            )
    except (ValueError, OSError) as error:
        print_error(_one_line(error))
        raise typer.Exit(2) from error
    typer.echo(f"{simulation.frame_count} frames in {len(paths)} files in {output}", err=True)


def _scan_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None:
        raise ValueError(f"--scan is {text!r}, expected WIDTHxHEIGHT, for example 64x64")
    return int(match[1]), int(match[2])


@contextmanager
def _frames_bar(frames: int) -> Iterator[Callable[[int], None]]:
    """Progress bar that appears with the first frames, so that a refused input leaves one line: the error."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task("simulated", total=frames)

    def show(done: int) -> None:
        bar.start()
        bar.update(task, completed=done)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
