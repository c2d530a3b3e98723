"""The sink: events in, one HDF5 file a count out.

One sink of the group is active, the one that owns the only partition of ``scans``; it reads all partitions of
``events``. Its committed offsets are the first ones of the oldest unfinished count: killed half-way, the next sink
starts that file again from the topic.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from consumers.scan_file import ScanFile
from service.catalogue import Scan
from service.counted_file import annotate_file
from service.dead_letters import set_aside
from service.errors import FaultError, InputError
from service.kafka import (
    REQUEST_TIMEOUT_S,
    SINK_GROUP,
    Consumer,
    Message,
    TopicPartition,
    consumer,
    poll_batch,
    producer,
    raise_for,
    start_of_group,
)
from service.logs import get_logger
from service.metrics import Metrics
from service.process import CommonSettings, StopFlag, run_service
from service.references import fetch_calibration
from service.scan_log import ScanLog
from service.topic_admin import cluster_id, deployment_partitions
from topics import event
from topics.calibration import Calibration
from topics.errors import DecodeError
from topics.event import CountEnd, EventMessage, Events
from topics.registry import DEAD_LETTERS, EVENTS, SCANS

POLL_TIMEOUT_S = 0.05
MESSAGES_A_POLL = 256


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What a sink is told. ``slot`` names its partial files."""

    common: CommonSettings
    output: Path
    slot: str = "sink-0"


def run_sink(settings: SinkSettings) -> int:
    """Run the process; returns its exit code."""
    return run_service("sink", settings.common, lambda metrics, stop: _Sink(settings, metrics).run(stop))


def check_output(output: Path) -> None:
    """Make the output folder and try to write there.

    Raises
    ------
    InputError
        It cannot be made or written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from error


def annotate_scan(scan: Scan) -> list[Path]:
    """Bring a scan's annotations into its finished files; the files that changed."""
    paths = [Path(name) for name in scan.files]
    return [path for path in paths if path.exists() and annotate_file(path, scan.annotations)]


