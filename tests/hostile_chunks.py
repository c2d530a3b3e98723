"""Chunk messages that are none, or that lie. Their hash fits, so that the lie itself must be noticed."""

from __future__ import annotations

import struct
from typing import Any

import xxhash

from tests.golden.values import CHUNKS, GEOMETRY, encoded
from topics.geometry import SECTOR_FRAME_BYTES

# Where the fields of a chunk's header lie, and their struct codes.
CHUNK_FIELDS = {
    "id": (0, "4s"),
    "header size": (4, "I"),
    "codec": (8, "B"),
    "sector": (9, "B"),
    "reserved": (10, "H"),
    "ordinal": (12, "q"),
    "epoch": (20, "q"),
    "width": (28, "I"),
    "height": (32, "I"),
    "frames per position": (36, "I"),
    "frames per chunk": (40, "I"),
    "partitions": (44, "I"),
    "chunk index": (48, "I"),
    "sector frames": (52, "I"),
    "floor": (56, "d"),
    "payload size": (64, "Q"),
    "chunks": (72, "Q"),
    "published sector frames": (80, "Q"),
    "published payload bytes": (88, "Q"),
    "start offset": (96, "q"),
    "first frame": (104, "q"),
    "hash": (112, "Q"),
}
FIXED_BYTES = 120
NAN, INFINITY = float("nan"), float("inf")


def lie(message: bytes, **fields: Any) -> bytes:  # noqa: ANN401
    """A chunk message with other values in these fields (blanks as underscores), and a hash that fits them."""
    lying = bytearray(message)
    for name, value in fields.items():
        at, code = CHUNK_FIELDS[name.replace("_", " ")]
        struct.pack_into(f"<{code}", lying, at, value)
    return sealed(bytes(lying))


def sealed(message: bytes) -> bytes:
    """A chunk message with the hash that its other bytes have."""
    digest = xxhash.xxh3_64_intdigest(message[:112] + message[FIXED_BYTES:])
    return message[:112] + struct.pack("<Q", digest) + message[FIXED_BYTES:]


