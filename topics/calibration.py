"""What automatic thresholds were found from (topic ``references``): the histogram of the sampled frames and its fit.

Too large for the scan log, whose record says at which offset it lies.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from topics.errors import DecodeError
from topics.json_message import Count, JsonMessage, Offset

MAX_BINS: Final = 131_072  # two uint16 subtracted from each other are between -65,535 and 65,535
MAX_CALIBRATION_BYTES: Final = 3 * 1024 * 1024  # what MAX_BINS numbers of 19 digits need, and more

_BEGIN: Final = b'{"schema_id":"cal1"'  # the model's default for it is for those who write

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


def decode(message: bytes | None) -> Calibration:
    """Decode a calibration.

    Raises
    ------
    DecodeError
        The bytes are no calibration of this version.
    """
    message = message or b""
    if len(message) > MAX_CALIBRATION_BYTES:
        raise DecodeError(f"calibration of {len(message)} bytes; the limit is {MAX_CALIBRATION_BYTES}")
    if not message.startswith(_BEGIN):
        raise DecodeError("no calibration: the first field is not schema_id, cal1")
    try:
        return Calibration.model_validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise DecodeError(f"no calibration: {where}: {first['msg']}") from error
