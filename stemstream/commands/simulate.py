"""``stemstream simulate``: the detector without a microscope, as raw files or as the live feed."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from producers.feed_format import sector_addresses
from producers.raw_writer import write_raw_files
from producers.scan_shape import SizeFields
from producers.simulator import MAX_ELECTRONS, Simulation
from service.process import print_error
from stemstream.commands.feed import FEED_PANEL, Rate, Ready, Threads, Wait, frames_bar, print_sent
from topics.geometry import SECTORS

if TYPE_CHECKING:
    from producers.feed_sender import SenderSettings
    from producers.simulated_feed import Faults

MAX_SCAN_NUMBER = 2**32 - 1
_LATE_START_S = 0.01

# Options that mean nothing for the other kind of output.
_FILES_ONLY = ("files_per_module",)
_FEED_ONLY = (
    *("rate", "threads", "ready", "wait", "scans", "interval", "size_fields", "pool"),
    *("lose", "lose_sector", "late_sector", "repeat", "wrong_module", "abort_at"),
)

_FAULTS_PANEL = "Faults of the live feed"


def _part(said: str) -> Any:  # noqa: ANN401  # so says typer
    return typer.Option(metavar="PART", min=0, max=1, help=said, rich_help_panel=_FAULTS_PANEL)


def simulate(
    ctx: typer.Context,
    *,
    scan: Annotated[str, typer.Option(metavar="WxH", help="Scan positions a row, and rows.")],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the raw files; made if missing.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Receivers of the live feed: an address a sector, or that of sector 0, and the next ports.",
        ),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS …]", hidden=True)] = None,
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
        int, typer.Option(metavar="D", min=0, max=1000, help="Sector frames are up to D places out of order.")
    ] = 0,
    scan_number: Annotated[
        int, typer.Option(metavar="N", min=0, max=MAX_SCAN_NUMBER, help="The camera's scan number.")
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="The same seed gives the same frames and faults.")] = 0,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write where every electron hit, and what was not sent (.npz)."),
    ] = None,
    rate: Rate = 0.0,
    threads: Threads = 4,
    ready: Ready = None,
    wait: Wait = 30.0,
    scans: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=1_000_000,
            help="Scans in a row, with consecutive numbers and seeds.",
            rich_help_panel=FEED_PANEL,
        ),
    ] = 1,
    interval: Annotated[
        float,
        typer.Option(
            metavar="S",
            min=0,
            max=86_400,
            help="Seconds from the start of a scan to that of the next.",
            rich_help_panel=FEED_PANEL,
        ),
    ] = 0.0,
    size_fields: Annotated[
        SizeFields,
        typer.Option(help="What the header's two size fields say (not auto).", rich_help_panel=FEED_PANEL),
    ] = SizeFields.NUMBER,
    pool: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Make only N different frames and use them in turn: for rates that cannot be simulated.",
            rich_help_panel=FEED_PANEL,
        ),
    ] = None,
    lose: Annotated[float, _part("Part of the sector frames that is lost, for example 0.01.")] = 0.0,
    lose_sector: Annotated[
        list[int] | None,
        typer.Option(
            metavar="M",
            min=0,
            max=SECTORS - 1,
            help="A sector that sends nothing. May be given several times.",
            rich_help_panel=_FAULTS_PANEL,
        ),
    ] = None,
    late_sector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M:S",
            help="A sector that is S seconds behind. May be given several times.",
            rich_help_panel=_FAULTS_PANEL,
        ),
    ] = None,
    repeat: Annotated[float, _part("Part of the sector frames that is sent twice.")] = 0.0,
    wrong_module: Annotated[
        float, _part("Part of the sector frames that is sent under the next module's number.")
    ] = 0.0,
    abort_at: Annotated[float, _part("Part of the frames after which the scan stops.")] = 1.0,
) -> None:
    """Simulate a 4D-STEM scan: write the detector's raw files (--output), or send its live feed (--to)."""
    try:
        width, height = _scan_size(scan)
        _check_options(ctx, files=output is not None, feed=bool(to))
        simulation = Simulation(
            width,
            height,
            frames_per_position=frames_per_position,
            electrons=electrons,
            noise_counts=noise,
            seed=seed,
        )
        if output is not None:
            _write_files(
                simulation,
                output,
                scan_number=scan_number,
                files_per_module=files_per_module,
                out_of_order=out_of_order,
                truth=truth,
            )
            return
        from producers.feed_sender import SenderSettings  # noqa: PLC0415  # ZeroMQ only where it is needed
        from producers.simulated_feed import Faults  # noqa: PLC0415

        faults = Faults(
            lose=lose,
            lose_sectors=tuple(lose_sector or ()),
            wrong_module=wrong_module,
            repeat=repeat,
            abort_at=abort_at,
            late_s=_late_s(late_sector or []),
        )
        addresses = sector_addresses([*(to or []), *(more or [])], list(range(SECTORS)))
        served = {sector: address for sector, address in addresses.items() if sector not in faults.lose_sectors}
        settings = SenderSettings(served, threads, rate, tuple(ready or ()), wait)
        series = _Series(scan_number, scans, interval, out_of_order, size_fields, pool, truth)
        _send_scans(simulation, settings, faults, series)
    except (ValueError, OSError) as error:
        print_error(_one_line(error))
        raise typer.Exit(2) from error