def unreadable_chunks() -> dict[str, bytes]:
    """Messages that are refused as they are decoded."""
    sound = encoded()["chk1_incomplete"]
    mask_ends = int.from_bytes(sound[4:8], "little")
    size, mask, payload = len(sound), sound[FIXED_BYTES:mask_ends], sound[mask_ends:]
    cuts = [*(at for at, _ in CHUNK_FIELDS.values()), FIXED_BYTES, mask_ends, mask_ends + 1, (mask_ends + size) // 2]
    lies: dict[str, list[Any]] = {
        "header_size": [0, 4, 119, 120, mask_ends - 1, mask_ends + 1, size, size + 1, 2**31, 2**32 - 1],
        "payload_size": [0, 1, size - mask_ends - 1, size - mask_ends + 1, 2**63, 2**64 - 1],
        "codec": [0, 3, 255],
        "sector": [4, 255],
        "ordinal": [-1, -(2**63)],
        "epoch": [-1, -(2**63)],
        "width": [0, 65_536, 2**32 - 1],
        "height": [0, 65_536, 2**32 - 1],
        "frames_per_position": [0, 65_536, 2**32 - 1],
        "frames_per_chunk": [0, 1025, 2**32 - 1],
        "partitions": [0, 1025, 2**32 - 1],
        "chunk_index": [GEOMETRY.chunks, 2**32 - 1],
        "sector_frames": [0, 3, 5, 2**32 - 1],
        "floor": [NAN, INFINITY, -INFINITY, -2.0, 65_536.0],
        "id": [b"chk0", b"chk2", b"CHK1", b"\0\0\0\0", b"ARRO"],
    }
    return (
        {f"cut after {cut} bytes": sound[:cut] for cut in cuts if cut}
        | {f"cut after {cut} bytes, hash fits": sealed(sound[:cut]) for cut in cuts if cut >= FIXED_BYTES}
        | {f"{name} is {value}": lie(sound, **{name: value}) for name, values in lies.items() for value in values}
        | {
            "more frames than a camera counts": lie(sound, width=65_535, height=65_535, frames_per_position=65_535),
            "a scan of the greatest size, mask of a small one": lie(
                sound, width=65_535, height=65_535, frames_per_position=1, frames_per_chunk=1024, chunk_index=0
            ),
            "a mask too short": lie(sound, frames_per_chunk=16, chunk_index=1),
            "hash is 0": sound[:112] + bytes(8) + sound[FIXED_BYTES:],
            "a byte too many": sound + b"\0",
            "a byte too many, hash fits": sealed(sound + b"\0"),
            "mask of no frame": sealed(sound[:FIXED_BYTES] + b"\0" + payload),
            "mask of no frame, as stated": lie(sound[:FIXED_BYTES] + b"\0" + payload, sector_frames=0),
            "mask of a frame past the chunk": lie(
                sound[:FIXED_BYTES] + bytes([mask[0] | 0x40]) + payload, sector_frames=5
            ),
            "mask of a frame past the chunk, not counted": sealed(
                sound[:FIXED_BYTES] + bytes([mask[0] | 0x80]) + payload
            ),
            "no mask": lie(sound[:FIXED_BYTES] + payload, header_size=FIXED_BYTES),
            "a mask too long": lie(sound[:FIXED_BYTES] + mask + b"\0" + payload, header_size=mask_ends + 1),
            "the id alone": b"chk1",
            "a header of zeros": sealed(b"chk1" + bytes(116)),
            "all ones": b"chk1" + b"\xff" * 200,
        }
    )


def chunks_with_unreadable_payload() -> dict[str, bytes]:
    """Chunk messages of 4 sector frames that decode; what they hold cannot be decompressed."""
    header, _ = CHUNKS["chk1_incomplete"]
    sound = encoded()["chk1_incomplete"]
    mask_ends = int.from_bytes(sound[4:8], "little")
    head, payload = sound[:mask_ends], sound[mask_ends:]
    other = encoded()["chk1_full"]
    full_payload = other[int.from_bytes(other[4:8], "little") :]

    def blosc(at: int, value: int) -> bytes:
        lying = bytearray(payload)
        struct.pack_into("<I", lying, at, value)
        return bytes(lying)

    payloads = {
        "nothing": b"",
        "one byte": payload[:1],
        "half a Blosc2 header": payload[:16],
        "all but a byte of a Blosc2 header": payload[:31],
        "a Blosc2 header alone": payload[:32],
        "the last byte cut off": payload[:-1],
        "a byte too many": payload + b"\0",
        "zeros": bytes(len(payload)),
        "ones": b"\xff" * len(payload),
        "text": b"no pixels at all; " * 20,
        "more sector frames than the mask has": full_payload,
        "fewer bytes than the mask needs": blosc(4, 3 * SECTOR_FRAME_BYTES),
        "one byte more than the mask needs": blosc(4, 4 * SECTOR_FRAME_BYTES + 1),
        "no bytes": blosc(4, 0),
        "2 GiB - 1": blosc(4, 2**31 - 1),
        "4 GiB - 1": blosc(4, 2**32 - 1),
        "blocks of no bytes": blosc(8, 0),
        "blocks of 4 GiB - 1": blosc(8, 2**32 - 1),
        "blocks larger than all": blosc(8, 8 * SECTOR_FRAME_BYTES),
        "0 compressed bytes": blosc(12, 0),
        "fewer compressed bytes": blosc(12, len(payload) - 1),
        "more compressed bytes": blosc(12, len(payload) + 1),
        "4 GiB - 1 compressed bytes": blosc(12, 2**32 - 1),
        "a block that starts before the payload": blosc(32, 2**32 - 1),
        "a block that starts behind the payload": blosc(32, len(payload) + 4),
        # Damaged below a delta filter, Blosc2 would wait for ever; the older header has that filter in its flags.
        "a delta filter": payload[:16] + b"\x03" + payload[17:],
        "a damaged older header": payload[:2] + b"\x48" + payload[3:38] + b"\x59" + payload[39:],
        "an unknown filter": payload[:16] + b"\x1f" + payload[17:],
        "an unknown codec": payload[:2] + bytes([payload[2] | 0xE0]) + payload[3:],
    }
    assert header.sector_frames == 4
    return {name: lie(head + p, payload_size=len(p)) for name, p in payloads.items()}
