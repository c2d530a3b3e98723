"""The list of services, docker-compose.yml, read so that the same services can run as local processes.

Only what has a native form is looked at closely. The head of docker-compose.yml says which labels give it one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from service.errors import InputError

COMPOSE_FILE = Path(__file__).resolve().parents[1] / "docker-compose.yml"
NATIVE = "stemstream.native"

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<plain>{_NAME})"
    rf"|\{{(?P<name>{_NAME})(?:(?P<if_empty>:?)(?P<otherwise>[-?+])(?P<text>(?:[^{{}}]|\{{[^{{}}]*\}})*))?\}}"
    r"|(?P<wrong>))"
)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that has a native form.

    Attributes
    ----------
    name
        As in the file.
    embedded_broker
        The embedded broker takes its place; command and environment are the container's.
    command
        Arguments of ``stemstream``.
    environment
        Variables besides those of the shell.
    replicas
        Number of processes.
    metrics_port
        Of the first process, the next ones take the next ports; 0: any free one.
    depends_on
        Services that come before it.
    once
        It ends by itself, and others wait for that.
    """

    name: str
    embedded_broker: bool
    command: tuple[str, ...]
    environment: dict[str, str]
    replicas: int
    metrics_port: int
    depends_on: tuple[str, ...]
    once: bool


@dataclass(frozen=True, slots=True)
class ServiceList:
    """What the file lists: services with a native form, in its order, and the names of the others."""

    native: list[Service]
    left_out: list[str]

    def stages(self) -> list[list[Service]]:
        """Services in the order of their start; those of a stage need only earlier ones."""
        by_name = {service.name: service for service in self.native}
        sorter = TopologicalSorter({s.name: [d for d in s.depends_on if d in by_name] for s in self.native})
        sorter.prepare()
        stages = []
        while sorter.is_active():
            names = sorter.get_ready()
            sorter.done(*names)
            stages.append([service for service in self.native if service.name in names])
        return stages


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}``, ``${NAME:+other}`` as compose does.

    ``$$`` is a plain ``$``. Without the colon an empty variable counts as set. What follows the sign may have variables
    itself, one level deep.

    Raises
    ------
    InputError
        A variable with a message is missing, or a ``$`` begins none of these.

    References
    ----------
    https://docs.docker.com/reference/compose-file/interpolation/
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["wrong"] is not None:
            raise InputError(f"{text!r} has a $ that begins no variable; a plain one is written $$")
        name = match["plain"] or match["name"]
        found = variables.get(name)
        is_set = bool(found) if match["if_empty"] else found is not None
        match match["otherwise"]:
            case "+":
                return substitute(match["text"], variables) if is_set else ""
            case "-" if not is_set:
                return substitute(match["text"], variables)
            case "?" if not is_set:
                raise InputError(f"{name} is not set: {substitute(match['text'], variables) or 'it has no default'}")
        return found or ""

    return _VARIABLE.sub(value, text)


def read_services(file: Path, variables: Mapping[str, str]) -> ServiceList:
    """Read a compose file.

    Parameters
    ----------
    file
        The file.
    variables
        What ``${NAME}`` in it stands for.

    Raises
    ------
    InputError
        The file cannot be read, a service is not as expected, or a variable that it needs is missing.
    """
    entries = _entries(file)
    native = {
        name: _native_entry(entry, variables, f"{file}: service {name}")
        for name, entry in entries.items()
        if NATIVE in (entry.get("labels") or {})
    }
    once = {dependency for entry in native.values() for dependency in entry.completed_before()}
    services = ServiceList(
        native=[_service(name, entry, name in once) for name, entry in native.items()],
        left_out=[name for name in entries if name not in native],
    )
    try:
        services.stages()
    except CycleError as error:
        raise InputError(f"{file}: services depend on each other in a circle: {' > '.join(error.args[1])}") from error
    return services


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {error}") from error
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict) or not all(isinstance(entry, dict) for entry in services.values()):
        raise InputError(f"{file}: no compose file: it has no map of services")
    return services


def _native_entry(entry: dict[str, Any], variables: Mapping[str, str], where: str) -> _Entry:
    read = {key: entry.get(key) for key in _Entry.model_fields}
    try:
        return _Entry.model_validate(_substituted(read, variables))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {path}: {first['msg']}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _substituted(value: Any, variables: Mapping[str, str]) -> Any:  # noqa: ANN401  # whatever YAML holds
    """Fill in the variables in all values; keys are left as they are."""
    match value:
        case str():
            return substitute(value, variables)
        case dict():
            return {key: _substituted(item, variables) for key, item in value.items()}
        case list():
            return [_substituted(item, variables) for item in value]
    return value


def _none_is(default: Any) -> BeforeValidator:  # noqa: ANN401
    """An entry that is missing or empty."""
    return BeforeValidator(lambda value: default if value is None else value)


class _Dependency(BaseModel):
    condition: str = "service_started"


class _Deploy(BaseModel):
    replicas: Annotated[int, Field(ge=1)] = 1


class _Labels(BaseModel):
    form: Annotated[Literal["process", "embedded broker"], Field(alias=NATIVE)]
    command: Annotated[str | None, Field(alias=f"{NATIVE}.command")] = None
    metrics_port: Annotated[int, Field(alias=f"{NATIVE}.metrics-port", ge=0, le=65535)] = 0
    environment: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _collect_environment(cls, labels: Any) -> Any:  # noqa: ANN401
        """Bring together the labels that each hold one variable."""
        if not isinstance(labels, dict):
            return labels
        prefix = f"{NATIVE}.environment."
        variables = {key.removeprefix(prefix): value for key, value in labels.items() if key.startswith(prefix)}
        return labels | {"environment": variables}


class _Entry(BaseModel):
    """What is read of a service. ``labels`` and ``environment`` are maps here; compose would take lists as well."""

    command: Annotated[str | list[str], _none_is("")]
    environment: Annotated[dict[str, str | int | float | None], _none_is({})]
    labels: _Labels
    depends_on: Annotated[list[str] | dict[str, _Dependency], _none_is([])]
    deploy: Annotated[_Deploy, _none_is({})]

    def completed_before(self) -> list[str]:
        """Services that are waited for until they have ended."""
        if isinstance(self.depends_on, list):
            return []
        return [name for name, how in self.depends_on.items() if how.condition == "service_completed_successfully"]


def _service(name: str, entry: _Entry, once: bool) -> Service:
    labels = entry.labels
    command = entry.command if labels.command is None else labels.command
    # Variables without a value are those of the shell, which a local process has anyway.
    environment = {key: str(value) for key, value in entry.environment.items() if value is not None}
    return Service(
        name=name,
        embedded_broker=labels.form == "embedded broker",
        command=tuple(shlex.split(command) if isinstance(command, str) else command),
        environment=environment | labels.environment,
        replicas=entry.deploy.replicas,
        metrics_port=labels.metrics_port,
        depends_on=tuple(entry.depends_on),
        once=once,
    )
