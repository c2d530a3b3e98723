"""``stemstream send``: raw files sent as the detector would."""

from __future__ import annotations

from typing import Annotated

import typer

from producers.feed_format import FIRST_PORT, sector_addresses
from service.errors import InputError
from stemstream.commands.feed import Rate, Ready, Threads, Wait, frames_bar, print_sent
from topics.geometry import SECTORS


def send(
    *,
    files: Annotated[list[str], typer.Argument(metavar="FILES", help="Raw files of one scan: folder, glob or names.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Receivers: an address a sector, or that of sector 0, and the next ports. "
            f"Default: tcp://127.0.0.1:{FIRST_PORT}.",
        ),
    ] = None,
    rate: Rate = 0.0,
    threads: Threads = 4,
    scan_number: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Instead of the scan number in the files.")
    ] = None,
    ready: Ready = None,
    wait: Wait = 30.0,
) -> None:
    """Send the raw files of a scan to the receivers, as the detector's live feed.

    Exit code 0: all is sent; 2: wrong settings or input; 1: a receiver is not there, or stopped.
    """
    from producers.feed_sender import FeedSender, SenderSettings  # noqa: PLC0415  # ZeroMQ only where it is needed
    from producers.raw_feed import raw_scan  # noqa: PLC0415
    from producers.raw_files import open_raw_files  # noqa: PLC0415

    # --to takes one word; those after it come as arguments.
    more = [word for word in files if word.startswith("tcp://")]
    named = [word for word in files if not word.startswith("tcp://")]
    if more and not to:
        raise InputError(f"{more[0]}: say where to send with --to")
    if not named:
        raise InputError("no raw files are named: give a folder, a glob or names")
    addresses = sector_addresses([*(to or [f"tcp://127.0.0.1:{FIRST_PORT}"]), *more], list(range(SECTORS)))
    raw = open_raw_files(named)
    with FeedSender(SenderSettings(addresses, threads, rate, tuple(ready or ()), wait)) as sender:
        sender.connect()
        with frames_bar("sent", raw.records, "sector frames") as progress:
            sent = sender.send(raw_scan(raw, scan_number), progress)
    print_sent(sent)