@dataclass(frozen=True, slots=True)
class _Series:
    """The scans to send, one after the other."""

    first_number: int
    scans: int
    interval_s: float
    out_of_order: int
    size_fields: SizeFields
    pool: int | None
    truth: Path | None

    def __post_init__(self) -> None:
        if self.first_number + self.scans - 1 > MAX_SCAN_NUMBER:
            raise ValueError(f"--scan-number {self.first_number}: the last of {self.scans} scans is past 32 bits")
        if self.size_fields is SizeFields.AUTO:
            raise ValueError("--size-fields auto is for receivers: choose number, minus-one or flyback")

    def truth_files(self) -> list[Path | None]:
        """Truth file of each scan; with several scans its number is in the name. None of them may be there."""
        if self.truth is None:
            return [None] * self.scans
        numbers = range(self.first_number, self.first_number + self.scans)
        files = [self.truth.with_stem(f"{self.truth.stem}_{number}") for number in numbers]
        files = files if self.scans > 1 else [self.truth]
        for file in files:
            if file.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file))
        return list(files)


def _write_files(
    simulation: Simulation,
    output: Path,
    *,
    scan_number: int,
    files_per_module: int,
    out_of_order: int,
    truth: Path | None,
) -> None:
    with frames_bar("simulated", simulation.frame_count) as progress:
        paths = write_raw_files(
            simulation,
            output,
            scan_number=scan_number,
            files_per_module=files_per_module,
            out_of_order=out_of_order,
            truth=truth,
            progress=progress,
        )
    typer.echo(f"{simulation.frame_count} frames in {len(paths)} files in {output}", err=True)


def _send_scans(simulation: Simulation, settings: SenderSettings, faults: Faults, series: _Series) -> None:
    """Send the scans, each at its time; frames are made before that, so that it does not disturb the sending."""
    from producers.feed_sender import FeedSender  # noqa: PLC0415
    from producers.frames_ahead import FramesAhead  # noqa: PLC0415
    from producers.simulated_feed import plan_scan, simulated_scan, write_feed_truth  # noqa: PLC0415

    truth_files = series.truth_files()
    with FeedSender(settings) as sender:
        sender.connect()
        start = None
        for index, truth_file in enumerate(truth_files):
            one = replace(simulation, seed=simulation.seed + index)
            plan = plan_scan(one.frame_count, faults, out_of_order=series.out_of_order, seed=one.seed)
            with _new_file(truth_file) as truth, FramesAhead(one, plan.frames, pool=series.pool) as ahead:
                with frames_bar("simulated", ahead.made) as progress:
                    ahead.wait_until_ahead(progress)
                sender.wait_until_ready()
                start = time.monotonic() if start is None else start
                number = series.first_number + index
                _wait_for_start(number, start + index * series.interval_s if series.interval_s else None)
                scan = simulated_scan(
                    one, plan, ahead, scan_number=number, late_s=faults.late_s, size_fields=series.size_fields
                )
                with frames_bar("sent", plan.sector_frames, "sector frames") as progress:
                    sent = sender.send(scan, progress)
                if truth is not None:
                    write_feed_truth(truth, one, plan, ahead)
            print_sent(sent)


def _wait_for_start(scan_number: int, due: float | None) -> None:
    """Wait until a scan is due; None: at once."""
    if due is None:
        return
    late_s = time.monotonic() - due
    if late_s > _LATE_START_S:
        typer.echo(f"scan {scan_number} starts {late_s:.2f} s late: the interval is too short for it", err=True)
    time.sleep(max(0.0, -late_s))


@contextmanager
def _new_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """Open a new file, which is removed again after an error; None for no file."""
    if path is None:
        yield None
        return
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _check_options(ctx: typer.Context, *, files: bool, feed: bool) -> None:
    """Refuse options that do not go together, rather than pass over them."""
    if files == feed:
        raise ValueError("give either --output DIR for raw files or --to tcp://HOST:PORT for the live feed")
    for name in _FEED_ONLY if files else _FILES_ONLY:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')} goes with {'--to' if files else '--output'} only")


def _late_s(texts: list[str]) -> tuple[float, ...]:
    late_s = [0.0] * SECTORS
    for text in texts:
        match = re.fullmatch(r"(\d+):(\d+(?:\.\d+)?)", text)
        if match is None or int(match[1]) >= SECTORS:
            raise ValueError(f"--late-sector is {text!r}, expected SECTOR:SECONDS, for example 3:0.5")
        late_s[int(match[1])] = float(match[2])
    return tuple(late_s)


def _scan_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None:
        raise ValueError(f"--scan is {text!r}, expected WIDTHxHEIGHT, for example 64x64")
    return int(match[1]), int(match[2])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
