"""The one-shot ``run``: start what is missing, stream one scan, wait for its file, stop what was started."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consumers.sink import check_output
from producers.raw_files import RawFiles, open_raw_files
from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.catalogue import Catalogue, Count, Scan
from service.errors import FaultError, InputError
from service.home import home_dir
from service.kafka import COUNTER_GROUP, SINK_GROUP
from service.logs import get_logger
from service.scan_log import ScanLog
from service.topic_admin import active_members, cluster_id, create_topics
from stemstream import broker
from stemstream.run_beside import check_same_settings, send_to_services
from stemstream.supervisor import Child, Supervisor, is_ready, metric_samples
from stemstream.up_state import UpState, read_state
from topics.geometry import SECTORS
from topics.scan_log import DEFAULT_SESSION, LIVE, CountAbandoned, CountFinished, CountSettings

FEED_PREFIX = "run-"  # of the scans that a run may close when it finds them left open
SIMULATED = "simulated"  # folder below the home
BROKER_ANSWER_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 60.0
MEMBERS_GONE_TIMEOUT_S = 15.0
CHECK_INTERVAL_S = 0.05
REPORT_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is told. ``source``: a folder or glob of raw files, or ``sim:WxH``."""

    source: str
    output: Path
    count: CountSettings
    variables: dict[str, str]  # that say to receivers and counters how to send and to count
    session: str | None = None  # None: the current one of services that are up, else the default one
    counters: int = 1
    bootstrap: str | None = None  # None: the embedded broker


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came out. Times in s: ``seconds`` from the first frame read to the file under its final name,
    ``finish_latency_seconds`` from the last frame published to there.
    """  # noqa: D205

    scan: str
    ordinal: int
    output: str
    verdict: str
    background: float
    xray: float
    threshold_source: str
    frames_expected: int
    frames_complete: int
    frames_incomplete: int
    electrons: int
    raw_bytes: int
    compressed_bytes: int
    compression_ratio: float
    seconds: float
    frames_per_second: float
    megabytes_per_second: float
    finish_latency_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Fields for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many frames of a scan each stage has done."""

    frames: int
    read: int
    counted: int
    written: int


def run_scan(settings: RunSettings, report: Callable[[Progress], None], say: Callable[[str], None]) -> RunSummary:
    """Stream one scan through Kafka into its file.

    ``report`` is called often while the scan runs, ``say`` with what is being done before.

    Raises
    ------
    InputError
        Wrong settings or input, or services are up already.
    FaultError
        The broker does not answer, or a process died again and again.
    """
    home = home_dir()
    check_output(settings.output)
    with ExitStack() as stack:
        stack.enter_context(_only_run(home))
        feed = f"{FEED_PREFIX}{uuid.uuid4()}"
        source = stack.enter_context(_simulated(settings.source, home / SIMULATED / feed, say))
        files = open_raw_files(source)
        up = _services_up(home, settings.bootstrap)
        if up is not None:
            return _run_beside(up, settings, files, report, say)
        bootstrap, keep_broker = stack.enter_context(_broker(settings.bootstrap, home, say))
        _refuse_services(bootstrap)
        create_topics(bootstrap)
        log = stack.enter_context(ScanLog(bootstrap))
        _close_left_open(log)
        stack.enter_context(_abandon_unless_finished(log, feed))
        say("starting counters and sink")
        supervisor = stack.enter_context(Supervisor(home / "logs" / feed))
        consumers = _start_consumers(supervisor, settings, bootstrap)
        _wait_until_ready(supervisor, consumers)
        receiver = _start_receiver(supervisor, settings, bootstrap, source, feed)

        def look_around() -> None:
            keep_broker()
            report(_progress(files, receiver, consumers))

        scan, finished = _wait_for_file(supervisor, log, feed, look_around)
        frames = scan.geometry.frames
        report(Progress(frames, frames, frames, finished.account.frames_written))
        return _summary(scan, finished)


def _services_up(home: Path, bootstrap: str | None) -> UpState | None:
    """The services of ``stemstream up`` on this broker, if they are up."""
    up = read_state(home)
    if up is None or up.supervisor() is None or bootstrap not in (None, up.bootstrap):
        return None
    if not up.started:
        raise InputError("services are starting; wait until stemstream status says that they are ready")
    return up


