"""``stemstream up``, ``down`` and ``status`` with real services. A start costs seconds: tests share what is up."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from stemstream import broker
from stemstream.compose import COMPOSE_FILE
from tests.broker.counted_files import assert_equals_stempy
from tests.broker.scans import RawScan

PROJECT = Path(__file__).resolve().parents[2]
THRESHOLDS = ("--background", "40", "--xray", "2000")
SECTORS = 4


@dataclass(frozen=True)
class Installation:
    """``stemstream`` with a home and ports of its own."""

    home: Path
    feed_port: int
    ready_port: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def up(self) -> tuple[object, ...]:
        """The command with all that it needs."""
        addresses = ("--from", f"tcp://127.0.0.1:{self.feed_port}", "--ready", f"tcp://127.0.0.1:{self.ready_port}")
        return ("up", "--output", self.home / "counted", *THRESHOLDS, *addresses)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        kept = {"STEMSTREAM_KAFKA_LIBS"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEMSTREAM_") or k in kept}
        process = subprocess.Popen(
            [sys.executable, "-m", "stemstream", *map(str, arguments)],
            cwd=PROJECT,
            env=environment | {"STEMSTREAM_HOME": str(self.home), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments: object, timeout_s: float = 150) -> tuple[int, str, str]:
        """Run a command to its end: exit code, stdout, stderr."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=timeout_s)
        return process.returncode, stdout, stderr

    def services(self) -> dict[str, dict[str, Any]]:
        """What ``status --json`` lists, by name and index."""
        code, stdout, _ = self("status", "--json")
        assert code == 0
        return {f"{entry['service']}-{entry['index']}": entry for entry in json.loads(stdout)}

    def all_ready(self) -> bool:
        states = [entry["state"] for entry in self.services().values()]
        return states != [] and set(states) == {"ready"}

    def state(self) -> dict[str, Any]:
        """What the supervisor wrote down."""
        file = self.home / "up.json"
        state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"started": False}
        return state

    def processes(self) -> list[psutil.Process]:
        """All that run with this home, whoever started them."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and process.environ().get("STEMSTREAM_HOME") == str(self.home)
        except psutil.Error:  # it has just ended
            return False

    def listening(self) -> list[int]:
        """Ports of the feed that cannot be bound."""
        return [p for p in (*range(self.feed_port, self.feed_port + SECTORS), self.ready_port) if not is_free(p)]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports() -> tuple[int, int]:
    """As many free ports in a row as there are sectors, and one more."""
    first = next(p for p in range(21000 + os.getpid() % 5000, 32000) if all(map(is_free, range(p, p + SECTORS + 1))))
    return first, first + SECTORS


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain until {what}"
        time.sleep(0.1)


def new_installation(home: Path) -> Iterator[Installation]:
    installation = Installation(home, *free_ports())
    yield installation
    if (home / "up.json").exists():
        installation("down")
    broker.stop(home)
    for left in installation.processes():
        left.kill()
    for process in installation.started:
        process.communicate()


@pytest.fixture
def stemstream(tmp_path: Path) -> Iterator[Installation]:
    """Nothing is up."""
    yield from new_installation(tmp_path / "home")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Services that are up, with two counters."""
    for installation in new_installation(tmp_path_factory.mktemp("running") / "home"):
        code, _, stderr = installation(*installation.up, "--counters", 2, "--detach")
        assert (code, stderr) == (0, "")
        yield installation


def test_all_services_are_ready_when_up_returns(running: Installation) -> None:
    services = running.services()
    assert list(services) == ["kafka-0", "receiver-0", "counter-0", "counter-1", "sink-0"]
    wait_until(running.all_ready, 30, "all are ready")  # counters may be sharing out the partitions
    assert services["kafka-0"]["metrics_port"] is None
    assert len({entry["metrics_port"] for entry in services.values()}) == 5
    assert all(psutil.pid_exists(entry["pid"]) for entry in services.values())
    assert len(running.listening()) == SECTORS + 1


