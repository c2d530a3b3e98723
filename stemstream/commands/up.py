"""``stemstream up``, ``down`` and ``status``: services that stay."""

from __future__ import annotations

import json as json_module
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors import InputError
from service.home import home_dir
from service.logs import configure_logs
from stemstream.commands.options import Bootstrap, Output, check_name
from stemstream.count_options import CountOptions, count_settings, keep_references, takes_count_options
from stemstream.suppress_options import KeepFull, ZeroSuppress, check_zero_suppression, suppression_variables

if TYPE_CHECKING:
    from stemstream.up_state import ServiceStatus, UpState


@takes_count_options
def up(
    *,
    output: Output,
    detach: Annotated[bool, typer.Option("--detach", help="Return when all services are ready; they go on.")] = False,
    counting: CountOptions,
    counters: Annotated[
        int, typer.Option(min=1, max=64, envvar="STEMSTREAM_COUNTERS", help="Number of counter processes.")
    ] = 1,
    zero_suppress: ZeroSuppress = None,
    keep_full: KeepFull = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", envvar="STEMSTREAM_SESSION", help="Session to begin. Default: the current one stays."
        ),
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="tcp://HOST:PORT",
            envvar="STEMSTREAM_FROM",
            help="Where sector 0 of the live feed is received, the next ones on the next ports. "
            "Default: tcp://127.0.0.1:6001.",
        ),
    ] = None,
    ready: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            envvar="STEMSTREAM_READY",
            help="Where senders may ask whether the receiver is ready. Default: tcp://127.0.0.1:16000.",
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    file: Annotated[
        Path | None, typer.Option(help="Another list of services than the docker-compose.yml of stemstream.")
    ] = None,
) -> None:
    """Start the services of docker-compose.yml as local processes, and restart what dies.

    Without --detach it stays in the foreground until Ctrl-C or SIGTERM, and then stops them. Exit code 0: asked to
    stop, or with --detach: all are ready; 2: wrong settings, or services are up already; 1: a fault.
    """
    from stemstream.compose import COMPOSE_FILE  # noqa: PLC0415  # the services start without what only up needs
    from stemstream.up import UpSettings, serve, serve_in_background  # noqa: PLC0415

    configure_logs("up", "warning")
    check_zero_suppression(zero_suppress, keep_full, counting, count_settings(counting)[0])
    counting = keep_references(counting, home_dir() / "references")
    variables = {
        "STEMSTREAM_OUTPUT": str(output.expanduser().absolute()),
        "STEMSTREAM_COUNTERS": str(counters),
        **counting.variables(),
        **suppression_variables(zero_suppress, keep_full),
    }
    for name, option, address in (("STEMSTREAM_FROM", "--from", feed), ("STEMSTREAM_READY", "--ready", ready)):
        if address is not None:
            variables[name] = _checked_address(option, address)
    settings = UpSettings(
        compose_file=(file or COMPOSE_FILE).absolute(),
        variables=variables,
        session=check_name("--session", session) if session else None,
        bootstrap=bootstrap,
    )
    if not detach:
        serve(settings, _say_when)
        return
    state = serve_in_background(settings, typer.echo)
    _print_table(state.services)
    if state.left_out:
        typer.echo(f"left out: {', '.join(state.left_out)}")


def down() -> None:
    """Stop the services: receivers first, the broker last. Their data stay."""
    from stemstream.up_state import down as stop  # noqa: PLC0415

    typer.echo("all services are stopped" if stop(home_dir(), typer.echo) else "nothing is up")


def status(
    *, json: Annotated[bool, typer.Option("--json", help="One JSON list instead of the table.")] = False
) -> None:
    """Say how the services are that `stemstream up` started. Exit code 0, also when nothing is up."""
    from stemstream.up_state import present_services, read_state  # noqa: PLC0415

    state = read_state(home_dir())
    services = present_services(state) if state else []
    if json:
        typer.echo(json_module.dumps([_to_json(service) for service in services]))
    elif state is None:
        typer.echo("nothing is up")
    else:
        _print_table(services)
        _print_safety(state, services)
    if state and state.supervisor() is None:
        typer.echo(f"the supervisor (process {state.pid}) is gone; `stemstream down` cleans up", err=True)


def _print_safety(state: UpState, services: list[ServiceStatus]) -> None:
    """Answer whether the next scan may begin, if there is a broker to ask."""
    if state.supervisor() is None or not state.started:
        return
    from service.scan_log import ScanLog  # noqa: PLC0415
    from stemstream import broker  # noqa: PLC0415
    from stemstream.safety import assess  # noqa: PLC0415

    embedded = broker.status(home_dir())
    with ScanLog(state.bootstrap) as log:
        typer.echo(assess(state, services, log.catch_up(), embedded.data_dir if embedded else None).describe())


def _checked_address(option: str, address: str) -> str:
    if not re.fullmatch(r"tcp://[^:/\s]+:\d{1,5}", address):
        raise InputError(f"{option} {address}: no address, expected tcp://HOST:PORT")
    return address


def _say_when(line: str) -> None:
    typer.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


def _to_json(service: ServiceStatus) -> dict[str, object]:
    return {
        "service": service.service,
        "index": service.index,
        "pid": service.pid,
        "state": service.state,
        "metrics_port": service.metrics_port,
        "error": service.error,
        "log_file": str(service.log_file),
    }


def _print_table(services: list[ServiceStatus]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("service", "process", "state", "metrics port", "log")
    for service in services:
        shown = (service.name, service.pid, service.state, service.metrics_port, service.log_file.name)
        table.add_row(*("-" if value is None else str(value) for value in shown))
    Console().print(table)
    for folder in dict.fromkeys(service.log_file.parent for service in services):
        typer.echo(f"logs in {folder}")
    for service in services:
        if service.error:
            typer.echo(f"{service.name}: {service.error}")
