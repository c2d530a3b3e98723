"""``stemstream run``: from raw files to the counted file in one command."""

from __future__ import annotations

import json as json_module
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from service.logs import configure_logs
from stemstream.commands.options import (
    Bootstrap,
    Output,
    Session,
    check_name,
)
from stemstream.count_options import CountOptions, count_settings, takes_count_options
from stemstream.suppress_options import KeepFull, ZeroSuppress, check_zero_suppression, suppression_variables

if TYPE_CHECKING:
    from stemstream.run import Progress, RunSummary

INCOMPLETE_EXIT_CODE = 3
_SOURCES = {
    "given": "as given",
    "calibration": "found in this scan",
    "session": "found in an earlier scan of the session, as this one gives none",
}


@takes_count_options
def run(
    *,
    source: Annotated[str, typer.Argument(help="Folder or glob of raw .data files of one scan, or sim:WxH.")],
    output: Output,
    counting: CountOptions,
    counters: Annotated[
        int, typer.Option(min=1, max=64, envvar="STEMSTREAM_COUNTERS", help="Number of counter processes.")
    ] = 1,
    zero_suppress: ZeroSuppress = None,
    keep_full: KeepFull = None,
    session: Session = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also draw PNG pictures beside the file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the summary.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Stream one scan through Kafka, count its electrons and write its HDF5 file.

    Services that are up (stemstream up) are fed; settings that differ from theirs are refused. Otherwise it starts what
    is missing (the embedded broker, receivers, counters, sink) and stops what it started. The topics stay.
    Exit code 0: complete; 3: finished, but frames are missing; 2: wrong settings or input; 1: a fault.
    """
    from stemstream.pictures import write_pictures  # noqa: PLC0415  # the services start without what only run needs
    from stemstream.run import RunSettings, run_scan  # noqa: PLC0415
    from stemstream.threshold_picture import write_threshold_picture  # noqa: PLC0415

    configure_logs("run", "error")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: what was started is stopped
    count, _ = count_settings(counting)
    check_zero_suppression(zero_suppress, keep_full, counting, count)
    settings = RunSettings(
        source=source,
        output=output,
        count=count,
        variables=counting.variables() | suppression_variables(zero_suppress, keep_full),
        session=check_name("--session", session) if session else None,
        counters=counters,
        bootstrap=bootstrap,
    )
    with _bars() as (report, say):
        summary = run_scan(settings, report, say)
    drawn = write_threshold_picture(Path(summary.output))
    if pictures:
        drawn += write_pictures(Path(summary.output))
    if json:
        typer.echo(json_module.dumps(summary.to_json() | {"pictures": [str(path) for path in drawn]}))
    else:
        _print_summary(summary, drawn)
    if summary.verdict != "complete":
        raise typer.Exit(INCOMPLETE_EXIT_CODE)


@contextmanager
def _bars() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A bar a stage on stderr; yields what moves them and what says a line before they appear."""
    bars = Bars(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks = [bars.add_task(stage, total=None, visible=False) for stage in ("read", "counted", "written")]

    def report(progress: Progress) -> None:
        bars.start()
        for task, done in zip(tasks, (progress.read, progress.counted, progress.written), strict=True):
            bars.update(task, completed=done, total=progress.frames, visible=True)

    # Started with the first frames: of a refused input one line is left, the error.
    try:
        yield report, lambda text: bars.console.print(text, style="dim", highlight=False)
    finally:
        if bars.live.is_started:
            bars.stop()


def _print_summary(summary: RunSummary, drawn: list[Path]) -> None:
    source = _SOURCES[summary.threshold_source]
    frames = f"{summary.frames_complete} of {summary.frames_expected} complete, {summary.frames_incomplete} incomplete"
    for name, value in (
        ("scan", f"{summary.scan} (ordinal {summary.ordinal}), {summary.verdict}"),
        ("frames", frames),
        ("thresholds", f"background {summary.background:g}, x-ray {summary.xray:g} counts, {source}"),
        ("electrons", f"{summary.electrons} ({summary.electrons / max(summary.frames_complete, 1):.1f} a frame)"),
        ("raw data", f"{summary.raw_bytes / 1e9:.3f} GB, compressed {summary.compression_ratio:.2f} times"),
        ("speed", f"{summary.megabytes_per_second:.0f} MB/s, {summary.frames_per_second:.0f} frames/s"),
        ("time", f"{summary.seconds:.2f} s, file {summary.finish_latency_seconds:.2f} s after the last frame"),
        ("file", summary.output),
        *(("picture", str(path)) for path in drawn),
    ):
        typer.echo(f"{name:<10} {value}")