def _run_beside(
    up: UpState,
    settings: RunSettings,
    files: RawFiles,
    report: Callable[[Progress], None],
    say: Callable[[str], None],
) -> RunSummary:
    """Feed the services that are up, with the settings that they have."""
    frames = files.width * files.height * files.frames_per_position
    with ScanLog(up.bootstrap) as log:
        session = log.catch_up().session
        variables = {**settings.variables, "STEMSTREAM_OUTPUT": str(settings.output.absolute())}
        check_same_settings(up, settings.count, variables, settings.session, session)
        say("services are up: the scan is sent to their receivers")
        scan, finished = send_to_services(up, files, log, lambda sent: report(Progress(frames, sent // SECTORS, 0, 0)))
    report(Progress(frames, frames, frames, finished.account.frames_written))
    return _summary(scan, finished)


# Before the scan.


@contextmanager
def _only_run(home: Path) -> Iterator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "run.lock").open("w")
    except OSError as error:
        raise InputError(
            f"{home}: cannot be written: {error.strerror}; STEMSTREAM_HOME names another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("another run is under way on this machine; wait until it ends") from error
        shutil.rmtree(home / SIMULATED, ignore_errors=True)  # of a run that was killed
        yield


@contextmanager
def _simulated(source: str, folder: Path, say: Callable[[str], None]) -> Iterator[str]:
    """The source itself, or the folder of a simulation's raw files for as long as they are needed."""
    if not source.startswith("sim:"):
        yield source
        return
    match = re.fullmatch(r"sim:(\d+)x(\d+)", source)
    if match is None:
        raise InputError(f"{source}: a simulated scan is named sim:WIDTHxHEIGHT, for example sim:64x64")
    try:
        simulation = Simulation(int(match[1]), int(match[2]))
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    say(f"simulating a scan of {match[1]}x{match[2]} positions")
    try:
        _write_simulated(simulation, folder)
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_simulated(simulation: Simulation, folder: Path) -> None:
    try:
        write_raw_files(simulation, folder)
    except OSError as error:
        raise InputError(f"the scan cannot be simulated: {error}") from error


@contextmanager
def _broker(bootstrap: str | None, home: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Address of a broker that answers: the one that was named, or the embedded one, started if need be.

    Also yields what starts the embedded one again if it died.
    """
    if bootstrap is not None:
        cluster_id(bootstrap, BROKER_ANSWER_TIMEOUT_S)
        yield bootstrap, lambda: None
        return
    if broker.status(home) is None:
        say("starting the embedded Kafka broker")
    state = broker.start(home, die_with_parent=True)
    try:
        yield state.bootstrap, lambda: _keep_broker(home, state)
    finally:
        if state.owner_pid == os.getpid():
            broker.stop(home)


def _keep_broker(home: Path, died: broker.BrokerState) -> None:
    """Start the embedded broker again if it died, on the port that all clients know."""
    if broker.status(home) is not None:
        return
    get_logger().error("the embedded broker died, starting it again", bootstrap=died.bootstrap)
    port = int(died.bootstrap.rpartition(":")[2])
    state = broker.start(home, port=port, die_with_parent=died.owner_pid is not None)
    if state.bootstrap != died.bootstrap:
        raise FaultError(f"the embedded broker died, and another program has its port now: {died.bootstrap}")


def _refuse_services(bootstrap: str) -> None:
    """Refuse to run beside services that are up; members of a run that was killed are waited out."""
    deadline = time.monotonic() + MEMBERS_GONE_TIMEOUT_S
    while members := active_members(bootstrap, (COUNTER_GROUP, SINK_GROUP)):
        if time.monotonic() > deadline:
            listed = ", ".join(f"{count} of the group {group}" for group, count in members.items())
            raise InputError(f"services are up already on {bootstrap} ({listed}); stop them before a run")
        time.sleep(0.5)


def _close_left_open(log: ScanLog) -> None:
    """Abandon the counts of earlier runs that were never finished. Their raw data stay in the topics."""
    for scan in log.catch_up().scans.values():
        count = scan.counts.get(LIVE)
        left_open = count.running if count else not scan.abandoned
        if scan.feed.startswith(FEED_PREFIX) and left_open:
            get_logger().warning("abandoning what an earlier run left open", ordinal=scan.ordinal)
            _abandon(log, scan)


@contextmanager
def _abandon_unless_finished(log: ScanLog, feed: str) -> Iterator[None]:
    """When this run fails or is interrupted, say in the log that nobody will finish its count."""
    try:
        yield
    except BaseException:
        scan = _scan_of(log.catch_up(), feed)
        if scan:
            _abandon(log, scan)
        raise


def _abandon(log: ScanLog, scan: Scan) -> None:
    count = scan.counts.get(LIVE)
    log.append(
        CountAbandoned(ordinal=scan.ordinal, count=count.offset if count else None, why="the run ended before its file")
    )


# The scan.


def _start_consumers(supervisor: Supervisor, settings: RunSettings, bootstrap: str) -> list[Child]:
    common = ["--bootstrap", bootstrap]
    consumers = [
        supervisor.start("counter", index, ["count", *common, "--slot", str(index)], environment=settings.variables)
        for index in range(settings.counters)
    ]
    consumers.append(supervisor.start("sink", 0, ["sink", *common, "--output", str(settings.output.absolute())]))
    return consumers


def _wait_until_ready(supervisor: Supervisor, children: list[Child]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    waiting = list(children)
    while waiting:
        supervisor.check()
        waiting = [child for child in waiting if not is_ready(child.metrics_port)]
        if waiting and time.monotonic() > deadline:
            raise FaultError(f"{waiting[0].name} is not ready after {READY_TIMEOUT_S:.0f} s; see {waiting[0].log_file}")
        time.sleep(CHECK_INTERVAL_S)


def _start_receiver(supervisor: Supervisor, settings: RunSettings, bootstrap: str, source: str, feed: str) -> Child:
    sectors = [part for sector in range(SECTORS) for part in ("--sector", str(sector))]
    arguments = ["--bootstrap", bootstrap, "--from", source, "--session", settings.session or DEFAULT_SESSION]
    arguments += ["--feed", feed]
    return supervisor.start("receiver", 0, ["receive", *sectors, *arguments], once=True, environment=settings.variables)


def _wait_for_file(
    supervisor: Supervisor, log: ScanLog, feed: str, look_around: Callable[[], None]
) -> tuple[Scan, CountFinished]:
    next_report = 0.0
    while True:
        supervisor.check()
        log.poll(CHECK_INTERVAL_S)
        scan = _scan_of(log.catalogue, feed)
        count: Count | None = scan.counts.get(LIVE) if scan else None
        if scan and count and count.finished:
            return scan, count.finished
        if scan and count and count.abandoned and len(scan.ended) == SECTORS:  # so that it can be replayed as a whole
            raise InputError(f"the scan was not counted: {count.abandoned}")
        if time.monotonic() >= next_report:
            look_around()
            next_report = time.monotonic() + REPORT_INTERVAL_S


def _scan_of(catalogue: Catalogue, feed: str) -> Scan | None:
    return next((scan for scan in reversed(catalogue.scans.values()) if scan.feed == feed), None)


def _progress(files: RawFiles, receiver: Child, consumers: list[Child]) -> Progress:
    totals = {"received_sector_frames": 0.0, "counted_frames": 0.0, "written_frames": 0.0}
    for child in (receiver, *consumers):
        for name, _, value in metric_samples(child.metrics_port):
            key = name.removeprefix("stemstream_").removesuffix("_total")
            if key in totals:
                totals[key] += value
    frames = files.width * files.height * files.frames_per_position
    read, counted, written = (int(value) for value in totals.values())
    return Progress(frames, read // SECTORS, counted, written)


def _summary(scan: Scan, finished: CountFinished) -> RunSummary:
    account = finished.account
    thresholds = scan.counts[finished.name].thresholds
    assert thresholds is not None  # without them it would not be finished
    ledgers = [sector.ledger for sector in account.sectors if sector.ledger]
    first_ns = min((ledger.first_frame_ns for ledger in ledgers if ledger.first_frame_ns), default=finished.finished_ns)
    last_ns = max((ledger.last_published_ns for ledger in ledgers), default=finished.finished_ns)
    seconds = max((finished.finished_ns - first_ns) / 1e9, 1e-9)
    return RunSummary(
        scan=f"{scan.session}/{scan.number}",
        ordinal=scan.ordinal,
        output=finished.output,
        verdict=account.verdict,
        background=thresholds[0],
        xray=thresholds[1],
        threshold_source=found.source if (found := scan.counts[finished.name].found) else "given",
        frames_expected=account.frames_expected,
        frames_complete=account.frames_complete,
        frames_incomplete=account.frames_incomplete,
        electrons=account.electrons,
        raw_bytes=account.raw_bytes,
        compressed_bytes=account.compressed_bytes,
        compression_ratio=account.raw_bytes / max(account.compressed_bytes, 1),
        seconds=seconds,
        frames_per_second=account.frames_complete / seconds,
        megabytes_per_second=account.raw_bytes / seconds / 1e6,
        finish_latency_seconds=(finished.finished_ns - last_ns) / 1e9,
    )
