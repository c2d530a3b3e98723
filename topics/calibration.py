"""What automatic thresholds were found from (topic ``references``): the histogram of the sampled frames and its fit.

Too large for the scan log, whose record says at which offset it lies.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from topics.json_message import Count, JsonMessage, Offset, decode_json

MAX_BINS: Final = 131_072  # two uint16 subtracted from each other are between -65,535 and 65,535
MAX_CALIBRATION_BYTES: Final = 3 * 1024 * 1024  # what MAX_BINS numbers of 19 digits need, and more

Number = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=0, lt=2**63)]


class Calibration(JsonMessage):
    """Histogram of the sampled pixels, the Gaussian fitted to it, and the thresholds that follow; all in counts.

    Bin i counts the pixels with a value in [first_bin + i, first_bin + i + 1).
    """

    schema_id: Literal["cal1"] = "cal1"
    ordinal: Offset
    count: Offset
    frames: Count  # sampled
    first_bin: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    histogram: Annotated[list[Pixels], Field(max_length=MAX_BINS)]
    amplitude: Number  # of the Gaussian, pixels a bin
    optimized_mean: Number
    optimized_std: Number
    background: Number
    xray: Number


_ADAPTER = TypeAdapter(Calibration)


def decode(message: bytes | None) -> Calibration:
    """Decode a calibration.

    Raises
    ------
    DecodeError
        The bytes are no calibration of this version.
    """
    found: Calibration = decode_json(_ADAPTER, message or b"", "calibration", MAX_CALIBRATION_BYTES)
    return found
