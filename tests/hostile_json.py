"""What can be wrong with messages that are JSON."""

from __future__ import annotations

import json
from typing import Any

NAN, INFINITY = float("nan"), float("inf")

HOSTILE_NAMES = (
    "",
    ".",
    "..",
    "../up",
    "..\\up",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "-rf",
    ".hidden",
    "a b",
    "a\n",
    "\na",
    "a\0b",
    "ä",
    "\u202e",
    "n" * 65,
)


def broken_json(message: bytes, optional: tuple[str, ...] = ("published",)) -> dict[str, bytes]:
    """What can be wrong with any JSON message; fields named in ``optional`` may be missing."""
    fields = json.loads(message)
    schema_id = fields["schema_id"]
    without_id = {name: value for name, value in fields.items() if name != "schema_id"}
    kind = f"{schema_id} {fields.get('kind', '')}".strip()
    found = {
        "cut in the middle": message[: len(message) // 2],
        "last brace cut off": message[:-1],
        "a byte too many": message + b"}",
        "twice": message + message,
        "a blank field name": message[:-1] + b',"":0}',
        "a further field": message[:-1] + b',"further":0}',
        "another id": message.replace(schema_id.encode(), b"xxx9", 1),
        "another version": message.replace(schema_id.encode(), schema_id[:3].encode() + b"2", 1),
        "id NaN": message.replace(f'"{schema_id}"'.encode(), b"NaN", 1),
        "no id": dump(without_id),
        "id not first": dump(without_id | {"schema_id": schema_id}),
        "first id right, second wrong": message[:-1] + b',"schema_id":"xxx9"}',
        "empty object": b"{}",
        "id alone": dump({"schema_id": schema_id}),
        "a list": b"[" + message + b"]",
        "null": b"null",
        "a string": json.dumps(message.decode()).encode(),
        "blanks": b" " * 100,
        "deep": message[:-1] + b',"deep":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "huge": message[:-1] + b',"huge":"' + b"x" * 70_000 + b'"}',
        "huge blanks": message + b" " * 70_000,
        "a number of 5,000 digits": message[:-1] + b',"number":' + b"9" * 5000 + b"}",
        "not UTF-8": message.replace(b"}", b',"\xff\xfe":0}', 1),
        "UTF-16": message.decode().encode("utf-16"),
        "half a surrogate": message[:-1] + b',"s":"\\ud800"}',
        "zero bytes inside": message.replace(b":", b":\0", 1),
    }
    for name in (name for name in fields if name not in optional):
        found[f"without {name}"] = dump({k: v for k, v in fields.items() if k != name})
    found |= {f"{name} is an object": dump(fields | {name: {"a": 1}}) for name in fields}
    return {f"{kind}: {name}": message for name, message in found.items()}


def lying_json(message: bytes, lies: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """The message with other values in some of its fields."""
    fields = json.loads(message)
    return {name: dump(fields | changes) for name, changes in lies.items()}


def dump(fields: dict[str, Any]) -> bytes:
    """JSON without blanks, with NaN and Infinity as Python writes them."""
    return json.dumps(fields, separators=(",", ":")).encode()


MARKER_LIES: dict[str, dict[str, Any]] = {
    "sector 4": {"sector": 4},
    "sector -1": {"sector": -1},
    "half a sector": {"sector": 0.5},
    "no sector": {"sector": None},
    "a list of sectors": {"sector": [0]},
    "ordinal -1": {"ordinal": -1},
    "epoch -1": {"epoch": -1},
    "ordinal NaN": {"ordinal": NAN},
    "epoch infinite": {"epoch": INFINITY},
    "partition -1": {"partition": -1},
    "unknown kind": {"kind": "pause"},
    "unknown reason": {"reason": "bored"},
    "ledger of another shape": {"ledger": []},
    "ledger with a further field": {"ledger": {"received": 1, "eaten": 1}},
    "negative count in the ledger": {"ledger": {"received": -1}},
    "geometry without chunks": {"geometry": {"width": 4, "height": 4, "partitions": 1}},
    "geometry of nothing": {"geometry": {"width": 0, "height": 4, "frames_per_chunk": 8, "partitions": 1}},
    "absurd geometry": {
        "geometry": {
            "width": 65_535,
            "height": 65_535,
            "frames_per_position": 65_535,
            "frames_per_chunk": 1024,
            "partitions": 1024,
        }
    },
    "absurd partitions": {"geometry": {"width": 4, "height": 4, "frames_per_chunk": 8, "partitions": 2**40}},
}
