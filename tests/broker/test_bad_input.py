"""Bad input: one line that says what is wrong, the exit code of the kind of mistake, and nothing left behind."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from stemstream import broker
from tests.broker.messages import end_offsets
from tests.broker.processes import THRESHOLDS, CommandLine, Ended, free_port
from tests.broker.scans import RECORD, RawScan, write_scan


@dataclass(frozen=True)
class Spare:
    """A broker whose topics tests may spoil, and what `topics create` and `topics check` said before."""

    stemstream: CommandLine
    admin: AdminClient
    created: Ended
    checked: Ended
    partitions: dict[str, int]


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spare]:
    home = tmp_path_factory.mktemp("spare")
    state = broker.start(home, port=free_port(), die_with_parent=True)
    stemstream, admin = CommandLine(home), AdminClient({"bootstrap.servers": state.bootstrap})
    created, checked = stemstream("topics", "create", "--partitions", 3), stemstream("topics", "check")
    found = admin.list_topics(timeout=10).topics
    partitions = {name: len(topic.partitions) for name, topic in found.items() if not name.startswith("__")}
    yield Spare(stemstream, admin, created, checked, partitions)
    broker.stop(home)


@pytest.fixture
def scan(tmp_path: Path) -> RawScan:
    """A scan of 2x2 positions that a test may spoil."""
    return write_scan(tmp_path / "raw", np.zeros((1, 576, 576), np.uint16), 2, 2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def raw_file(scan: RawScan, module: int) -> Path:
    (path,) = scan.folder.glob(f"*_module{module}_*.data")
    return path


def assert_refused(ended: Ended, out: Path, *words: str, code: int = 2) -> None:
    assert ended.code == code, ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for word in words:
        assert word in ended.stderr
    assert ended.stdout == ""
    assert not list(out.rglob("*"))


def test_an_empty_folder_is_refused(stemstream: CommandLine, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = stemstream("run", tmp_path / "empty", "--output", out, *THRESHOLDS, "--json")
    assert_refused(ended, out, str(tmp_path / "empty"), "no raw files")


def test_a_folder_that_is_not_there_is_refused(stemstream: CommandLine, tmp_path: Path, out: Path) -> None:
    ended = stemstream("run", tmp_path / "nowhere", "--output", out, *THRESHOLDS, "--json")
    assert_refused(ended, out, str(tmp_path / "nowhere"), "no such file or folder")


def test_a_truncated_record_is_refused_with_its_file(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    path = raw_file(scan, 1)
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(stemstream.run(scan, out), out, str(path), "truncated", "3 whole records")


def test_a_module_without_a_file_is_refused_by_its_number(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    raw_file(scan, 3).unlink()
    assert_refused(stemstream.run(scan, out), out, "no records of module 3")


def test_mixed_scan_sizes_are_refused_with_both(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    records = np.fromfile(raw_file(scan, 2), RECORD)
    records["scan_size"][1] = 4, 1
    records.tofile(raw_file(scan, 2))
    assert_refused(stemstream.run(scan, out), out, "mixed scan sizes", "2x2", "4x1")


def test_an_output_that_cannot_be_written_is_refused(stemstream: CommandLine, scan: RawScan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder\n")
    ended = stemstream.run(scan, tmp_path / "file" / "out")
    assert_refused(ended, tmp_path / "file" / "out", str(tmp_path / "file" / "out"), "cannot be written")


def test_without_both_thresholds_nothing_is_counted(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    ended = stemstream("run", scan.folder, "--output", out, "--background", 40, "--json")
    assert_refused(ended, out, "no thresholds", "--background", "--xray")


def test_a_background_threshold_at_the_xray_threshold_is_refused(
    stemstream: CommandLine, scan: RawScan, out: Path
) -> None:
    ended = stemstream("run", scan.folder, "--output", out, "--background", 40, "--xray", 40, "--json")
    assert_refused(ended, out, "--background 40", "--xray 40")


def test_a_session_name_that_would_leave_the_output_folder_is_refused(
    stemstream: CommandLine, scan: RawScan, out: Path
) -> None:
    assert_refused(stemstream.run(scan, out, "--session", "../elsewhere"), out, "--session", "../elsewhere")


def test_a_simulated_scan_that_does_not_fit_on_the_disk_is_refused(stemstream: CommandLine, out: Path) -> None:
    ended = stemstream("run", "sim:20000x20000", "--output", out, *THRESHOLDS, "--json")
    assert ended.code == 2
    assert ended.stderr.splitlines()[-1].startswith("error: the scan cannot be simulated: not enough disk space")
    assert "Traceback" not in ended.stderr
    assert not list(stemstream.home.glob("simulated/*"))


def test_a_home_that_cannot_be_written_is_refused(scan: RawScan, tmp_path: Path, out: Path) -> None:
    (tmp_path / "file").write_text("no folder\n")
    ended = CommandLine(tmp_path / "file" / "home").run(scan, out)
    assert_refused(ended, out, str(tmp_path / "file" / "home"), "STEMSTREAM_HOME")


def test_a_broker_that_does_not_answer_is_a_fault(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert_refused(stemstream.run(scan, out, "--bootstrap", address), out, address, "no Kafka broker answers", code=1)


def test_a_second_run_beside_a_first_is_refused(stemstream: CommandLine, scan: RawScan, out: Path) -> None:
    with (stemstream.home / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_refused(stemstream.run(scan, out), out, "another run is under way")


def test_a_run_beside_services_that_are_up_is_refused_and_leaves_them_alone(
    stemstream: CommandLine, bootstrap: str, scan: RawScan, out: Path
) -> None:
    assert stemstream("topics", "create").code == 0
    counter = stemstream.serve("count", *THRESHOLDS)
    counter.wait_until_ready()
    scans_before = end_offsets(bootstrap, "scans")

    assert_refused(stemstream.run(scan, out), out, "services are up already", "counters")

    assert counter.answer("/readyz")[0] == 200
    assert end_offsets(bootstrap, "scans") == scans_before
    assert counter.stop() == 0


def test_topics_create_makes_the_topics_of_the_registry_and_check_finds_them_alike(spare: Spare) -> None:
    assert spare.created.code == 0, spare.created.stderr
    assert spare.created.stdout.startswith("made: scans, raw.sector.0, ")
    assert spare.checked.code == 0, spare.checked.stdout
    raw = {f"{kind}.sector.{sector}": 3 for kind in ("raw", "archive") for sector in range(4)}
    assert spare.partitions == raw | {"scans": 1, "references": 1, "events": 3, "dead-letters": 1}


def test_a_service_names_the_topic_that_is_missing(spare: Spare, out: Path) -> None:
    spare.admin.delete_topics(["events"])["events"].result(10)

    checked, counted, sunk = (
        spare.stemstream("topics", "check"),
        spare.stemstream("count", *THRESHOLDS),
        spare.stemstream("sink", "--output", out),
    )

    assert checked.code == 1
    assert "differs: events: missing" in checked.stdout
    for ended in (counted, sunk):
        assert ended.code == 2
        assert ended.stderr.splitlines()[-1].startswith("error: topics are missing: events; make them with")
    assert not list(out.rglob("*"))


def test_raw_and_events_topics_of_unequal_partition_counts_are_refused(spare: Spare, scan: RawScan, out: Path) -> None:
    assert spare.stemstream("topics", "create").code == 0
    spare.admin.create_partitions([NewPartitions("events", 5)])["events"].result(10)

    assert_refused(
        spare.stemstream.run(scan, out), out, "equally many partitions", "events has 5", "raw.sector.0 has 3"
    )

    checked = spare.stemstream("topics", "check")
    assert checked.code == 1
    assert "differs: events: 5 partitions" in checked.stdout
