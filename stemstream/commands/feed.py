"""What ``simulate`` and ``send`` share: options of the live feed, and what is shown while frames are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from producers.feed_sender import SentScan

FEED_PANEL = "Live feed"

Rate = Annotated[
    float,
    typer.Option(
        metavar="F", min=0, max=1_000_000, help="Frames/s; 0: as fast as they are taken.", rich_help_panel=FEED_PANEL
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        metavar="T",
        min=1,
        max=64,
        help="Sender threads a sector: frame f goes through thread f mod T.",
        rich_help_panel=FEED_PANEL,
    ),
]
Ready = Annotated[
    list[str] | None,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="Ask there before each scan until the answer is `ready` (usually port 16000). May be given several times.",
        rich_help_panel=FEED_PANEL,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        metavar="S",
        min=0.1,
        max=3600,
        help="Seconds to wait for a receiver that is not there or takes no frames.",
        rich_help_panel=FEED_PANEL,
    ),
]


@contextmanager
def frames_bar(doing: str, total: int, unit: str = "frames") -> Iterator[Callable[[int], None]]:
    """Progress bar that appears with the first frames, so that a refused input leaves one line: the error."""
    bar = Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task(doing, total=total)

    def show(done: int) -> None:
        bar.start()
        bar.update(task, completed=done)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def print_sent(sent: SentScan) -> None:
    """Print how many frames were sent, and in which time."""
    frames = max(sent.sector_frames)
    late = f", up to {1000 * sent.late_s:.0f} ms late" if sent.late_s else ""
    typer.echo(
        f"scan {sent.scan_number}: {frames} frames ({sum(sent.sector_frames)} sector frames) sent "
        f"in {sent.seconds:.2f} s, {frames / max(sent.seconds, 1e-9):.0f} frames/s{late}"
    )
