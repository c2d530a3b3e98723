"""Bytes that may lie in a topic though no program of ours wrote them: damaged, cut short, made up, lying.

Each function gives messages by name, for decoders, for the steps that use them, and for the topics of a real broker.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.golden.values import CALIBRATIONS, COUNT_ENDS, MARKERS, RECORDS, encoded
from tests.hostile_arrow import unreadable_arrow
from tests.hostile_chunks import chunks_with_unreadable_payload, lie, sealed, unreadable_chunks
from tests.hostile_json import HOSTILE_NAMES, INFINITY, MARKER_LIES, NAN, broken_json, lying_json

__all__ = [
    "chunks_with_unreadable_payload",
    "lie",
    "sealed",
    "unreadable_calibrations",
    "unreadable_dead_letters",
    "unreadable_events",
    "unreadable_raw_messages",
    "unreadable_records",
    "unreadable_references",
]

Messages = dict[str, bytes]


def unreadable_raw_messages() -> Messages:
    """For raw.sector.0 … 3: neither chunk nor marker."""
    markers = {name: MARKERS[name].encode() for name in ("mrk1_start", "mrk1_end")}
    return (
        {f"chunk: {name}": message for name, message in unreadable_chunks().items()}
        | {f"marker: {name}": message for marker in markers.values() for name, message in broken_json(marker).items()}
        | {f"marker: {name}": message for name, message in lying_json(markers["mrk1_end"], MARKER_LIES).items()}
        | {name: message for name, message in encoded().items() if name[:4] not in ("chk1", "mrk1")}
    )


def unreadable_records() -> Messages:
    """For scans: no record of the scan log."""
    lies: dict[str, dict[str, dict[str, Any]]] = {
        "log1_receiver_started": {
            "sector 4": {"sectors": [4]},
            "no sectors": {"sectors": []},
            "five sectors": {"sectors": [0, 1, 2, 3, 3]},
            "endless host": {"host": "h" * 401},
            "unknown kind": {"kind": "receiver stopped"},
        },
        "log1_scan_started": {
            **{f"session {name!r}": {"session": name} for name in HOSTILE_NAMES},
            "number -1": {"number": -1},
            "absurd geometry": MARKER_LIES["absurd geometry"],
        },
        "log1_scan_started_suppressed": {
            "floor NaN": {"zero_suppression": {"floor": NAN}},
            "floor below 0": {"zero_suppression": {"floor": -1}},
            "floor that no pixel reaches": {"zero_suppression": {"floor": 65_536}},
            "a short hash": {"zero_suppression": {"floor": 1, "dark": "0" * 63}},
            "suppressed by magic": {"zero_suppression": "yes"},
        },
        "log1_sector_ended": {"sector 4": {"sector": 4}, "offset -1": {"first_offsets": [-1]}},
        "log1_count_started": {
            **{f"name {name!r}": {"name": name} for name in HOSTILE_NAMES},
            "background NaN": {"settings": {"background": NAN, "xray": 2000}},
            "x-ray infinite": {"settings": {"background": 1, "xray": INFINITY}},
            "no x-ray threshold": {"settings": {"background": 1}},
            "unknown engine": {"settings": {"background": 1, "xray": 2, "engine": "magic"}},
        },
        "log1_count_started_auto": {
            "thresholds as well": {"settings": {"background": 1, "xray": 2, "auto_threshold": {}}},
            "no samples": {"settings": {"auto_threshold": {"samples": 0}}},
            "more samples than memory": {"settings": {"auto_threshold": {"samples": 10**9}}},
            "NaN sigmas": {"settings": {"auto_threshold": {"xray_sigmas": NAN}}},
            "negative sigmas": {"settings": {"auto_threshold": {"background_sigmas": -1}}},
            "a short hash": {"settings": {"auto_threshold": {}, "dark": "0" * 63}},
            "a path as hash": {"settings": {"auto_threshold": {}, "gain": "../" * 21 + "x"}},
            "optimized mean without row-dark": {"settings": {"auto_threshold": {}, "optimized_mean": 3}},
            "row-dark without optimized mean": {"settings": {"background": 1, "xray": 2, "row_dark": "mean"}},
            "unknown row-dark": {"settings": {"auto_threshold": {}, "row_dark": "mode"}},
        },
        "log1_reference_stored": {"a hash in capitals": {"sha256": "A" * 64}, "offset -1": {"offset": -1}},
        "log1_thresholds_found": {
            "NaN": {"background": NAN},
            "infinite": {"xray": INFINITY},
            "unknown source": {"source": "guess"},
            "count -1": {"count": -1},
        },
        "log1_count_finished": {
            **{f"name {name!r}": {"name": name} for name in HOSTILE_NAMES},
            "three sectors in the account": {
                "account": RECORDS["log1_count_finished"].model_dump(mode="json")["account"] | {"sectors": [{}] * 3}
            },
        },
        "log1_count_abandoned": {"a reason without end": {"why": "x" * 401}, "count -1": {"count": -1}},
        **{
            f"log1_session_{what}": {f"name {name!r}": {"name": name} for name in HOSTILE_NAMES}
            for what in ("started", "ended")
        },
        "log1_scan_annotated": {
            **{f"field {name!r}": {"fields": {name: "text"}} for name in HOSTILE_NAMES},
            "no fields": {"fields": {}},
            "33 fields": {"fields": {f"f{i}": "text" for i in range(33)}},
            "endless text": {"fields": {"sample": "x" * 401}},
            "a number as text": {"fields": {"kV": 300}},
        },
        "log1_close_requested": {"ordinal -1": {"ordinal": -1}},
    }
    found = {"no bytes": b""}
    optional_fields = {"session_": (), "suppressed": ("zero_suppression",), "thresholds": ("why",)}
    for kind, record in RECORDS.items():
        optional = next((names for part, names in optional_fields.items() if part in kind), ("name",))
        messages = broken_json(record.encode(), optional=optional) | lying_json(record.encode(), lies[kind])
        found |= {f"{kind}: {name}": message for name, message in messages.items()}
    return found | {name: message for name, message in encoded().items() if not name.startswith("log1")}


def unreadable_events() -> Messages:
    """For events: neither electrons nor the end of a count."""
    end = COUNT_ENDS["evm1_end"].encode()
    ends = broken_json(end) | lying_json(
        end,
        {f"name {name!r}": {"count_name": name} for name in HOSTILE_NAMES}
        | {"three ends": {"ends": [None] * 3}, "five ends": {"ends": [None] * 5}, "ordinal NaN": {"ordinal": NAN}},
    )
    return (
        {f"end: {name}": message for name, message in ends.items()}
        | {f"events: {name}": message for name, message in unreadable_arrow().items()}
        | {name: message for name, message in encoded().items() if name[:4] not in ("evt1", "evm1")}
    )


def unreadable_dead_letters() -> Messages:
    """For dead-letters: no dead letter."""
    sound = encoded()["dlt1_chunk"]
    size = int.from_bytes(sound[4:8], "little")
    origin, kept = sound[8 : 8 + size], sound[8 + size :]

    def letter(json_bytes: bytes) -> bytes:
        return b"dlt1" + len(json_bytes).to_bytes(4, "little") + json_bytes + kept

    return (
        {f"cut after {cut} bytes": sound[:cut] for cut in (0, 1, 4, 7, 8, 9, 7 + size)}
        | {f"origin of {n} bytes": sound[:4] + struct.pack("<I", n) + sound[8:] for n in (0, 1, size - 1, 2**32 - 1)}
        | {f"origin: {name}": letter(message) for name, message in broken_json(origin).items()}
        | {
            "another id": b"dlt2" + sound[4:],
            "cut": b"dlt1" + struct.pack("<I", size + 1) + origin,
            "all ones": b"dlt1" + b"\xff" * 100,
        }
        | {name: message for name, message in encoded().items() if not name.startswith("dlt1")}
    )


def unreadable_references() -> Messages:
    """For references, where a reference is expected."""
    sound = encoded()["ref1_dark"]
    head, pixels = sound[:132], sound[132:]

    def pixel(at: int, value: float) -> bytes:
        return head + pixels[: 4 * at] + struct.pack("<f", value) + pixels[4 * (at + 1) :]

    def header(old: bytes, new: bytes) -> bytes:
        changed = head.replace(old, new, 1)
        assert changed != head
        return changed.rstrip(b" \n").ljust(131) + b"\n" + pixels

    return (
        {f"cut after {cut} bytes": sound[:cut] for cut in (0, 1, 3, 4, 5, 10, 14, 100, 131, 132, 133, len(sound) - 1)}
        | {f"pixel {at} is {value}": pixel(at, value) for at in (0, 331_775) for value in (NAN, INFINITY, -INFINITY)}
        | {
            "a byte too many": sound + b"\0",
            "a row too many": sound + pixels[: 4 * 576],
            "another id": b"xxx9" + sound[4:],
            "another version": b"ref2" + sound[4:],
            "no id": sound[4:],
            "the id twice": sound[:4] + sound,
            "all ones": head + b"\xff" * len(pixels),
            "format 2.0": header(b"NUMPY\x01", b"NUMPY\x02"),
            "big-endian": header(b"<f4", b">f4"),
            "integers": header(b"<f4", b"<i4"),
            "half as many float64": header(b"<f4", b"<f8"),
            "pickled objects": header(b"<f4", b"|O"),
            "Fortran order": header(b"False", b"True "),
            "another shape": header(b"(576, 576)", b"(288, 1152)"),
            "one axis": header(b"(576, 576)", b"(331776,)"),
            "no header": head[:14] + b" " * 117 + b"\n" + pixels,
            "a header of 64 KiB": head[:12] + b"\xff\xff" + head[14:] + pixels,
        }
        | {name: message for name, message in encoded().items() if not name.startswith("ref1")}
    )


def unreadable_calibrations() -> Messages:
    """For references, where a calibration is expected."""
    sound = CALIBRATIONS["cal1_fit"].encode()
    # A calibration may be longer than other JSON.
    broken = {name: message for name, message in broken_json(sound).items() if "huge blanks" not in name}
    numbers = ("amplitude", "optimized_mean", "optimized_std", "background", "xray")
    lies: dict[str, dict[str, Any]] = {
        "ordinal -1": {"ordinal": -1},
        "count -1": {"count": -1},
        "frames -1": {"frames": -1},
        "a first bin far away": {"first_bin": 2**31},
        "half a first bin": {"first_bin": 0.5},
        "a bin too many": {"histogram": [0] * 131_073},
        "a negative bin": {"histogram": [1, -1]},
        "half a pixel": {"histogram": [0.5]},
        "a bin of 64 bits": {"histogram": [2**63]},
        "a bin NaN": {"histogram": [NAN]},
        "a histogram of rows": {"histogram": [[1, 2], [3, 4]]},
    }
    lies |= {f"{name} is {value}": {name: value} for name in numbers for value in (NAN, INFINITY, -INFINITY, None)}
    return (
        broken
        | lying_json(sound, lies)
        | {"more than 3 MiB": sound + b" " * 3 * 2**20}
        | {name: message for name, message in encoded().items() if not name.startswith("cal1")}
    )
