"""One count on its way into its file: every chunk once, the account closed, the ends of all partitions awaited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stempy.io import SparseArray

from consumers.scan_file import ScanFile
from service.catalogue import Count, Scan
from service.counted_file import read_events
from tests.golden.values import RECORDS
from topics.errors import DecodeError
from topics.event import CountEnd, EventHeader, Events
from topics.geometry import SECTOR_FRAME_BYTES, ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, PartitionPublished
from topics.scan_log import CountFinished, CountSettings

# 10 frames in 3 chunks: 0 and 2 lie in partition 0, chunk 1 in partition 1.
GEOMETRY = ScanGeometry(width=5, height=2, frames_per_chunk=4, partitions=2)
SETTINGS = CountSettings(background=28.5, xray=2000)


def scan(geometry: ScanGeometry = GEOMETRY) -> Scan:
    return Scan(ordinal=17, session="monday", number=12, feed="f", geometry=geometry, started_ms=0)


def count(name: str = "live") -> Count:
    return Count(22, name, SETTINGS)


@pytest.fixture
def scan_file(tmp_path: Path) -> ScanFile:
    return ScanFile(scan(), count(), tmp_path, "sink-0")


def events(
    index: int,
    rows: list[list[int]] | None = None,
    masks: list[int] | None = None,
    **changes: Any,  # noqa: ANN401
) -> Events:
    """Events of a chunk; unless given, frame f has the electrons 10·f and 10·f + 1."""
    first, frames = 4 * index, GEOMETRY.frames_in_chunk(index)
    rows = [[10 * f, 10 * f + 1] for f in range(first, first + frames)] if rows is None else rows
    header = EventHeader(
        **{
            "ordinal": 17,
            "count": 22,
            "count_name": "live",
            "geometry": GEOMETRY,
            "chunk_index": index,
            "payload_bytes": [1] * 4,
            "epochs": [0] * 4,
        }
        | changes
    )
    return Events(
        header,
        np.array([i for row in rows for i in row], np.uint32),
        np.cumsum([0, *map(len, rows)]),
        np.array(masks or [0] * frames, np.uint8),
    )


def ledger(published: int = 10) -> Ledger:
    return Ledger(
        received=published, published=published, raw_bytes=published * SECTOR_FRAME_BYTES, payload_bytes=100 * published
    )


def end(partition: int, sent: tuple[int | None, ...] = (10, 10, 10, 10), **changes: Any) -> CountEnd:  # noqa: ANN401
    """End of a partition; ``sent`` has what each sector published, None for one whose end is missing."""
    markers = [
        None
        if published is None
        else EndMarker(
            sector=sector,
            ordinal=17,
            epoch=0,
            partition=partition,
            geometry=GEOMETRY,
            published=PartitionPublished(),
            reason=EndReason.COMPLETE if published == 10 else EndReason.SOURCE_ENDED,
            ledger=ledger(published),
        )
        for sector, published in enumerate(sent)
    ]
    fields = {"ordinal": 17, "count": 22, "count_name": "live", "geometry": GEOMETRY, "partition": partition}
    return CountEnd.model_validate(fields | {"ends": markers} | changes)


def finished(scan_file: ScanFile, *chunks: Events, ends: tuple[CountEnd, ...] = (end(0), end(1))) -> CountFinished:
    for chunk in chunks:
        scan_file.add(chunk)
    assert [scan_file.end(one) for one in ends][-1]
    return scan_file.finish("cluster")


def all_chunks() -> list[Events]:
    return [events(index) for index in range(3)]


def test_a_complete_scan_becomes_a_file_that_stempy_opens(scan_file: ScanFile, tmp_path: Path) -> None:
    record = finished(scan_file, *all_chunks())
    path = tmp_path / "monday" / "scan_00012_17.h5"
    assert Path(record.output) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    array = SparseArray.from_hdf5(str(path))
    assert array.scan_shape == (2, 5)
    assert [frames[0].tolist() for frames in array.data] == [[10 * f, 10 * f + 1] for f in range(10)]


def test_the_account_of_a_complete_scan_balances(scan_file: ScanFile) -> None:
    account = finished(scan_file, *all_chunks()).account
    assert (account.frames_expected, account.frames_complete, account.frames_incomplete) == (10, 10, 0)
    assert (account.frames_written, account.electrons) == (10, 20)
    assert account.raw_bytes == 4 * 10 * SECTOR_FRAME_BYTES
    assert account.compressed_bytes == 4 * 1000
    assert [sector.joined for sector in account.sectors] == [10] * 4
    assert account.balanced
    assert account.verdict == "complete"


def test_the_record_names_the_count_and_its_file(scan_file: ScanFile) -> None:
    record = finished(scan_file, *all_chunks())
    assert (record.ordinal, record.count, record.name) == (17, 22, "live")
    assert Path(record.output).is_absolute()


def test_the_metadata_say_what_was_counted_and_how(scan_file: ScanFile) -> None:
    record = finished(scan_file, *all_chunks())
    metadata = SparseArray.from_hdf5(record.output).metadata["stemstream"]
    assert metadata["software"].startswith("stemstream ")
    assert metadata["settings"] == {"background": 28.5, "xray": 2000.0, "engine": "fast"}
    assert json.loads(metadata["account"]) == record.account.model_dump(mode="json")
    expected = {
        "cluster_id": "cluster",
        "session": "monday",
        "number": 12,
        "ordinal": 17,
        "count": 22,
        "count_name": "live",
        "frames_per_position": 1,
        "verdict": "complete",
    }
    assert {name: metadata[name] for name in expected} == expected


def test_another_count_of_the_scan_has_its_name_in_the_file_name(tmp_path: Path) -> None:
    record = finished(ScanFile(scan(), count("again"), tmp_path, "sink-0"), *all_chunks())
    assert Path(record.output).name == "scan_00012_17_again.h5"


def test_events_that_come_again_are_left_out_and_the_first_ones_stay(scan_file: ScanFile) -> None:
    assert scan_file.add(events(1))
    assert not scan_file.add(events(1, rows=[[1], [2], [3], [4]]))
    assert (scan_file.frames_written, scan_file.electrons) == (4, 8)
    record = finished(scan_file, *all_chunks())
    assert record.account.electrons == 20
    assert read_events(Path(record.output)).indices[8:16].tolist() == [40, 41, 50, 51, 60, 61, 70, 71]


def test_the_order_of_chunks_and_ends_does_not_matter(scan_file: ScanFile) -> None:
    assert scan_file.add(events(1))
    assert not scan_file.end(end(1))
    assert not scan_file.end(end(1))  # said twice
    assert scan_file.add(events(2))
    assert scan_file.add(events(0))
    assert scan_file.end(end(0))
    assert scan_file.finish("cluster").account.verdict == "complete"


def test_incomplete_frames_are_masked_and_the_account_says_which_sector_missed_how_many(scan_file: ScanFile) -> None:
    lossy = events(1, rows=[[40], [], [], [70]], masks=[0, 0b0001, 0b1001, 0])
    record = finished(scan_file, events(0), lossy, events(2), ends=(end(0, (8, 10, 10, 9)), end(1, (8, 10, 10, 9))))
    account = record.account
    assert (account.frames_complete, account.frames_incomplete, account.frames_written) == (8, 2, 8)
    assert [sector.joined for sector in account.sectors] == [8, 10, 10, 9]
    assert account.sectors[0].reason is EndReason.SOURCE_ENDED
    assert account.balanced
    assert account.verdict == "incomplete"
    assert read_events(Path(record.output)).missing_sectors.tolist() == [0, 0, 0, 0, 0, 1, 9, 0, 0, 0]


def test_a_chunk_that_never_came_is_missing_in_all_sectors_and_the_account_does_not_balance(
    scan_file: ScanFile,
) -> None:
    record = finished(scan_file, events(0), events(2))
    assert (record.account.frames_complete, record.account.frames_incomplete) == (6, 4)
    assert [sector.joined for sector in record.account.sectors] == [6] * 4
    assert not record.account.balanced
    assert record.account.verdict == "incomplete"
    assert read_events(Path(record.output)).missing_sectors.tolist() == [0] * 4 + [15] * 4 + [0] * 2


def test_a_sector_without_an_end_has_no_ledger(scan_file: ScanFile) -> None:
    ends = (end(0, (10, None, 10, 10)), end(1, (10, None, 10, 10)))
    account = finished(scan_file, *all_chunks(), ends=ends).account
    assert [sector.ledger is None for sector in account.sectors] == [False, True, False, False]
    assert account.verdict == "incomplete"


def test_an_end_that_reached_one_partition_is_enough_for_the_ledger(scan_file: ScanFile) -> None:
    ends = (end(0, (10, None, 10, 10)), end(1, (None, 10, 10, 10)))
    account = finished(scan_file, *all_chunks(), ends=ends).account
    assert [sector.ledger for sector in account.sectors] == [ledger()] * 4
    assert account.verdict == "complete"


def test_the_first_end_of_a_partition_holds(scan_file: ScanFile) -> None:
    ends = (end(1), end(1, (1, 1, 1, 1)), end(0))
    assert finished(scan_file, *all_chunks(), ends=ends).account.verdict == "complete"


OTHER = GEOMETRY.model_copy(update={"width": 2, "height": 5})


@pytest.mark.parametrize(
    ("message", "partition"),
    [
        (events(0, ordinal=18), 0),
        (events(0, geometry=OTHER), 0),
        (events(0), 1),
        (events(1), 0),
        (end(0, ordinal=18), 0),
        (end(0, geometry=OTHER), 0),
        (end(0), 1),
        (end(2), 2),
    ],
    ids=[
        "events of another scan",
        "events of another geometry",
        "chunk 0 in partition 1",
        "chunk 1 in partition 0",
        "end of another scan",
        "end of another geometry",
        "end of partition 0 in 1",
        "end of a partition that the scan does not have",
    ],
)
def test_a_message_that_does_not_belong_here_is_refused(
    scan_file: ScanFile, message: Events | CountEnd, partition: int
) -> None:
    with pytest.raises(DecodeError):
        scan_file.check(message, partition)


def test_messages_in_their_places_pass(scan_file: ScanFile) -> None:
    for index in range(3):
        scan_file.check(events(index), index % 2)
    for partition in range(2):
        scan_file.check(end(partition), partition)


def test_until_it_is_finished_the_file_has_a_hidden_name_of_its_sink(scan_file: ScanFile, tmp_path: Path) -> None:
    scan_file.add(events(0))
    assert [p.name for p in (tmp_path / "monday").iterdir()] == [".scan_00012_17.sink-0.partial"]
    scan_file.discard()
    assert not list((tmp_path / "monday").iterdir())


def test_a_partial_file_that_was_left_is_begun_again(tmp_path: Path) -> None:
    left = tmp_path / "monday" / ".scan_00012_17.sink-0.partial"
    left.parent.mkdir()
    left.write_bytes(b"torn")
    assert finished(ScanFile(scan(), count(), tmp_path, "sink-0"), *all_chunks()).account.verdict == "complete"
    assert not left.exists()


def test_the_same_count_once_more_gives_the_same_file(tmp_path: Path) -> None:
    outputs = [finished(ScanFile(scan(), count(), tmp_path, f"sink-{i}"), *all_chunks()).output for i in range(2)]
    assert outputs[0] == outputs[1]
    assert len(list((tmp_path / "monday").iterdir())) == 1


def test_a_count_runs_until_it_is_finished_or_abandoned(tmp_path: Path) -> None:
    running = count()
    scan_file = ScanFile(scan(), running, tmp_path, "sink-0")
    assert scan_file.count_running
    running.abandoned = "why"
    assert not scan_file.count_running
    running.abandoned, record = None, RECORDS["log1_count_finished"]
    assert isinstance(record, CountFinished)
    running.finished = record
    assert not scan_file.count_running
    scan_file.discard()
