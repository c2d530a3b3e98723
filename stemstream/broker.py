"""The embedded broker: one Apache Kafka process for this machine, its data kept between starts.

Everything lies in ``<home>/kafka``: ``data`` (the topics), ``server.properties`` (written at each start from
deploy/kafka/server.properties), ``broker.log``, ``broker.json`` (what is running) and ``lock`` (held while a start or a
stop is under way, so that several at a time are safe).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import shutil
import socket
import string
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from service.broker_probe import wait_for_broker
from service.children import dying_with_parent
from service.errors import FaultError
from stemstream import processes

DEFAULT_PORT = 9092
OLDEST_JAVA = 17

_DEPLOY_DIR = Path(__file__).resolve().parents[1] / "deploy" / "kafka"
_HOST = "127.0.0.1"
_BROKER_FLAGS = (
    "-Xms512m",
    "-Xmx3g",
    "-XX:+UseG1GC",
    # Requests of 1 to 8 MB would be humongous objects in the 1 MB regions that G1 picks for this heap.
    "-XX:G1HeapRegionSize=16m",
    # The second compiler takes seconds of CPU and gives little back: most of the work is done in the kernel.
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ErrorFile=jvm-crash-%p.log",
    "-Djava.awt.headless=true",
)
# The tool runs for a second: compiling it well costs more than it gains.
_FORMAT_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
_LAUNCHES = 3
_LOG_LINES_SHOWN = 5


class BrokerError(FaultError):
    """The embedded broker cannot be started or stopped."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """A running embedded broker.

    Attributes
    ----------
    pid
        Process id of the JVM.
    create_time
        When that process began, in seconds since 1970: tells it from a later process with the same id.
    bootstrap
        Its address, ``127.0.0.1:PORT``.
    log_file
        Warnings and errors of Kafka and of the JVM.
    data_dir
        The topics.
    owner_pid
        The process that it ends with; None if it stays until it is stopped.
    """

    pid: int
    create_time: float
    bootstrap: str
    log_file: Path
    data_dir: Path
    owner_pid: int | None = None


@dataclass(frozen=True, slots=True)
class _Kafka:
    """The installed programs: a Java that is new enough, and Kafka's jars."""

    java: Path
    libs: Path

    @property
    def archive(self) -> Path:
        """Loaded classes, which make a start twice as fast. The JVM does without if it is missing or another Java's."""
        return self.libs.parent / "kafka.jsa"

    def command(self, flags: tuple[str, ...], main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={_DEPLOY_DIR / 'log4j2.xml'}"
        archive = [f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []
        return [str(self.java), *flags, *archive, logging, "-cp", f"{self.libs}/*", main, *arguments]


def start(
    home: Path,
    *,
    port: int = DEFAULT_PORT,
    die_with_parent: bool = False,
    timeout_s: float = 60,
    flags: tuple[str, ...] = (),
) -> BrokerState:
    """Start the broker unless it runs already, and wait until it answers.

    Parameters
    ----------
    home
        Folder for everything that is kept; see `service.home.home_dir`.
    port
        Port that clients connect to; a free one is used instead if another program has it.
    die_with_parent
        The broker ends when the calling thread does. Without it the broker stays until `stop`.
    timeout_s
        How long the start may take, in seconds.
    flags
        More flags for the JVM.

    Returns
    -------
    BrokerState
        The broker that answers now: the one that was running already, or a new one.

    Raises
    ------
    BrokerError
        Java or Kafka's jars are missing, or the broker ended or did not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    folder = home / "kafka"
    with _lock(folder):
        running = _running(home, deadline)
        if running is not None:
            return running
        kafka = _Kafka(_find_java(), _find_libs())
        if not (folder / "data" / "meta.properties").exists():
            _format_storage(kafka, folder)
        for launch in range(1, _LAUNCHES + 1):
            try:
                return _launch(
                    kafka, folder, _port_to_use(port), deadline, die_with_parent=die_with_parent, flags=flags
                )
            except BrokerError as error:
                # Another program took the port after it was found free.
                if "Address already in use" not in str(error) or launch == _LAUNCHES:
                    raise
    raise AssertionError("not reached")


def archive_classes(home: Path) -> Path:
    """Archive the classes that a start loads, for the starts to come; returns the archive. BrokerError if it fails."""
    kafka = _Kafka(_find_java(), _find_libs())
    kafka.archive.unlink(missing_ok=True)
    start(home, port=_free_port(), flags=(f"-XX:ArchiveClassesAtExit={kafka.archive}",))
    stop(home)
    return kafka.archive


def stop(home: Path, timeout_s: float = 30) -> bool:
    """Stop the broker; its data stay. Returns whether one was running.

    Raises
    ------
    BrokerError
        It is still there after SIGTERM, ``timeout_s`` and SIGKILL.
    """
    folder = home / "kafka"
    if not folder.is_dir():
        return False
    with _lock(folder):
        state = status(home)
        process = _process(state) if state is not None else None
        if process is not None and processes.end([process], timeout_s):
            raise BrokerError(f"the broker (process {process.pid}) is still there after SIGKILL")
        _state_file(folder).unlink(missing_ok=True)
        return process is not None


def status(home: Path) -> BrokerState | None:
    """Return the broker whose process is there, else None. It may be still starting: `start` waits for it."""
    try:
        state = TypeAdapter(BrokerState).validate_json(_state_file(home / "kafka").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return state if _process(state) is not None else None


def _running(home: Path, deadline: float) -> BrokerState | None:
    """Broker of an earlier start that answers. One that is on its way out is awaited, and then there is none."""
    state = status(home)
    process = _process(state) if state is not None else None
    if state is None or process is None:
        return None
    orphaned = state.owner_pid is not None and process.ppid() != state.owner_pid
    remaining_s = deadline - time.monotonic()
    if not orphaned and wait_for_broker(state.bootstrap, remaining_s, alive=lambda: _process(state) is not None):
        return state
    if not processes.is_gone(process, deadline - time.monotonic()):
        raise BrokerError(
            f"the broker that was started before (process {state.pid}) neither answers nor ends; "
            f"stop it with `stemstream broker stop`, its log is {state.log_file}"
        )
    return None


def _launch(
    kafka: _Kafka, folder: Path, port: int, deadline: float, *, die_with_parent: bool, flags: tuple[str, ...]
) -> BrokerState:
    """Start the JVM and wait until it answers; if it does not, nothing of it is left."""
    _write_properties(folder, port, _free_port())
    log_file = folder / "broker.log"
    log_start = _size(log_file)
    with log_file.open("ab") as log:
        jvm = subprocess.Popen(
            kafka.command((*_BROKER_FLAGS, *flags), "kafka.Kafka", "server.properties"),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=dying_with_parent() if die_with_parent else None,  # noqa: PLW1509 - a few system calls
        )
    state = BrokerState(
        pid=jvm.pid,
        create_time=psutil.Process(jvm.pid).create_time(),
        bootstrap=f"{_HOST}:{port}",
        log_file=log_file,
        data_dir=folder / "data",
        owner_pid=os.getpid() if die_with_parent else None,
    )
    try:
        # Written before it answers, so that the next start finds it even if this one is killed.
        _write_state(folder, state)
        _wait_until_it_answers(jvm, state, log_start, deadline)
    except BaseException:
        jvm.kill()
        jvm.wait()
        _state_file(folder).unlink(missing_ok=True)
        raise
    # The broker outlives this object on purpose; Popen would warn of that.
    jvm.returncode = 0
    return state


def _wait_until_it_answers(jvm: subprocess.Popen[bytes], state: BrokerState, log_start: int, deadline: float) -> None:
    answered = wait_for_broker(
        state.bootstrap,
        deadline - time.monotonic(),
        cluster_id=_cluster_id(state.data_dir),
        alive=lambda: jvm.poll() is None,
    )
    if not answered:
        how = "did not answer in time" if jvm.poll() is None else f"ended with exit code {jvm.returncode}"
        raise BrokerError(f"the broker {how} while it started; {_last_lines(state.log_file, log_start)}")


def _write_properties(folder: Path, port: int, controller_port: int) -> None:
    template = string.Template((_DEPLOY_DIR / "server.properties").read_text(encoding="utf-8"))
    filled_in = template.substitute(port=port, controller_port=controller_port)
    (folder / "server.properties").write_text(filled_in, encoding="utf-8")


def _format_storage(kafka: _Kafka, folder: Path) -> None:
    """Prepare an empty data folder: Kafka writes the new cluster's id and its first metadata there."""
    _write_properties(folder, DEFAULT_PORT, DEFAULT_PORT + 1)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    arguments = ("format", f"--cluster-id={cluster_id}", "--config=server.properties")
    done = subprocess.run(
        kafka.command(_FORMAT_FLAGS, "kafka.tools.StorageTool", *arguments),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(
            f"the folder {folder / 'data'} cannot be prepared: {_telling_lines(done.stdout + done.stderr)}"
        )


def _cluster_id(data_dir: Path) -> str:
    properties = data_dir / "meta.properties"
    found = re.search(r"^cluster\.id=(.+)$", properties.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BrokerError(f"{properties} names no cluster.id: it is damaged")
    return found[1]


def _find_java() -> Path:
    """Return the Java of JAVA_HOME or of the PATH, whichever is new enough first."""
    java_home = os.environ.get("JAVA_HOME")
    named = Path(java_home) / "bin" / "java" if java_home else None
    on_path = shutil.which("java")
    too_old = []
    for java in (named, Path(on_path) if on_path else None):
        if java is None or not java.is_file():
            continue
        version = _java_version(java)
        if version >= OLDEST_JAVA:
            return java
        too_old.append(f"{java} is version {version}")
    found = "; ".join(too_old) or "neither JAVA_HOME nor PATH leads to one"
    raise BrokerError(
        f"the embedded broker needs Java {OLDEST_JAVA} or newer ({found}): "
        "run `make setup`, or install the Debian packages openjdk-17-jre-headless and maven"
    )


def _java_version(java: Path) -> int:
    """Return the major version; 0 if the program does not say."""
    try:
        said = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    return int(found[1]) if found else 0


def _find_libs() -> Path:
    named = os.environ.get("STEMSTREAM_KAFKA_LIBS")
    libs = Path(named).absolute() if named else _DEPLOY_DIR / "target" / "libs"
    if not any(libs.glob("kafka_*.jar")):
        raise BrokerError(
            f"Kafka's jars are not in {libs}: run `make setup`, which fetches them with Maven "
            "(Debian packages openjdk-17-jre-headless and maven)"
        )
    return libs


def _port_to_use(wanted: int) -> int:
    with socket.socket() as probe:
        # As the broker does: a port that only waits for its last packets (TIME_WAIT) is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, wanted))
        except OSError:
            return _free_port()
        return wanted


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait until no other start or stop is under way in this home, and keep others out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("wb")
    except OSError as error:
        raise BrokerError(f"the broker's folder {folder} cannot be used: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _state_file(folder: Path) -> Path:
    return folder / "broker.json"


def _write_state(folder: Path, state: BrokerState) -> None:
    partial = folder / "broker.json.partial"
    partial.write_bytes(TypeAdapter(BrokerState).dump_json(state, indent=2))
    partial.replace(_state_file(folder))


def _process(state: BrokerState) -> psutil.Process | None:
    """Return the broker's process if it is still there and not another one with its id."""
    return processes.find(state.pid, state.create_time)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _last_lines(log_file: Path, start: int) -> str:
    """Return what the log says since the byte ``start``, shortened to its last telling lines."""
    written = log_file.read_bytes()
    # A log that was rolled over meanwhile is shorter than it was.
    text = written[start if start <= len(written) else 0 :].decode(errors="replace")
    return f"its log {log_file} ends with: {_telling_lines(text)}"


def _telling_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"\s+(at |\.\.\. )", line)]
    return "\n".join(lines[-_LOG_LINES_SHOWN:]) or "(nothing)"