def test_the_table_names_every_service_and_the_logs(running: Installation) -> None:
    code, stdout, _ = running("status")
    assert code == 0
    assert all(name in stdout for name in ("kafka-0", "receiver-0", "counter-0", "counter-1", "sink-0"))
    assert f"logs in {running.home}/logs/up" in stdout


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_second_up_is_refused(running: Installation, detach: tuple[str, ...]) -> None:
    before = running.state()["pid"]
    code, _, stderr = running(*running.up, *detach)
    assert code == 2
    assert stderr == f"error: services are up already (supervisor process {before}); `stemstream down` stops them\n"
    assert running.state()["pid"] == before


@pytest.mark.parametrize("service", ["counter-0", "receiver-0", "kafka-0"])
def test_a_killed_service_comes_back(running: Installation, service: str) -> None:
    wait_until(running.all_ready, 60, "all are ready")
    before = running.services()
    os.kill(before[service]["pid"], signal.SIGKILL)
    assert not (running.services()[service]["state"] == "ready" and not is_new(running, before, service))

    wait_until(lambda: is_new(running, before, service) and running.all_ready(), 150, f"{service} is back")

    after = running.services()
    assert [name for name in after if after[name]["pid"] != before[name]["pid"]] == [service]
    assert after[service]["metrics_port"] == before[service]["metrics_port"]


def test_a_scan_that_is_run_or_sent_is_counted_by_the_services_that_are_up(
    running: Installation, tmp_path: Path
) -> None:
    wait_until(running.all_ready, 60, "all services")
    folder = tmp_path / "raw"
    write_raw_files(Simulation(6, 5, seed=9), folder)
    scan = RawScan(folder, 6, 5)
    run = ("run", folder, "--output", running.home / "counted", "--json")
    code, stdout, stderr = running(*run, *THRESHOLDS)
    assert code == 0, stderr
    assert_equals_stempy(Path(json.loads(stdout)["output"]), scan)

    code, _, stderr = running("send", folder, "--to", f"tcp://127.0.0.1:{running.feed_port}")
    assert code == 0, stderr
    wait_until(lambda: len(finished_files(running)) == 2, 60, "the file of the scan that was sent")
    assert_equals_stempy(finished_files(running)[1], scan)

    code, _, stderr = running(*run, "--background", "50", "--xray", "2000")
    assert code == 2
    assert "services are up with background 40.0, not 50.0" in stderr
    code, _, stderr = running(*run, *THRESHOLDS, "--session", "another")
    assert code == 2
    assert "session" in stderr


def finished_files(installation: Installation) -> list[Path]:
    code, stdout, stderr = installation("scans", "list", "--json")
    assert code == 0, stderr
    return [Path(file) for scan in json.loads(stdout) for file in scan["files"]]


def is_new(installation: Installation, before: dict[str, dict[str, Any]], service: str) -> bool:
    return installation.services()[service]["pid"] not in (None, before[service]["pid"])


def test_a_service_that_gives_up_its_work_has_failed_and_says_why(running: Installation) -> None:
    """A receiver ends when a newer one serves its sectors: a restart would not help."""
    other = running.start(
        *("receive", "--sector", *range(SECTORS), "--from", f"tcp://127.0.0.1:{free_ports()[0]}"),
    )
    try:
        wait_until(lambda: running.services()["receiver-0"]["state"] == "failed", 60, "the receiver has failed")
    finally:
        other.terminate()
        other.communicate()
    receiver = running.services()["receiver-0"]
    assert receiver["pid"] is None
    assert "another receiver serves sector" in receiver["error"]
    assert receiver["error"] in running("status")[1]


def test_down_leaves_no_process_and_no_port(running: Installation) -> None:
    assert len(running.processes()) >= 5
    code, stdout, stderr = running("down")
    assert (code, stdout, stderr) == (0, "all services are stopped\n", "")
    assert running.processes() == []
    assert running.listening() == []
    assert running.services() == {}
    assert running("down")[:2] == (0, "nothing is up\n")


def test_nothing_outlives_a_killed_supervisor(stemstream: Installation) -> None:
    assert stemstream(*stemstream.up, "--detach")[0] == 0
    supervisor = stemstream.state()["pid"]
    os.kill(supervisor, signal.SIGKILL)

    wait_until(lambda: stemstream.processes() == [], 10, "all have ended")
    assert {entry["state"] for entry in stemstream.services().values()} == {"stopped"}
    assert f"supervisor (process {supervisor}) is gone; `stemstream down` cleans up" in stemstream("status")[2]

    code, stdout, _ = stemstream("down")

    assert (code, stdout.splitlines()[-1]) == (0, "all services are stopped")
    assert f"the supervisor (process {supervisor}) was gone" in stdout
    assert stemstream.processes() == []
    assert stemstream.listening() == []
    assert stemstream.services() == {}


