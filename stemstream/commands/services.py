"""The services, one process each: ``stemstream receive``, ``count`` and ``sink``."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from service.errors import InputError
from stemstream.commands.options import (
    Background,
    Bootstrap,
    Engine,
    LogLevel,
    MetricsPort,
    Output,
    Session,
    Xray,
    check_name,
    common_settings,
    count_settings,
)
from topics.geometry import SECTORS


def receive(
    *,
    sector: Annotated[
        list[int],
        typer.Option(metavar="N [N …]", min=0, max=SECTORS - 1, help="Sectors to receive."),
    ],
    source: Annotated[list[str], typer.Option("--from", metavar="FILES", help="Folder, glob or files of raw data.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[N …] [FILES …]", hidden=True)] = None,
    session: Session = "default",
    feed: Annotated[
        str, typer.Option(help="Names this run of the source: a restart with the same name resumes its scan.")
    ] = "",
    bootstrap: Bootstrap = None,
    metrics_port: MetricsPort = 0,
    log_level: LogLevel = "info",
) -> None:
    """Publish sectors of the detector, here from raw files, as compressed chunks."""
    from producers.receiver import ReceiverSettings, run_receiver  # noqa: PLC0415  # each service imports only its own

    # What follows --sector N or --from FILE without an option of its own: numbers are sectors, the rest files.
    sectors = [*sector, *(int(word) for word in more or [] if word.isdecimal())]
    if any(number >= SECTORS for number in sectors):
        raise InputError(f"--sector {max(sectors)}: the sectors are 0 to {SECTORS - 1}")
    settings = ReceiverSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        sectors=tuple(sorted(set(sectors))),
        source=[*source, *(word for word in more or [] if not word.isdecimal())],
        session=check_name("--session", session),
        feed=feed or f"receive-{uuid.uuid4()}",
    )
    raise typer.Exit(run_receiver(settings))


def count(
    *,
    background: Background = None,
    xray: Xray = None,
    engine: Engine = "fast",
    slot: Annotated[
        str, typer.Option(envvar="STEMSTREAM_SLOT", help="Names the counter's transactions; one slot, one counter.")
    ] = "",
    bootstrap: Bootstrap = None,
    metrics_port: MetricsPort = 0,
    log_level: LogLevel = "info",
) -> None:
    """Rejoin the sectors and count the electrons, as a member of the group of counters."""
    from consumers.counter import CounterSettings, run_counter  # noqa: PLC0415

    settings = CounterSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        count=count_settings(background, xray, engine),
        slot=check_name("--slot", slot) if slot else "",
    )
    raise typer.Exit(run_counter(settings))


def sink(
    *,
    output: Output,
    slot: Annotated[
        str, typer.Option(envvar="STEMSTREAM_SLOT", help="Names the sink's partial files; one slot, one sink.")
    ] = "0",
    bootstrap: Bootstrap = None,
    metrics_port: MetricsPort = 0,
    log_level: LogLevel = "info",
) -> None:
    """Write the events of each scan into one HDF5 file."""
    from consumers.sink import SinkSettings, run_sink  # noqa: PLC0415

    if str(output).strip() == "":
        raise InputError("--output is empty: name a folder")
    settings = SinkSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        output=Path(output),
        slot=f"sink-{check_name('--slot', slot)}",
    )
    raise typer.Exit(run_sink(settings))
