"""The services started by hand, one process each, as an installation runs them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.broker.counted_files import assert_equals_stempy, files_below, metadata
from tests.broker.messages import chunks_of, end_offsets, read_topic, scan_log, values, write_message
from tests.broker.processes import THRESHOLDS, CommandLine, Service, wait_until
from tests.broker.scans import RawScan, RepeatedScan
from topics import dead_letter

FOUR_COUNTERS = ("received_messages", "sent_messages", "errors", "discarded_messages")
STANDING_BY = "standing by: another sink is active"
ALL_SECTORS = ("--sector", 0, 1, 2, 3)


@dataclass(frozen=True)
class Installation:
    """A counter and a sink that stay."""

    stemstream: CommandLine
    counter: Service
    sink: Service
    output: Path

    def receive(self, scan: RawScan, feed: str) -> Service:
        """Start a receiver of all sectors; the session is named as the feed."""
        source = ("--from", scan.folder, "--session", feed, "--feed", feed)
        return self.stemstream.serve("receive", *ALL_SECTORS, *source)

    def file(self, session: str) -> Path:
        """The only file of a session, as soon as it is there."""
        wait_until(lambda: bool(files_below(self.output / session)), 30, "a partial file")
        wait_until(lambda: not list(self.output.glob(f"{session}/.*")), 30, "the file's final name")
        (file,) = files_below(self.output / session)
        return file


@pytest.fixture(scope="module")
def installation(cluster_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    stemstream, output = CommandLine(cluster_home), tmp_path_factory.mktemp("installation")
    assert stemstream("topics", "create").code == 0
    counter, sink = stemstream.serve("count", *THRESHOLDS), stemstream.serve("sink", "--output", output)
    counter.wait_until_ready()
    sink.wait_until_ready()
    yield Installation(stemstream, counter, sink, output)
    counter.stop()
    sink.stop()
    stemstream.end_all()


def discarded(service: Service, reason: str) -> float:
    return service.metric("discarded_messages_total", reason=reason)


def assert_serves_metrics(service: Service) -> None:
    status, page = service.answer("/metrics")
    assert status == 200
    for name in FOUR_COUNTERS:
        assert f"# TYPE stemstream_{name}_total counter" in page
    assert service.answer("/healthz") == (200, "ok\n")


def test_stage_after_stage_by_hand_gives_the_file_and_not_before_there_are_events(
    stemstream: CommandLine, bootstrap: str, large_scan: RepeatedScan, tmp_path: Path
) -> None:
    assert stemstream("topics", "create").code == 0
    events_before = end_offsets(bootstrap, "events")
    source = ("--from", large_scan.folder, "--feed", "stage-after-stage", "--session", "by-hand")
    receivers = [stemstream.serve("receive", "--sector", sector, *source) for sector in range(4)]
    for sector, receiver in enumerate(receivers):
        receiver.wait_until_ready()
        assert_serves_metrics(receiver)
        assert receiver.metric("sent_messages_total", topic=f"raw.sector.{sector}") > 0
    assert [receiver.process.wait(60) for receiver in receivers] == [0, 0, 0, 0]

    sink = stemstream.serve("sink", "--output", tmp_path)
    sink.wait_until_ready()
    time.sleep(0.5)
    assert end_offsets(bootstrap, "events") == events_before
    assert files_below(tmp_path) == []

    counter = stemstream.serve("count", *THRESHOLDS)
    wait_until(lambda: bool(list(tmp_path.glob("by-hand/scan_*.h5"))), 60, "the file")
    (file,) = files_below(tmp_path)
    assert_equals_stempy(file, large_scan)
    chunks = large_scan.frame_count / 16
    for service in (counter, sink):
        assert_serves_metrics(service)
        assert service.answer("/readyz") == (200, "ready\n")
        assert service.metric("errors_total") == 0
    assert counter.metric("received_messages_total", topic="raw.sector.3") >= chunks
    assert counter.metric("sent_messages_total", topic="events") >= chunks
    assert counter.metric("electrons_total") == sum(map(len, large_scan.electrons))
    assert sink.metric("received_messages_total", topic="events") >= chunks
    assert [counter.stop(), sink.stop()] == [0, 0]


def test_a_receiver_that_was_stopped_half_way_goes_on_when_it_is_started_with_the_same_feed(
    installation: Installation, large_scan: RepeatedScan
) -> None:
    first = installation.receive(large_scan, "stopped")
    wait_until(lambda: first.metric("received_sector_frames_total") > large_scan.frame_count, 30, "a quarter")
    assert first.stop() == 0
    wait_until(lambda: bool(files_below(installation.output / "stopped")), 30, "a partial file")
    assert not list(installation.output.glob("stopped/scan_*.h5"))

    second = installation.receive(large_scan, "stopped")

    assert second.process.wait(60) == 0
    assert_equals_stempy(installation.file("stopped"), large_scan)


def test_a_receiver_that_was_taken_over_ends_and_what_it_wrote_later_is_refused(
    installation: Installation, bootstrap: str, large_scan: RepeatedScan
) -> None:
    first = installation.receive(large_scan, "taken-over")
    wait_until(lambda: first.metric("received_sector_frames_total") > large_scan.frame_count, 30, "a quarter")
    first.process.send_signal(signal.SIGSTOP)
    second = installation.receive(large_scan, "taken-over")
    second.wait_until_ready()
    first.process.send_signal(signal.SIGCONT)

    assert first.process.wait(60) == 2
    assert second.process.wait(60) == 0

    assert "another receiver" in first.log.read_text().splitlines()[-1]
    file = installation.file("taken-over")
    assert_equals_stempy(file, large_scan)

    refused = discarded(installation.counter, "old epoch")
    _, chunk_of_first = chunks_of(bootstrap, 0, int(metadata(file)["ordinal"]))[0]
    write_message(bootstrap, "raw.sector.0", 0, chunk_of_first)
    wait_until(lambda: discarded(installation.counter, "old epoch") == refused + 1, 30, "the refusal")


def last_event(service: Service) -> str:
    """The last that a service logged."""
    event: str = json.loads(service.log.read_text().splitlines()[-1])["event"]
    return event


def test_a_second_counter_and_a_second_sink_join_and_leave_when_they_are_asked_to(installation: Installation) -> None:
    counter = installation.stemstream.serve("count", *THRESHOLDS)
    sink = installation.stemstream.serve("sink", "--output", installation.output, "--slot", "second")
    counter.wait_until_ready()
    sink.wait_until_ready()
    sinks = (installation.sink, sink)
    wait_until(lambda: sorted(map(last_event, sinks)) == ["active", STANDING_BY], 30, "one active sink")

    assert [counter.stop(), sink.stop()] == [0, 0]

    wait_until(lambda: last_event(installation.sink) == "active", 30, "the remaining sink")

    installation.counter.wait_until_ready()


def test_damaged_and_repeated_messages_are_set_aside_and_the_next_scan_is_complete(
    installation: Installation, bootstrap: str, small_scan: RawScan
) -> None:
    assert installation.receive(small_scan, "before").process.wait(60) == 0
    before = installation.file("before")
    assert_equals_stempy(before, small_scan)
    letters_before = len(read_topic(bootstrap, "dead-letters"))
    chunk, value = chunks_of(bootstrap, 1, int(metadata(before)["ordinal"]))[0]
    partition = chunk.partition()
    assert partition is not None

    write_message(bootstrap, "raw.sector.2", 5, b"garbage")
    write_message(bootstrap, "raw.sector.0", partition, value[:1000] + b"\xff" + value[1001:])
    write_message(bootstrap, "events", 3, b'{"neither": "events"}')
    write_message(bootstrap, "raw.sector.1", partition, value)

    wait_until(lambda: discarded(installation.counter, "dead letter") == 2, 30, "the counter's dead letters")
    wait_until(lambda: discarded(installation.sink, "dead letter") == 1, 30, "the sink's dead letter")
    wait_until(lambda: discarded(installation.counter, "late or repeated") == 1, 30, "the repeated chunk")
    wait_until(lambda: len(read_topic(bootstrap, "dead-letters")) == letters_before + 3, 30, "the dead letters")
    letters = [dead_letter.decode(letter) for letter in values(read_topic(bootstrap, "dead-letters"))[letters_before:]]
    found = {(origin.topic, origin.partition, origin.service, kept[:7]) for origin, kept in letters}
    assert found == {
        ("raw.sector.2", 5, "counter", b"garbage"),
        ("raw.sector.0", partition, "counter", value[:7]),
        ("events", 3, "sink", b'{"neith'),
    }

    assert installation.receive(small_scan, "after").process.wait(60) == 0

    assert_equals_stempy(installation.file("after"), small_scan)
    last = scan_log(bootstrap)[-1]
    assert last["kind"] == "count finished"
    assert last["account"]["frames_complete"] == small_scan.frame_count
