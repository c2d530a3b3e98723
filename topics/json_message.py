"""Base of the small messages that are JSON: markers, scan log, dead letters' origin.

The id of kind and version is the field ``schema_id``, the first in the bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from topics.errors import DecodeError

MAX_JSON_BYTES = 64 * 1024
_STARTS_WITH_ID = re.compile(rb'\s*\{\s*"schema_id"\s*:')

# Names become parts of file names and labels: no path can leave the output folder.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]
Sector = Annotated[int, Field(ge=0, le=3)]
Count = Annotated[int, Field(ge=0)]
Offset = Annotated[int, Field(ge=0)]
TimeNs = Annotated[int, Field(ge=0, description="Unix time in ns")]


class JsonMessage(BaseModel):
    """Immutable; a field that this version does not know is an error, never dropped in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def encode(self) -> bytes:
        """Bytes of the message."""
        return self.model_dump_json().encode()


def decode_json(adapter: TypeAdapter[Any], message: bytes, what: str, limit: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401
    """Validate JSON bytes.

    Raises
    ------
    DecodeError
        Too long, no JSON, without id or with another one, or a field that is missing, unknown or out of range.
    """
    if len(message) > limit:
        raise DecodeError(f"{what} of {len(message)} bytes; the limit is {limit}")
    if not _STARTS_WITH_ID.match(message):  # the models' default is for those who write
        raise DecodeError(f"no {what}: the first field is not schema_id")
    try:
        return adapter.validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise DecodeError(f"no {what}: {where}: {first['msg']}") from error
