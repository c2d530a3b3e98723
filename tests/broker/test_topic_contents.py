"""What lies in the topics after a run, read with confluent_kafka, blosc2 and pyarrow alone."""

from __future__ import annotations

import json
import struct

import blosc2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.broker.messages import chunks_of, read_topic, scan_log, values
from tests.broker.processes import Ended
from tests.broker.scans import RawScan

FRAMES_PER_CHUNK = 16
PARTITIONS = 8


def test_chunk_messages_hold_the_pixels_of_the_raw_files(
    bootstrap: str, first_run: Ended, unordered_scan: RawScan
) -> None:
    ordinal = first_run.summary["ordinal"]
    for sector in range(4):
        frames: dict[int, NDArray[np.uint16]] = {}
        for message, value in chunks_of(bootstrap, sector, ordinal):
            assert struct.unpack_from("<q", value, 12) == (ordinal,)
            (header_size,), (chunk,) = struct.unpack_from("<I", value, 4), struct.unpack_from("<I", value, 48)
            pixels = np.frombuffer(blosc2.decompress2(value[header_size:]), "<u2").reshape(-1, 144, 576)
            assert message.key() == f"{ordinal}/{chunk * FRAMES_PER_CHUNK}".encode()
            assert message.partition() == chunk % PARTITIONS
            frames.update(enumerate(pixels, start=chunk * FRAMES_PER_CHUNK))
        assert sorted(frames) == list(range(unordered_scan.frame_count))
        for number, pixels in frames.items():
            np.testing.assert_array_equal(pixels, unordered_scan.records[sector][number])


def test_event_messages_hold_the_electrons_of_the_frames(
    bootstrap: str, first_run: Ended, unordered_scan: RawScan
) -> None:
    found: dict[int, list[int]] = {}
    for value in values(read_topic(bootstrap, "events")):
        if value[:1] == b"{":  # the end of a count
            continue
        with pa.ipc.open_stream(value) as stream:
            header = json.loads(stream.schema.metadata[b"stemstream"])
            table = stream.read_all()
        if header["ordinal"] == first_run.summary["ordinal"]:
            assert set(table["missing_sectors"].to_pylist()) == {0}
            found.update(enumerate(table["electrons"].to_pylist(), start=header["chunk_index"] * FRAMES_PER_CHUNK))

    assert sorted(found) == list(range(unordered_scan.frame_count))
    for number, electrons in enumerate(unordered_scan.electrons):
        assert found[number] == electrons.tolist(), f"frame {number}"


def test_the_scan_log_tells_how_the_scan_went(bootstrap: str, first_run: Ended) -> None:
    records = scan_log(bootstrap)
    ordinal = first_run.summary["ordinal"]

    assert records[ordinal]["kind"] == "scan started"
    told = [record["kind"] for record in records if record.get("ordinal") == ordinal]
    assert sorted(told) == ["count finished", "count started"] + 4 * ["sector ended"]
    (finished,) = [r for r in records if r["kind"] == "count finished" and r["ordinal"] == ordinal]
    assert finished["output"] == first_run.summary["output"]
