"""The options that say how electrons are counted, alike in every command that starts a count."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import numpy as np
import typer
from pydantic import TypeAdapter

from service.errors import InputError
from topics.scan_log import FRAMES_A_BLOCK, MAX_SAMPLES, AutoThreshold, CountSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PANEL = "How electrons are counted"


def _option(variable: str, said: str, **limits: Any) -> Any:  # noqa: ANN401  # so says typer
    return typer.Option(envvar=f"STEMSTREAM_{variable}", help=said, rich_help_panel=_PANEL, **limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOptions:
    """What a person says of a count. Each option has an environment variable that mirrors it."""

    background: Annotated[
        float | None, _option("BACKGROUND", "Background threshold: pixels at or below it are no electrons.")
    ] = None
    xray: Annotated[float | None, _option("XRAY", "X-ray threshold: pixels at or above it are no electrons.")] = None
    auto_threshold: Annotated[
        bool,
        typer.Option(
            "--auto-threshold",
            envvar="STEMSTREAM_AUTO_THRESHOLD",
            help="Find both thresholds from the first frames of each scan, as stempy does.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    threshold_samples: Annotated[
        int | None, _option("THRESHOLD_SAMPLES", "Frames to find them from. Default: 1200.", min=1, max=MAX_SAMPLES)
    ] = None
    threshold_blocks: Annotated[
        int | None,
        _option(
            "THRESHOLD_BLOCKS",
            f"Blocks of {FRAMES_A_BLOCK} frames, from the first one on, that these are taken from. Default: 20.",
            min=1,
            max=MAX_SAMPLES // FRAMES_A_BLOCK,
        ),
    ] = None
    background_sigmas: Annotated[
        float | None,
        _option("BACKGROUND_SIGMAS", "Background threshold in sigmas of the noise. Default: 4.5.", min=1e-6, max=1e6),
    ] = None
    xray_sigmas: Annotated[
        float | None,
        _option("XRAY_SIGMAS", "X-ray threshold in sigmas of all pixels. Default: 175.", min=1e-6, max=1e6),
    ] = None
    dark: Annotated[
        Path | None,
        _option(
            "DARK",
            "Dark reference to subtract: .npy, HDF5, DM3/4, SER or MRC (stemstream dark makes one).",
            metavar="FILE",
        ),
    ] = None
    gain: Annotated[
        Path | None, _option("GAIN", "Gain reference to divide by, in the same formats.", metavar="FILE")
    ] = None
    row_dark: Annotated[
        Literal["mean", "median"] | None,
        _option("ROW_DARK", "Scale each half row by the optimized mean over its own mean or median."),
    ] = None
    optimized_mean: Annotated[
        float | None, _option("OPTIMIZED_MEAN", "For --row-dark, in counts. Default: found with the thresholds.")
    ] = None
    engine: Annotated[
        Literal["fast", "stempy"], _option("ENGINE", "fast, or stempy: its own compiled code. Same electrons.")
    ] = "fast"

    def variables(self) -> dict[str, str]:
        """The environment variables that say the same; empty where nothing is said."""
        chosen = asdict(self)
        return {variable: _text(chosen[name]) for name, variable in VARIABLES.items()}

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> CountOptions:
        """The options that environment variables say."""
        said = {name: text for name, variable in VARIABLES.items() if (text := variables.get(variable))}
        options: CountOptions = TypeAdapter(cls).validate_python(said)
        return options


def _variable(hint: Any) -> str:  # noqa: ANN401  # an Annotated type
    return str(hint.__metadata__[0].envvar)


_HINTS = get_type_hints(CountOptions, include_extras=True)
VARIABLES = {field.name: _variable(_HINTS[field.name]) for field in fields(CountOptions)}


def _text(value: Any) -> str:  # noqa: ANN401  # of any option
    if value is None or value is False:
        return ""
    return str(value.expanduser().absolute()) if isinstance(value, Path) else "1" if value is True else str(value)


def takes_count_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `CountOptions`, in the place of its parameter ``counting``."""
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_HINTS[name])
        for name, default in ((field.name, field.default) for field in fields(CountOptions))
    ]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:  # noqa: ANN401  # as the command has them
        said = {name: arguments.pop(name) for name in VARIABLES}
        command(counting=CountOptions(**said), **arguments)

    parameters = list(inspect.signature(command, eval_str=True).parameters.values())
    place = [parameter.name for parameter in parameters].index("counting")
    parameters[place : place + 1] = options
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def count_settings(options: CountOptions) -> tuple[CountSettings, list[NDArray[np.float32]]]:
    """Settings of a count, and the references that they name, read from their files.

    Raises
    ------
    InputError
        Options are missing or do not go together, a threshold could not count anything, or a file is no reference.
    """
    auto = _auto_threshold(options)
    if auto is None:
        _check_thresholds(options.background, options.xray)
    _check_row_dark(options)
    references = {}
    for kind in ("dark", "gain"):
        path: Path | None = getattr(options, kind)
        if path is not None:
            # Imported here: most counts need no references, and the readers take time to import.
            from service.references import read_reference  # noqa: PLC0415
            from topics.reference import sha256_of  # noqa: PLC0415

            pixels = read_reference(path, kind)
            references[kind] = (sha256_of(pixels), pixels)
    settings = CountSettings(
        background=options.background,
        xray=options.xray,
        auto_threshold=auto,
        engine=options.engine,
        row_dark=options.row_dark,
        optimized_mean=options.optimized_mean,
        **{kind: sha256 for kind, (sha256, _) in references.items()},
    )
    return settings, [pixels for _, pixels in references.values()]