class _Sink:
    def __init__(self, settings: SinkSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        bootstrap = settings.common.bootstrap
        check_output(settings.output)
        self._partitions = deployment_partitions(bootstrap)
        self._cluster_id = cluster_id(bootstrap)
        self._log = ScanLog(bootstrap)
        self._producer = producer(bootstrap, "sink")
        self._consumer = consumer(bootstrap, SINK_GROUP)
        self._files: dict[int, ScanFile] = {}
        self._log_seen = -1  # up to where the log was acted upon
        self._annotated: dict[int, dict[str, str]] = {}  # what is in the files, by ordinal
        self._done: set[int] = set()  # counts that need no (further) file
        self._next_offsets: dict[int, int] = {}
        self._frames = metrics.counter("written_frames", "Complete frames written into files")
        self._electrons = metrics.counter("written_electrons", "Electrons written into files")
        self._finished = metrics.counter("finished_files", "Files under their final name", "verdict")

    def run(self, stop: StopFlag) -> int:
        """Write files until asked to stop."""
        self._consumer.subscribe([SCANS], on_assign=self._on_assign, on_revoke=self._on_revoke)
        try:
            while not stop:
                self._metrics.health.beat()
                for message in poll_batch(self._consumer, POLL_TIMEOUT_S, MESSAGES_A_POLL):
                    self._take_in(message)
                self._observe_lag()
                self._log.poll()
                if self._log.next_offset != self._log_seen:
                    self._log_seen = self._log.next_offset
                    self._drop_abandoned()
                    self._annotate()
        except OSError as error:
            raise FaultError(
                f"{error.filename or self._settings.output}: writing failed: {error.strerror or error}; "
                "nothing is lost, the file is started again from the topic"
            ) from error
        finally:
            self._drop_files()
            self._consumer.close()
            self._log.close()
        return 0

    # Active or standing by.

    def _on_assign(self, client: Consumer, assigned: list[TopicPartition]) -> None:
        if not assigned:
            client.assign([])
            self._metrics.health.set_ready(True)
            get_logger().info("standing by: another sink is active")
            return
        self._log.catch_up()
        self._remove_old_partials()
        client.assign([self._start_of(place) for place in self._committed(client)])
        self._annotate()
        self._metrics.health.set_ready(True)
        get_logger().info("active", offsets=self._next_offsets)

    def _on_revoke(self, client: Consumer, revoked: list[TopicPartition]) -> None:
        self._drop_files()
        self._next_offsets.clear()
        self._done.clear()
        self._metrics.health.set_ready(False, "standing by, not yet assigned")

    def _committed(self, client: Consumer) -> Iterable[TopicPartition]:
        places = [TopicPartition(EVENTS, partition) for partition in range(self._partitions)]
        return client.committed(places, timeout=REQUEST_TIMEOUT_S)

    def _start_of(self, place: TopicPartition) -> TopicPartition:
        start = start_of_group(self._consumer, SINK_GROUP, place, "events that are in no file yet")
        self._next_offsets[place.partition] = start.offset
        return start

    def _remove_old_partials(self) -> None:
        for partial in self._settings.output.glob(f"*/.scan_*.{self._settings.slot}.partial"):
            get_logger().info("removing the partial file of an earlier run", path=str(partial))
            partial.unlink()

    def _drop_files(self) -> None:
        for scan_file in self._files.values():
            scan_file.discard()
        self._files.clear()

    def _drop_abandoned(self) -> None:
        for count in [count for count, scan_file in self._files.items() if not scan_file.count_running]:
            get_logger().warning("count abandoned, its partial file is dropped", count=count)
            self._files.pop(count).discard()
            self._done.add(count)

    def _annotate(self) -> None:
        """Bring annotations that came after a file was finished into it. Only the active sink touches files."""
        for scan in self._log.catalogue.annotated(self._annotated) if self._next_offsets else []:
            self._annotated[scan.ordinal] = scan.annotations
            try:
                for path in annotate_scan(scan):
                    get_logger().info("file annotated", ordinal=scan.ordinal, output=str(path))
            except OSError as error:  # of a file that is finished: no reason to stop writing others
                self._metrics.errors.labels("annotation").inc()
                get_logger().error("file not annotated", ordinal=scan.ordinal, reason=str(error))

    # Messages come in.

    def _take_in(self, message: Message) -> None:
        if not raise_for(message):
            return
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert partition is not None
        assert offset is not None
        if partition not in self._next_offsets:  # revoked since it was fetched
            return
        self._next_offsets[partition] = offset + 1
        self._metrics.received.labels(EVENTS).inc()
        self._metrics.received_bytes.labels(EVENTS).inc(len(value or b""))
        try:
            decoded = event.decode(value)
            scan_file = self._file_of(decoded, partition, offset)
        except DecodeError as error:
            self._set_aside(partition, offset, value or b"", str(error))
            return
        if scan_file is None:
            self._metrics.discarded.labels("count not running").inc()
        elif isinstance(decoded, Events):
            self._write(scan_file, decoded)
        elif scan_file.end(decoded):
            self._finish(decoded, scan_file)

    def _write(self, scan_file: ScanFile, events: Events) -> None:
        frames, electrons = scan_file.frames_written, scan_file.electrons
        if not scan_file.add(events):
            self._metrics.discarded.labels("repeated").inc()
            get_logger().warning(
                "repeated events discarded", ordinal=events.header.ordinal, chunk=events.header.chunk_index
            )
        self._frames.inc(scan_file.frames_written - frames)
        self._electrons.inc(scan_file.electrons - electrons)

    def _file_of(self, message: EventMessage, partition: int, offset: int) -> ScanFile | None:
        """The file that a message belongs to, begun if need be; None if its count needs none (any more).

        Raises
        ------
        DecodeError
            The scan log knows no such count, or the message contradicts it.
        """
        fields = message if isinstance(message, CountEnd) else message.header
        if fields.count in self._done:
            return None
        scan_file = self._files.get(fields.count)
        if scan_file is None:
            scan_file = self._begin(fields.ordinal, fields.count, fields.count_name)
            if scan_file is None:
                self._done.add(fields.count)
                return None
            self._files[fields.count] = scan_file
        scan_file.check(message, partition)
        scan_file.first_offsets.setdefault(partition, offset)
        return scan_file

    def _begin(self, ordinal: int, count_offset: int, name: str) -> ScanFile | None:
        self._log.poll()
        if ordinal not in self._log.catalogue.scans:
            self._log.catch_up()
        scan = self._log.catalogue.scans.get(ordinal)
        count = scan.counts.get(name) if scan else None
        if scan is None or count is None or count.offset != count_offset:
            self._log.catch_up()
            count = scan.counts.get(name) if scan else None
        if scan is None or count is None or count.offset != count_offset:
            raise DecodeError(f"the scan log has no count {count_offset} named {name} of scan {ordinal}")
        if not count.running:
            return None
        if count.thresholds is None:  # they were found before anything was counted
            self._log.catch_up()
        get_logger().info("file begun", ordinal=ordinal, count=count_offset)
        return ScanFile(scan, count, self._settings.output, self._settings.slot)

    def _set_aside(self, partition: int, offset: int, value: bytes, reason: str) -> None:
        key, letter = set_aside(self._metrics, "sink", EVENTS, partition, offset, value=value, reason=reason)
        self._producer.produce(DEAD_LETTERS, letter, key, 0)
        self._producer.flush(REQUEST_TIMEOUT_S)

    # Files are finished.

    def _finish(self, end: CountEnd, scan_file: ScanFile) -> None:
        """Complete the file, say so in the log, then let go of its events: in this order."""
        calibration = self._calibration(scan_file)
        del self._files[end.count]
        self._done.add(end.count)
        finished = scan_file.finish(self._cluster_id, calibration)
        self._log.append(finished)
        self._commit()
        self._finished.labels(finished.account.verdict).inc()
        get_logger().info(
            "file finished", ordinal=end.ordinal, output=finished.output, verdict=finished.account.verdict
        )

    def _calibration(self, scan_file: ScanFile) -> Calibration | None:
        """The histogram that thresholds were found from; a file is written without one that is gone."""
        if scan_file.calibration is None:
            return None
        try:
            return fetch_calibration(self._log.bootstrap, scan_file.calibration)
        except FaultError as error:
            self._metrics.errors.labels("calibration").inc()
            get_logger().error("the file gets no histogram of its thresholds", reason=str(error))
            return None

    def _commit(self) -> None:
        """Commit, per partition, the first offset of the oldest unfinished count."""
        offsets = []
        for partition, next_offset in self._next_offsets.items():
            open_counts = [f.first_offsets[partition] for f in self._files.values() if partition in f.first_offsets]
            offsets.append(TopicPartition(EVENTS, partition, min(open_counts, default=next_offset)))
        self._consumer.commit(offsets=offsets, asynchronous=False)

    def _observe_lag(self) -> None:
        for partition, next_offset in self._next_offsets.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(EVENTS, partition), cached=True)
            self._metrics.lag.labels(EVENTS, partition).set(max(0, high - next_offset))
