"""The detector's live feed: what today's camera software sends over ZeroMQ.

PUSH sockets connect to a PULL socket a sector. A message has two parts: a msgpack list of nine integers and the
pixels of one sector frame. A sender may first ask a REP socket and wait for the string ``ready``.

References
----------
The descendants of this feed are public: NERSC/interactEM operators/detstream-*.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgpack

from service.errors import InputError

FIRST_PORT: Final = 6001  # sector m listens on FIRST_PORT + m
READY_PORT: Final = 16000
READY: Final = b"ready"

_MAX_HEADER_BYTES = 128
_UINT32_MAX = 2**32 - 1


class FeedError(ValueError):
    """A message of the feed is not what the format says."""


class FeedHeader(NamedTuple):
    """Header of one sector frame, in the order of the wire.

    ``width_field`` and ``height_field`` are called nSTEM_positions_per_row_m1 and nSTEM_rows_m1 there; public code
    uses them as the numbers of columns and rows.
    """

    scan_number: int
    frame_number: int
    frames_this_thread: int
    width_field: int
    height_field: int
    x: int
    y: int
    thread_id: int
    module: int


def encode_header(header: FeedHeader) -> bytes:
    """First part of a message."""
    packed: bytes = msgpack.packb(list(header))
    return packed


def decode_header(part: bytes | memoryview) -> FeedHeader:
    """Decode the first part of a message.

    Raises
    ------
    FeedError
        It is no msgpack list of nine integers from 0 to 2³² - 1.
    """
    if len(part) > _MAX_HEADER_BYTES:
        raise FeedError(f"header of {len(part)} bytes; the limit is {_MAX_HEADER_BYTES}")
    try:
        fields = msgpack.unpackb(part, use_list=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FeedError(f"header is no msgpack: {error}") from error
    if not isinstance(fields, list) or len(fields) != len(FeedHeader._fields):
        raise FeedError(f"header is no list of {len(FeedHeader._fields)} integers")
    if not all(type(field) is int and 0 <= field <= _UINT32_MAX for field in fields):
        raise FeedError("header has a field that is no integer from 0 to 2^32 - 1")
    return FeedHeader(*fields)


def sector_addresses(named: list[str], sectors: list[int]) -> dict[int, str]:
    """Address of each sector: as named, or the first one's next ports for the next sectors.

    Raises
    ------
    InputError
        An address is no ``tcp://HOST:PORT``, or there are neither one nor as many as sectors.
    """
    for address in named:
        if not re.fullmatch(r"tcp://[^:/]+:\d{1,5}", address):
            raise InputError(f"{address}: no address, expected tcp://HOST:PORT")
    if len(named) == 1:
        host, _, port = named[0].rpartition(":")
        named = [f"{host}:{int(port) + index}" for index in range(len(sectors))]
    if len(named) != len(sectors):
        raise InputError(f"{len(named)} addresses for {len(sectors)} sectors; name one a sector, or only the first")
    return dict(zip(sectors, named, strict=True))
