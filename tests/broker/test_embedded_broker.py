"""The embedded broker with real processes. Each start of the JVM costs seconds: the tests share one home."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from typer.testing import CliRunner

from service.broker_probe import wait_for_broker
from stemstream import broker
from stemstream.commands.broker import app

TOPIC = "kept"
# Starts a broker as `stemstream run` does, says its process id, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from stemstream import broker
print(broker.start(Path(sys.argv[1]), port=int(sys.argv[2]), die_with_parent=True).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    yield folder
    broker.stop(folder)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Script in the place of Java, which the tests fill with what it does."""
    script = tmp_path / "jdk" / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setenv("PATH", "")
    return script


def write(bootstrap: str, text: str) -> None:
    """Append a message to the topic, which is made if it is not there, acknowledged by the broker."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(10)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(TOPIC, text.encode(), partition=0)
    assert producer.flush(10) == 0


def last_message(bootstrap: str) -> str:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
        consumer.assign([TopicPartition(TOPIC, 0, end - 1)])
        message = consumer.poll(10)
        assert message is not None
        value = message.value()
        assert value is not None
        return value.decode()
    finally:
        consumer.close()


def test_two_starts_at_the_same_time_give_one_broker(home: Path, port: int) -> None:
    broker.stop(home)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: broker.start(home, port=port), range(2))

    assert first == second == broker.status(home)
    assert first.bootstrap == f"127.0.0.1:{port}"
    assert psutil.Process(first.pid).is_running()
    assert wait_for_broker(first.bootstrap, 0)


def test_data_survive_a_restart_on_another_port_because_the_wanted_one_is_taken(home: Path, port: int) -> None:
    before = broker.start(home, port=port)
    write(before.bootstrap, "before the restart")
    assert broker.stop(home)
    assert broker.status(home) is None
    assert not psutil.pid_exists(before.pid)

    with socket.create_server(("127.0.0.1", port)):
        after = broker.start(home, port=port)

    assert after.bootstrap != before.bootstrap
    assert last_message(after.bootstrap) == "before the restart"


def test_a_killed_broker_starts_again_with_its_data(home: Path, port: int) -> None:
    before = broker.start(home, port=port)
    write(before.bootstrap, "before the kill")
    os.kill(before.pid, signal.SIGKILL)

    after = broker.start(home, port=port)

    assert after.pid != before.pid
    assert last_message(after.bootstrap) == "before the kill"


def test_a_broker_whose_owner_is_killed_ends_and_the_next_start_waits_for_that(home: Path, port: int) -> None:
    broker.stop(home)
    with subprocess.Popen([sys.executable, "-c", OWNER, str(home), str(port)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owned = int(owner.stdout.readline())
        owner.kill()

    state = broker.start(home, port=port)

    assert not psutil.pid_exists(owned) or psutil.Process(owned).status() == psutil.STATUS_ZOMBIE
    assert state.pid != owned
    time.sleep(0.5)
    assert wait_for_broker(state.bootstrap, 0)


def test_the_status_command_names_the_running_broker(home: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    state = broker.start(home, port=port)
    monkeypatch.setenv("STEMSTREAM_HOME", str(home))

    result = CliRunner().invoke(app, ["status", "--json"])

    assert result.exit_code == 0
    assert json.loads(result.stdout)["bootstrap"] == state.bootstrap


def test_commands_without_a_broker_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSTREAM_HOME", str(tmp_path))

    asked, asked_json, stopped = (
        CliRunner().invoke(app, args) for args in (["status"], ["status", "--json"], ["stop"])
    )

    assert (asked.exit_code, asked.stdout) == (1, "broker not running\n")
    assert (asked_json.exit_code, json.loads(asked_json.stdout)) == (1, None)
    assert (stopped.exit_code, stopped.stdout) == (0, "broker was not running\n")


def test_without_java_the_error_names_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSTREAM_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)

    result = CliRunner().invoke(app, ["start"])

    assert result.exit_code == 1
    assert result.stderr.startswith("error: the embedded broker needs Java 17 or newer")
    assert result.stderr.count("\n") == 1
    for name in ("openjdk-17-jre-headless", "maven", "make setup"):
        assert name in result.stderr


def test_a_java_that_is_too_old_is_refused(tmp_path: Path, fake_java: Path) -> None:
    fake_java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")

    with pytest.raises(broker.BrokerError, match=r"needs Java 17 or newer \(.*/java is version 8\)"):
        broker.start(tmp_path)


def test_missing_jars_are_named_with_the_way_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSTREAM_KAFKA_LIBS", str(tmp_path))

    with pytest.raises(broker.BrokerError, match=f"not in {tmp_path}: run `make setup`.*maven"):
        broker.start(tmp_path / "home")


def test_a_broker_that_ends_while_it_starts_is_reported_with_the_end_of_its_log(
    tmp_path: Path, fake_java: Path
) -> None:
    fake_java.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "  -version) echo 'openjdk version \"17.0.15\"' >&2 ;;\n"
        "  *) echo 'OutOfMemoryError: no room'; exit 3 ;;\n"
        "esac\n"
    )
    data = tmp_path / "home" / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("cluster.id=abc\n")
    (data.parent / "broker.log").write_text("of an earlier start\n")

    with pytest.raises(broker.BrokerError, match=r"ended with exit code 3.*OutOfMemoryError: no room") as caught:
        broker.start(tmp_path / "home")

    assert "of an earlier start" not in str(caught.value)
    assert broker.status(tmp_path / "home") is None


def test_stop_leaves_a_process_alone_that_only_has_the_old_process_id(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state = {
            "pid": stranger.pid,
            "create_time": psutil.Process(stranger.pid).create_time() - 3600,
            "bootstrap": "127.0.0.1:9",
            "log_file": str(tmp_path / "broker.log"),
            "data_dir": str(tmp_path),
        }
        (tmp_path / "kafka" / "broker.json").write_text(json.dumps(state))

        stopped = broker.stop(tmp_path)
        still_there = stranger.poll() is None
        stranger.kill()

    assert not stopped
    assert still_there