def keep_references(options: CountOptions, folder: Path) -> CountOptions:
    """Copy the references into a folder, under the hash of their pixels; returns options that name the copies.

    So services that are started again have the same ones, whatever becomes of the files.

    Raises
    ------
    InputError
        A file is no reference, or the folder cannot be written.
    """
    from service.references import read_reference  # noqa: PLC0415  # most counts need no references
    from topics.reference import sha256_of  # noqa: PLC0415

    def keep(path: Path | None, kind: Literal["dark", "gain"]) -> Path | None:
        if path is None:
            return None
        pixels = read_reference(path, kind)
        kept = folder / f"{sha256_of(pixels)}.npy"
        partial = kept.with_suffix(".partial.npy")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(partial, pixels)
            partial.replace(kept)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
        return kept

    return replace(options, dark=keep(options.dark, "dark"), gain=keep(options.gain, "gain"))


def _auto_threshold(options: CountOptions) -> AutoThreshold | None:
    said = {
        "samples": options.threshold_samples,
        "blocks": options.threshold_blocks,
        "background_sigmas": options.background_sigmas,
        "xray_sigmas": options.xray_sigmas,
    }
    said = {name: value for name, value in said.items() if value is not None}
    if options.auto_threshold:
        if options.background is not None or options.xray is not None:
            raise InputError("--auto-threshold finds both thresholds: leave out --background and --xray")
        auto = AutoThreshold.model_validate(said)
        if options.threshold_samples is not None and auto.samples > auto.blocks * FRAMES_A_BLOCK:
            raise InputError(
                f"--threshold-samples {auto.samples}: {auto.blocks} blocks have {auto.blocks * FRAMES_A_BLOCK} frames; "
                "give more --threshold-blocks"
            )
        return auto
    if said:
        raise InputError(
            "--threshold-samples, --threshold-blocks, --background-sigmas and --xray-sigmas go with --auto-threshold"
        )
    return None


def _check_thresholds(background: float | None, xray: float | None) -> None:
    if background is None or xray is None:
        raise InputError(
            "no thresholds: give --background and --xray, in detector counts, for example 40 and 2000; "
            "or --auto-threshold to find them"
        )
    if not (math.isfinite(background) and math.isfinite(xray) and background < xray):
        raise InputError(f"--background {background:g} and --xray {xray:g}: the first must be below the second")


def _check_row_dark(options: CountOptions) -> None:
    mean = options.optimized_mean
    if options.row_dark is None and mean is not None:
        raise InputError("--optimized-mean goes with --row-dark")
    if mean is not None and not (math.isfinite(mean) and mean > 0):
        raise InputError(f"--optimized-mean {mean:g}: expected a number above 0, in detector counts")
    if options.row_dark is not None and mean is None and not options.auto_threshold:
        raise InputError("--row-dark needs --optimized-mean, or --auto-threshold to find it")
