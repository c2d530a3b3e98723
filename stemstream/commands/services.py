"""The services, one process each: ``stemstream receive``, ``count`` and ``sink``."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from producers.feed_format import sector_addresses
from producers.scan_shape import SizeFields
from service.errors import InputError
from stemstream.commands.options import (
    Bootstrap,
    LogLevel,
    MetricsPort,
    Output,
    check_name,
    common_settings,
)
from stemstream.count_options import CountOptions, count_settings, takes_count_options
from stemstream.suppress_options import KeepFull, ZeroSuppress, suppression_settings
from topics.geometry import SECTORS


def receive(
    *,
    sector: Annotated[
        list[int],
        typer.Option(metavar="N [N …]", min=0, max=SECTORS - 1, help="Sectors to receive."),
    ],
    source: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="tcp://HOST:PORT | FILES",
            help="Where to bind for the live feed: an address a sector, or one, and the next ports for the next "
            "sectors. Or raw files of one scan: folder, glob or names.",
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="[N …] [FILES …]", hidden=True)] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="The raw files are still being written: follow a folder, scan after scan."),
    ] = False,
    ready: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            envvar="STEMSTREAM_READY",
            help="Where senders may ask whether the live receiver is ready (usually port 16000).",
        ),
    ] = None,
    tee: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            envvar="STEMSTREAM_TEE",
            help="Pass the live feed on, to the pipeline used so far: an address a sector, or one and the next ports.",
        ),
    ] = None,
    buffer_gib: Annotated[
        float,
        typer.Option(envvar="STEMSTREAM_BUFFER_GIB", min=0.01, help="Live frames held in memory before some are lost."),
    ] = 0.5,
    scan_size_fields: Annotated[
        SizeFields,
        typer.Option(envvar="STEMSTREAM_SCAN_SIZE_FIELDS", help="What the live feed's two size fields say."),
    ] = SizeFields.AUTO,
    drop_flyback: Annotated[
        bool, typer.Option("--drop-flyback", envvar="STEMSTREAM_DROP_FLYBACK", help="Leave out the last column.")
    ] = False,
    idle_timeout: Annotated[
        float,
        typer.Option(envvar="STEMSTREAM_IDLE_TIMEOUT", min=0.1, help="Seconds without a frame that end a live scan."),
    ] = 10.0,
    session: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Session to file the scans under. Default: the one that is current."),
    ] = None,
    zero_suppress: ZeroSuppress = None,
    keep_full: KeepFull = None,
    dark: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="STEMSTREAM_DARK", help="Dark reference of the counts, for --zero-suppress."
        ),
    ] = None,
    gain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="STEMSTREAM_GAIN", help="Gain reference of the counts, for --zero-suppress."
        ),
    ] = None,
    feed: Annotated[
        str, typer.Option(help="Names this run of raw files: a restart with the same name resumes its scan.")
    ] = "",
    bootstrap: Bootstrap = None,
    metrics_port: MetricsPort = 0,
    log_level: LogLevel = "info",
) -> None:
    """Publish sectors of the detector, from its live feed or from raw files, as compressed chunks."""
    from producers.live_sector import LiveOptions  # noqa: PLC0415  # each service imports only its own
    from producers.receiver import LIVE_FEED, ReceiverSettings, run_receiver  # noqa: PLC0415

    # What follows --sector N or --from FILE without an option of its own: numbers are sectors, the rest sources.
    sectors = list(dict.fromkeys([*sector, *(int(word) for word in more or [] if word.isdecimal())]))
    if any(number >= SECTORS for number in sectors):
        raise InputError(f"--sector {max(sectors)}: the sectors are 0 to {SECTORS - 1}")
    sources = [*source, *(word for word in more or [] if not word.isdecimal())]
    addresses = sector_addresses(sources, sectors) if sources[0].startswith("tcp://") else {}
    if follow and (addresses or len(sources) > 1):
        raise InputError("--follow goes with one folder of raw files: --from DIR --follow")
    settings = ReceiverSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        sectors=tuple(sorted(sectors)),
        source=sources,
        session=check_name("--session", session) if session else None,
        feed=LIVE_FEED if addresses or follow else feed or f"receive-{uuid.uuid4()}",
        addresses=addresses,
        follow=Path(sources[0]) if follow else None,
        ready_address=ready,
        tee=sector_addresses(tee, sectors) if tee else {},
        buffer_bytes=int(buffer_gib * 2**30),
        suppression=suppression_settings(zero_suppress, keep_full, dark, gain),
        live=LiveOptions(size_fields=scan_size_fields, drop_flyback=drop_flyback, idle_timeout_s=idle_timeout),
    )
    raise typer.Exit(run_receiver(settings))


@takes_count_options
def count(
    *,
    counting: CountOptions,
    slot: Annotated[
        str, typer.Option(envvar="STEMSTREAM_SLOT", help="Names the counter's transactions; one slot, one counter.")
    ] = "",
    bootstrap: Bootstrap = None,
    metrics_port: MetricsPort = 0,
    log_level: LogLevel = "info",
) -> None:
    """Rejoin the sectors and count the electrons, as a member of the group of counters."""
    from consumers.counter import CounterSettings, run_counter  # noqa: PLC0415

    wanted, references = count_settings(counting)
    settings = CounterSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        count=wanted,
        references=references,
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

    settings = SinkSettings(
        common=common_settings(bootstrap, metrics_port, log_level),
        output=output,
        slot=f"sink-{check_name('--slot', slot)}",
    )
    raise typer.Exit(run_sink(settings))
