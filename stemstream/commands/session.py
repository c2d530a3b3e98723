"""``stemstream session``: the name under which scans are filed."""

from __future__ import annotations

from typing import Annotated

import typer

from service.errors import InputError
from service.scan_log import ScanLog
from stemstream.commands.options import Bootstrap, check_name, embedded_bootstrap
from topics.scan_log import DEFAULT_SESSION, SessionEnded, SessionStarted

app = typer.Typer(help="The current session: scans that begin are filed under its name.", no_args_is_help=True)


@app.command()
def start(name: Annotated[str, typer.Argument(help="Name of the session.")], bootstrap: Bootstrap = None) -> None:
    """File the scans that begin from now on under this name. Nothing needs to be restarted."""
    record = SessionStarted(name=check_name("session", name))
    with ScanLog(bootstrap or embedded_bootstrap()) as log:
        log.append(record)
    typer.echo(f"session {name}")


@app.command()
def end(bootstrap: Bootstrap = None) -> None:
    """End the current session: scans that begin from now on are filed under 'default'."""
    with ScanLog(bootstrap or embedded_bootstrap()) as log:
        session = log.catch_up().session
        if session == DEFAULT_SESSION:
            raise InputError("no session is under way")
        log.append(SessionEnded(name=session))
    typer.echo(f"session {session} ended")


@app.command()
def show(bootstrap: Bootstrap = None) -> None:
    """Print the name of the current session."""
    with ScanLog(bootstrap or embedded_bootstrap()) as log:
        typer.echo(log.catch_up().session)
