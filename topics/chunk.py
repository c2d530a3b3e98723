"""The raw chunk message: consecutive sector frames of one sector, compressed (topics ``raw.sector.0`` … ``3``).

Layout, little endian: a fixed header of 120 bytes, the frame mask, then the payload::

    bytes  field
     0- 3  id "chk1": kind of message and version of this layout
     4- 7  u32 header size: fixed part and mask; the payload starts here
     8     u8  codec id
     9     u8  sector
    10-11  u16 (reserved, zero)
    12-19  i64 scan ordinal
    20-27  i64 writer epoch
    28-47  u32 width, height, frames per position, frames per chunk, partitions
    48-51  u32 chunk index
    52-55  u32 sector frames present
    56-63  f64 floor: pixels at or below it may have been dropped (-1: none was)
    64-71  u64 payload size
    72-79  u64 chunks published so far: this sector, scan and partition, this one included
    80-87  u64 sector frames published so far, likewise
    88-95  u64 payload bytes published so far, likewise
    96-103 i64 offset of the scan's start marker in this partition
   104-111 i64 time of the first frame of the chunk at the receiver, Unix ns
   112-119 u64 XXH3-64 of header and payload, this field left out
   120-    frame mask: bit i of byte i // 8 (least significant first) is set when frame
           chunk index · frames per chunk + i is present; the payload holds those frames in this order

The running totals let a restarted receiver rebuild its ledger from the last message of each partition.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import ValidationError

from topics import suppressed
from topics.codec import Codec, decompress
from topics.errors import DecodeError
from topics.geometry import SECTOR_FRAME_BYTES, SECTORS, ScanGeometry
from topics.marker import PartitionPublished

CHUNK_ID = b"chk1"
NO_FLOOR = -1.0
PIXEL_MAX = 2**16 - 1

_FIXED = struct.Struct("<4sIBBHqqIIIIIIIdQQQQqqQ")
_HASH_AT = _FIXED.size - 8
assert _FIXED.size == 120


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """Everything about a chunk but its pixels.

    ``present`` is (frames in the chunk,) bool: which of its frames this sector has.
    ``published`` counts this sector's chunks of the scan in this partition, this one included.
    """

    sector: int
    ordinal: int
    epoch: int
    geometry: ScanGeometry
    chunk_index: int
    present: NDArray[np.bool_]
    published: PartitionPublished
    first_frame_ns: int
    codec: Codec = Codec.BLOSC2
    floor: float = NO_FLOOR

    @property
    def sector_frames(self) -> int:
        """Number of sector frames in the payload."""
        return int(np.count_nonzero(self.present))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A decoded message: its header and its payload, still compressed, hash checked."""

    header: ChunkHeader
    payload: memoryview

    def sector_frames(self, out: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Decompress full sector frames into ``out``, see :func:`topics.codec.decompress`: (n, 144, 576) uint16."""
        return decompress(self.payload, self.header.sector_frames, out)

    def listed_pixels(self) -> NDArray[np.uint16]:
        """Decompress a zero-suppressed chunk, see :func:`topics.suppressed.decompress`: (m, 2) uint16."""
        return suppressed.decompress(self.payload, self.header.sector_frames)


def encode(header: ChunkHeader, payload: bytes) -> bytes:
    """Bytes of the message."""
    mask = np.packbits(header.present, bitorder="little").tobytes()
    fixed = _FIXED.pack(
        CHUNK_ID,
        _FIXED.size + len(mask),
        header.codec,
        header.sector,
        0,
        header.ordinal,
        header.epoch,
        header.geometry.width,
        header.geometry.height,
        header.geometry.frames_per_position,
        header.geometry.frames_per_chunk,
        header.geometry.partitions,
        header.chunk_index,
        header.sector_frames,
        header.floor,
        len(payload),
        header.published.chunks,
        header.published.sector_frames,
        header.published.payload_bytes,
        header.published.start_offset,
        header.first_frame_ns,
        0,
    )[:_HASH_AT]
    digest = _digest(fixed, mask, payload)
    return b"".join((fixed, digest.to_bytes(8, "little"), mask, payload))


def decode(message: bytes) -> Chunk:
    """Decode a message; nothing is decompressed or allocated by what it claims.

    Raises
    ------
    DecodeError
        Wrong id, sizes that do not fit, a field outside its limits, or a hash that does not fit.
    """
    if len(message) < _FIXED.size or message[:4] != CHUNK_ID:
        raise DecodeError(f"no chunk message: {len(message)} bytes that start with {bytes(message[:4])!r}")
    (
        _, header_size, codec, sector, _, ordinal, epoch, width, height, per_position, per_chunk, partitions,
        chunk_index, present_count, floor, payload_size, chunks, sector_frames, payload_bytes,
        start_offset, first_ns, digest,
    ) = _FIXED.unpack_from(message)  # fmt: skip
    view = memoryview(message)
    mask, payload = view[_FIXED.size : header_size], view[header_size:]
    if header_size < _FIXED.size or header_size + payload_size != len(message):
        raise DecodeError(f"header of {header_size} and payload of {payload_size} bytes in {len(message)} bytes")
    if digest != _digest(view[:_HASH_AT], mask, payload):
        raise DecodeError("hash does not fit: the message was damaged")
    if sector >= SECTORS or ordinal < 0 or epoch < 0:
        raise DecodeError(f"sector {sector}, ordinal {ordinal} or epoch {epoch} is out of range")
    if not NO_FLOOR <= floor <= PIXEL_MAX:
        raise DecodeError(f"floor {floor} is out of range")
    if codec not in set(Codec):
        raise DecodeError(f"codec {codec} is unknown; this version reads {[int(c) for c in Codec]}")
    if codec == Codec.ZERO_SUPPRESSED and floor < 0:
        raise DecodeError(f"floor {floor} of a zero-suppressed chunk")
    try:
        geometry = ScanGeometry(
            width=width,
            height=height,
            frames_per_position=per_position,
            frames_per_chunk=per_chunk,
            partitions=partitions,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "scan"
        raise DecodeError(f"scan geometry is out of range: {where}: {first['msg']}") from error
    header = ChunkHeader(
        sector=sector,
        ordinal=ordinal,
        epoch=epoch,
        geometry=geometry,
        chunk_index=chunk_index,
        present=_unpack_mask(mask, geometry, chunk_index, present_count),
        published=PartitionPublished(
            chunks=chunks,
            sector_frames=sector_frames,
            payload_bytes=payload_bytes,
            last_chunk=chunk_index,
            start_offset=start_offset,
        ),
        first_frame_ns=first_ns,
        codec=Codec(codec),
        floor=floor,
    )
    return Chunk(header, payload)


def _unpack_mask(mask: memoryview, geometry: ScanGeometry, chunk_index: int, present_count: int) -> NDArray[np.bool_]:
    if chunk_index >= geometry.chunks:
        raise DecodeError(f"chunk {chunk_index} of a scan of {geometry.chunks} chunks")
    frames = geometry.frames_in_chunk(chunk_index)
    if len(mask) != -(-frames // 8):
        raise DecodeError(f"frame mask of {len(mask)} bytes for {frames} frames")
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    if bits[frames:].any() or int(bits.sum()) != present_count or present_count == 0:
        raise DecodeError(f"frame mask has {int(bits.sum())} bits, header says {present_count} of {frames} frames")
    return bits[:frames].astype(bool)


def _digest(fixed: bytes | memoryview, mask: bytes | memoryview, payload: bytes | memoryview) -> int:
    hasher = xxhash.xxh3_64(fixed)
    hasher.update(mask)
    hasher.update(payload)
    return int(hasher.intdigest())


def max_message_bytes(frames_per_chunk: int) -> int:
    """Largest message a chunk can make: header, mask, and pixels that do not compress at all, each with its gap."""
    return _FIXED.size + -(-frames_per_chunk // 8) + 2 * frames_per_chunk * SECTOR_FRAME_BYTES + 64
