"""``stemstream``: the command line. Each command group has a file in stemstream/commands."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from typer._click.exceptions import ClickException  # typer brings its own click, without another name for this

from service.errors import FaultError, StemstreamError
from service.kafka import KafkaException
from service.process import print_error
from service.version import VERSION
from stemstream.commands import broker, compare, dark, plan, run, scans, send, services, session, simulate, topics, up

INTERRUPTED_EXIT_CODE = 130  # as a shell has it for Ctrl-C

app = typer.Typer(
    name="stemstream",
    help="Event streaming for the 4D Camera: electrons are counted while the scan runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.command("simulate")(simulate.simulate)
app.command("send")(send.send)
app.command("receive")(services.receive)
app.command("count")(services.count)
app.command("sink")(services.sink)
app.command("compare")(compare.compare)
app.command("dark")(dark.dark)
app.command("plan")(plan.plan)
app.add_typer(session.app, name="session")
app.add_typer(scans.app, name="scans")
app.add_typer(topics.app, name="topics")
app.add_typer(broker.app, name="broker")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stemstream {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: an expected error is one line on stderr and an exit code, never a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(error.exit_code)
        _exit_with(f"{error.format_message()} (--help says more)", error.exit_code)
    except StemstreamError as error:
        _exit_with(str(error), error.exit_code)
    except KafkaException as error:
        _exit_with(f"Kafka: {error.args[0].str()}", FaultError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _exit_with("interrupted", INTERRUPTED_EXIT_CODE)


def _exit_with(text: str, code: int) -> NoReturn:
    print_error(text)
    sys.exit(code)