def test_up_in_the_foreground_says_what_happens_and_ends_with_sigterm(stemstream: Installation) -> None:
    """With a broker that ran before, and runs on afterwards; and with a counter that does not react."""
    assert stemstream("broker", "start")[0] == 0
    before = broker.status(stemstream.home)
    assert before is not None
    foreground = stemstream.start(*stemstream.up, "--session", "night-shift")
    wait_until(lambda: bool(stemstream.state()["started"]), 90, "all are ready")
    os.kill(stemstream.services()["counter-0"]["pid"], signal.SIGSTOP)

    foreground.send_signal(signal.SIGTERM)
    stdout, stderr = foreground.communicate(timeout=30)

    assert foreground.returncode == 0
    assert "error" not in stderr
    for line in ("receiver-0: ready, process", "counter-0: starting, process", "stopping", "sink-0: stopped"):
        assert line in stdout
    stopped = [line.split()[2] for line in stdout.splitlines() if line.endswith(": stopped")]
    assert stopped == ["receiver-0:", "counter-0:", "sink-0:"]
    assert broker.status(stemstream.home) == before
    assert [process.pid for process in stemstream.processes()] == [before.pid]
    assert stemstream("session", "show")[1] == "night-shift\n"


def test_up_that_cannot_start_a_service_says_why_and_leaves_nothing(stemstream: Installation) -> None:
    with socket.create_server(("127.0.0.1", stemstream.feed_port + 1)):
        code, _, stderr = stemstream(*stemstream.up, "--detach")
    assert code == 2
    assert stderr.startswith(f"error: tcp://127.0.0.1:{stemstream.feed_port + 1} for sector 1 cannot be opened")
    assert stderr.count("\n") == 1
    assert stemstream.processes() == []
    assert stemstream.services() == {}


def test_up_names_what_it_leaves_out(stemstream: Installation, tmp_path: Path) -> None:
    services = yaml.safe_load(COMPOSE_FILE.read_text())
    services["services"]["dashboards"] = {"image": "grafana"}
    (tmp_path / "list.yml").write_text(yaml.safe_dump(services))
    _, stdout, _ = stemstream(*stemstream.up, "--file", tmp_path / "list.yml", "--bootstrap", "127.0.0.1:9")
    assert [line.partition(" ")[2][9:] for line in stdout.splitlines()[:2]] == [
        "dashboards: left out",
        "kafka: left out",
    ]


def test_a_list_without_a_broker_needs_one_that_is_named(stemstream: Installation, tmp_path: Path) -> None:
    (tmp_path / "list.yml").write_text("services: {dashboards: {image: grafana}}")
    code, _, stderr = stemstream(*stemstream.up, "--file", tmp_path / "list.yml")
    assert code == 2
    assert stderr == f"error: {tmp_path}/list.yml: the embedded broker is not among the services; give --bootstrap\n"


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--output", "x"), 2, "error: no thresholds: give --background and --xray"),
        (("--output", "x", "--detach"), 2, "error: no thresholds: give --background and --xray"),
        (("--output", "x", *THRESHOLDS, "--from", "localhost:6001"), 2, "error: --from localhost:6001: no address"),
        (("--output", "x", *THRESHOLDS, "--session", "a/b"), 2, "error: --session 'a/b'"),
        (("--output", "x", *THRESHOLDS, "--file", "nowhere.yml"), 2, f"error: {PROJECT}/nowhere.yml: No such file"),
        (("--output", "x", *THRESHOLDS, "--bootstrap", "127.0.0.1:9"), 1, "error: no Kafka broker answers"),
        (("--output", "x", *THRESHOLDS, "--bootstrap", "127.0.0.1:9", "--detach"), 1, "error: no Kafka broker answers"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    stemstream: Installation, options: tuple[str, ...], code: int, expected: str
) -> None:
    found, _, stderr = stemstream("up", *options)
    assert found == code
    assert stderr.startswith(expected)
    assert stderr.count("\n") == 1
    assert not (stemstream.home / "up.json").exists()
