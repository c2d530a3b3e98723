"""The options of zero suppression, alike in every command that starts a receiver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from producers.suppression import SuppressionSettings
from service.errors import InputError
from stemstream.count_options import CountOptions
from topics.scan_log import MAX_SUPPRESSED_XRAY, CountSettings

_PANEL = "Zero suppression"

ZeroSuppress = Annotated[
    str | None,
    typer.Option(
        metavar="FLOOR|auto",
        envvar="STEMSTREAM_ZERO_SUPPRESS",
        help="Send only the pixels above a floor, in counts after --dark and --gain; auto: 3 sigmas above the noise. "
        "Counting at any background threshold from there on is exactly the same.",
        rich_help_panel=_PANEL,
    ),
]
KeepFull = Annotated[
    str | None,
    typer.Option(
        metavar="1/N|all",
        envvar="STEMSTREAM_KEEP_FULL",
        help="Archive every N-th chunk of a zero-suppressed scan in full, too. Default: none.",
        rich_help_panel=_PANEL,
    ),
]


def suppression_settings(
    zero_suppress: str | None, keep_full: str | None, dark: Path | None, gain: Path | None
) -> SuppressionSettings | None:
    """Settings of zero suppression; None without it.

    Raises
    ------
    InputError
        A value is not of its form, a reference cannot be read, or --keep-full goes without --zero-suppress.
    """
    if zero_suppress is None:
        if keep_full is not None:
            raise InputError("--keep-full goes with --zero-suppress")
        return None
    from service.references import read_reference  # noqa: PLC0415  # full chunks need no references

    return SuppressionSettings(
        floor=_floor(zero_suppress),
        dark=read_reference(dark, "dark") if dark else None,
        gain=read_reference(gain, "gain") if gain else None,
        keep_full=_every(keep_full),
    )


def check_zero_suppression(
    zero_suppress: str | None, keep_full: str | None, counting: CountOptions, count: CountSettings
) -> None:
    """Refuse zero suppression with which the count would not be that of the full frames.

    Raises
    ------
    InputError
        As `suppression_settings`; or the count needs full frames, or has thresholds out of range.
    """
    sent = suppression_settings(zero_suppress, keep_full, counting.dark, counting.gain)
    if sent is None:
        return
    if count.auto_threshold is not None or count.row_dark is not None:
        option = "--auto-threshold" if count.auto_threshold is not None else "--row-dark"
        raise InputError(f"{option} needs full frames: leave out --zero-suppress")
    if sent.floor is not None and count.background is not None and count.background < sent.floor:
        raise InputError(
            f"--background {count.background:g} is below the floor, --zero-suppress {sent.floor:g}: "
            "pixels in between would be missing"
        )
    wraps = sent.dark is not None and sent.gain is None
    if wraps and count.xray is not None and count.xray > MAX_SUPPRESSED_XRAY:
        raise InputError(
            f"--xray {count.xray:g}: with --zero-suppress, and --dark without --gain, {MAX_SUPPRESSED_XRAY} at most"
        )
    from producers.suppressor import check_suppression  # noqa: PLC0415  # numba, which full frames do without

    check_suppression(sent)


def sending(variables: Mapping[str, str]) -> dict[str, object]:
    """What the environment variables say of zero suppression, so that it can be compared."""
    zero_suppress = variables.get("STEMSTREAM_ZERO_SUPPRESS") or None
    sent = suppression_settings(zero_suppress, variables.get("STEMSTREAM_KEEP_FULL") or None, None, None)
    if sent is None:
        return {"zero_suppress": None}
    return {"zero_suppress": "auto" if sent.floor is None else sent.floor, "keep_full": sent.keep_full}


def suppression_variables(zero_suppress: str | None, keep_full: str | None) -> dict[str, str]:
    """The environment variables that say the same; empty where nothing is said."""
    return {"STEMSTREAM_ZERO_SUPPRESS": zero_suppress or "", "STEMSTREAM_KEEP_FULL": keep_full or ""}


def _floor(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        floor = float(text)
    except ValueError:
        floor = -1.0
    if not 0 <= floor <= 65_535:  # also if it is NaN
        raise InputError(f"--zero-suppress {text}: expected a floor of 0 to 65535 counts, or auto")
    return floor


def _every(text: str | None) -> int:
    if text is None:
        return 0
    match = re.fullmatch(r"1/([1-9]\d{0,8})", text)
    if text != "all" and match is None:
        raise InputError(f"--keep-full {text}: expected all, or a part as 1/100")
    return int(match[1]) if match else 1
