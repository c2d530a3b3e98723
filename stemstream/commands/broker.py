"""``stemstream broker``: start, stop and look at the embedded Apache Kafka."""

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import TypeAdapter

from service.errors import StemstreamError
from service.home import home_dir
from service.process import print_error
from stemstream import broker

app = typer.Typer(
    help="The embedded Apache Kafka (KRaft) of this machine; its data are kept between starts.",
    no_args_is_help=True,
)


@app.command()
def start(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port for clients; a free one is used if it is taken.")
    ] = broker.DEFAULT_PORT,
) -> None:
    """Start the broker and wait until it answers. One that runs already is left alone."""
    with _errors_in_one_line():
        state = broker.start(home_dir(), port=port)
    typer.echo(_describe(state))


@app.command()
def stop() -> None:
    """Stop the broker. Topics and messages stay."""
    with _errors_in_one_line():
        was_running = broker.stop(home_dir())
    typer.echo("broker stopped" if was_running else "broker was not running")


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Say whether the broker runs, and where. Exit code 0 if it does, 1 if not."""
    state = broker.status(home_dir())
    if json:
        typer.echo(TypeAdapter(broker.BrokerState | None).dump_json(state).decode())
    else:
        typer.echo(_describe(state) if state else "broker not running")
    if state is None:
        raise typer.Exit(1)


def _describe(state: broker.BrokerState) -> str:
    return f"broker running at {state.bootstrap} (process {state.pid}, data {state.data_dir}, log {state.log_file})"


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except StemstreamError as error:
        print_error(str(error))
        raise typer.Exit(error.exit_code) from error
