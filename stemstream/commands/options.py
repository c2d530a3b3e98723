"""Options that several commands have, with the environment variables that mirror them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.errors import InputError
from service.home import home_dir
from service.process import CommonSettings
from stemstream import broker

Bootstrap = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", envvar="STEMSTREAM_BOOTSTRAP", help="Kafka broker. Default: the embedded one."),
]
MetricsPort = Annotated[
    int,
    typer.Option(
        envvar="STEMSTREAM_METRICS_PORT", min=0, max=65535, help="Port of /metrics, /healthz, /readyz; 0 picks one."
    ),
]
LogLevel = Annotated[str, typer.Option(envvar="STEMSTREAM_LOG_LEVEL", help="debug, info, warning or error.")]
Session = Annotated[
    str | None,
    typer.Option(metavar="NAME", envvar="STEMSTREAM_SESSION", help="Session that the scans are filed under."),
]
Output = Annotated[
    Path, typer.Option(metavar="DIR", envvar="STEMSTREAM_OUTPUT", help="Folder for the counted HDF5 files.")
]


def common_settings(bootstrap: str | None, metrics_port: int, log_level: str) -> CommonSettings:
    """Settings that every service has.

    Raises
    ------
    InputError
        No broker is named and the embedded one does not run, or the log level is unknown.
    """
    if log_level not in ("debug", "info", "warning", "error"):
        raise InputError(f"--log-level {log_level}: choose debug, info, warning or error")
    return CommonSettings(bootstrap or embedded_bootstrap(), metrics_port, log_level)


def embedded_bootstrap() -> str:
    """Address of the embedded broker; InputError if it does not run."""
    state = broker.status(home_dir())
    if state is None:
        raise InputError("no broker: give --bootstrap HOST:PORT, or start the embedded one: stemstream broker start")
    return state.bootstrap


def check_name(option: str, name: str) -> str:
    """A name that may become part of a path.

    Raises
    ------
    InputError
        It has other characters than letters, digits, ``.``, ``_``, ``-``, or is too long.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  # only here

    from topics.json_message import Name  # noqa: PLC0415

    try:
        return str(TypeAdapter(Name).validate_python(name))
    except ValidationError as error:
        raise InputError(
            f"{option} {name!r}: up to 64 letters, digits, '_', '-' and '.', not beginning with '.' or '-'"
        ) from error
