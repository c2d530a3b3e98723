"""Services that stay: those of docker-compose.yml as local processes under a supervisor that restarts what dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from service.errors import FaultError, InputError
from service.home import home_dir
from service.logs import get_logger
from service.scan_log import ScanLog
from service.topic_admin import cluster_id
from stemstream import broker
from stemstream.compose import Service, ServiceList, read_services
from stemstream.supervisor import Child, Restarts, State, Supervisor
from stemstream.up_state import (
    BROKER_STOP_TIMEOUT_S,
    ServiceStatus,
    UpState,
    end_leftovers,
    read_state,
    state_file,
    write_state,
)
from topics.scan_log import SessionStarted

READY_TIMEOUT_S = 60.0
CHECK_INTERVAL_S = 0.25
BROKER_ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What ``up`` is told. ``variables`` are those of the compose file, besides the shell's."""

    compose_file: Path
    variables: dict[str, str]
    session: str | None = None  # to begin; None: the current one stays
    bootstrap: str | None = None  # None: the embedded broker

    def services(self) -> ServiceList:
        """Read the list of services.

        Raises
        ------
        InputError
            It is wrong, or has no broker and none is named.
        """
        services = read_services(self.compose_file, os.environ | self.variables)
        if self.bootstrap is None and not any(service.embedded_broker for service in services.native):
            raise InputError(f"{self.compose_file}: the embedded broker is not among the services; give --bootstrap")
        return services


def serve(settings: UpSettings, say: Callable[[str], None]) -> None:
    """Start the services and keep them running until SIGINT, SIGTERM or SIGHUP, then stop them in order.

    ``say`` is called with a line for each change of a service's state.

    Raises
    ------
    InputError
        Wrong settings, or services are up already.
    FaultError
        A service did not become ready. Once all were ready none is given up.
    """
    home = home_dir()
    services = settings.services()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # ends like Ctrl-C: what was started is stopped
    with _only_up(home), Supervisor(home / "logs" / "up") as supervisor:
        up = _Up(home, settings, services, supervisor, say)
        try:
            up.start()
            up.supervise()
        except KeyboardInterrupt:
            say("stopping")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            up.stop()


def serve_in_background(settings: UpSettings, say: Callable[[str], None]) -> UpState:
    """Do the same in a process of its own session; returns when all services are ready.

    Raises
    ------
    InputError, FaultError
        As `serve`; then nothing is left running.
    """
    home = home_dir()
    settings.services()  # a wrong list is refused here, and not in a log file
    log_file = home / "logs" / "up" / "supervisor.log"
    _refuse_if_up(home)
    supervisor, log_start = _launch_supervisor(settings, log_file)
    say(f"starting; the supervisor is process {supervisor.pid}, its log {log_file}")
    try:
        while supervisor.poll() is None:
            state = read_state(home)
            if state is not None and state.pid == supervisor.pid and state.started:
                supervisor.returncode = 0  # it outlives this object on purpose; Popen would warn of that
                return state
            time.sleep(CHECK_INTERVAL_S)
    except BaseException:
        supervisor.terminate()
        supervisor.wait()
        raise
    error = _last_error(log_file, log_start)
    raise InputError(error) if supervisor.returncode == InputError.exit_code else FaultError(error)


def _launch_supervisor(settings: UpSettings, log_file: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``stemstream up`` with these settings; the process, and where in its log it begins."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    session = ["--session", settings.session] if settings.session else []
    bootstrap = {"STEMSTREAM_BOOTSTRAP": settings.bootstrap} if settings.bootstrap else {}
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stemstream", "up", "--file", str(settings.compose_file), *session],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | settings.variables | bootstrap,
        )
        return process, log.tell()


def _last_error(log_file: Path, start: int) -> str:
    written = log_file.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in written if line.startswith("error: ")]
    return errors[-1] if errors else f"the supervisor ended; see {log_file}"


def _refuse_if_up(home: Path) -> None:
    state = read_state(home)
    if state is not None and state.supervisor() is not None:
        raise InputError(f"services are up already (supervisor process {state.pid}); `stemstream down` stops them")


@contextmanager
def _only_up(home: Path) -> Iterator[None]:
    """Keep out another ``up`` and clean up after one that was killed; refuse while a ``run`` is under way."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a") as lock, (home / "run.lock").open("a") as run_lock:
        if not _locked(lock.fileno()):
            _refuse_if_up(home)
            raise InputError("another `stemstream up` is starting or stopping")
        if not _locked(run_lock.fileno()):
            raise InputError("a run is under way on this machine; wait until it ends")
        fcntl.flock(run_lock, fcntl.LOCK_UN)
        left = read_state(home)
        if left is not None:
            end_leftovers(home, left)
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Up:
    """All that is up: the broker, if it is the embedded one, and the children of the supervisor.

    Everything happens in the main thread: the processes end when the thread that started them does.
    """

    def __init__(
        self,
        home: Path,
        settings: UpSettings,
        services: ServiceList,
        supervisor: Supervisor,
        say: Callable[[str], None],
    ) -> None:
        self._home, self._settings, self._services, self._say = home, settings, services, say
        self._supervisor = supervisor
        self._left_out = list(services.left_out)
        if settings.bootstrap is not None:
            self._left_out += [service.name for service in services.native if service.embedded_broker]
        self._broker: _EmbeddedBroker | None = None
        self._started = False
        self._published: list[ServiceStatus] = []
        self._written: UpState | None = None
        self._create_time = psutil.Process().create_time()
        self._publish()

    def start(self) -> None:
        """Start the services, each after those it depends on, and wait until all are ready."""
        for name in self._left_out:
            self._say(f"{name}: left out")
        if self._settings.bootstrap is not None:
            cluster_id(self._settings.bootstrap, BROKER_ANSWER_TIMEOUT_S)
            self._supervisor.environment["STEMSTREAM_BOOTSTRAP"] = self._settings.bootstrap
        for stage in self._services.stages():
            for service in stage:
                if service.name in self._left_out:
                    continue
                if service.embedded_broker:
                    self._start_broker(service)
                else:
                    self._start_processes(service)
            self._wait_for(lambda child: child.done or not child.once, "has not ended")
        self._begin_session()
        self._wait_for(lambda child: child.ready or child.once, "is not ready")
        self._supervisor.give_up = False
        self._started = True
        self._publish()

    def supervise(self) -> None:
        """Restart what dies, for ever."""
        while True:
            try:
                self._check()
            except OSError as error:
                # A full disk, for example, is no reason to stop what runs.
                with contextlib.suppress(OSError):
                    self._say(f"supervisor: {error}")
            time.sleep(CHECK_INTERVAL_S)

    def stop(self) -> None:
        """Stop services before those they depend on, and in the order of the list beyond that."""
        for stage in reversed(self._services.stages()):
            for service in stage:
                if service.embedded_broker and self._broker is not None:
                    self._broker.stop()
                self._supervisor.stop([child for child in self._supervisor.children if child.service == service.name])
                self._publish()
        state_file(self._home).unlink(missing_ok=True)

    # Starting.

    def _start_broker(self, service: Service) -> None:
        self._broker = _EmbeddedBroker(service.name, self._home)
        self._publish()
        self._broker.start()
        self._supervisor.environment["STEMSTREAM_BOOTSTRAP"] = self._broker.bootstrap
        self._publish()

    def _start_processes(self, service: Service) -> None:
        for index in range(service.replicas):
            port = service.metrics_port + index if service.metrics_port else 0
            self._supervisor.start(
                service.name,
                index,
                list(service.command),
                once=service.once,
                environment=service.environment | {"STEMSTREAM_SLOT": str(index)},
                metrics_port=None if service.once else port,
            )
            self._publish()

    def _wait_for(self, condition: Callable[[Child], bool], what_not: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while waiting := [child for child in self._supervisor.children if not condition(child)]:
            if time.monotonic() > deadline:
                child = waiting[0]
                raise FaultError(f"{child.name} {what_not} after {READY_TIMEOUT_S:.0f} s; see {child.log_file}")
            self._check()
            time.sleep(CHECK_INTERVAL_S)

    def _variables(self) -> dict[str, str]:
        """What the compose file's variables stand for: the options', else the shell's."""
        shell = {name: value for name, value in os.environ.items() if name.startswith("STEMSTREAM_")}
        return shell | self._settings.variables

    def _begin_session(self) -> None:
        if self._settings.session is None:
            return
        with ScanLog(self._supervisor.environment["STEMSTREAM_BOOTSTRAP"]) as log:
            if log.catch_up().session != self._settings.session:
                log.append(SessionStarted(name=self._settings.session))
        self._say(f"session: {self._settings.session}")

    # Watching.

    def _check(self) -> None:
        if self._broker is not None:
            self._broker.check()
            self._follow(self._broker.bootstrap)
        self._supervisor.check()
        self._supervisor.ask_ready()
        self._publish()

    def _follow(self, bootstrap: str) -> None:
        """Have the children started again when the broker came back at another address: its port was taken."""
        if bootstrap == self._supervisor.environment["STEMSTREAM_BOOTSTRAP"]:
            return
        self._supervisor.environment["STEMSTREAM_BOOTSTRAP"] = bootstrap
        for child in self._supervisor.children:
            if child.process is not None:
                child.process.terminate()

    def _publish(self) -> None:
        """Say what has changed, and write it down for ``status`` and ``down``."""
        services = [] if self._broker is None else [self._broker.status()]
        services += [_status(child) for child in self._supervisor.children if not child.once]
        for service in services:
            if service not in self._published:
                self._say(_described(service))
        self._published = services
        state = UpState(
            pid=os.getpid(),
            create_time=self._create_time,
            bootstrap=self._supervisor.environment.get("STEMSTREAM_BOOTSTRAP", ""),
            started=self._started,
            variables=self._variables(),
            left_out=self._left_out,
            services=services,
        )
        if state != self._written:
            write_state(self._home, state)
            self._written = state


def _status(child: Child) -> ServiceStatus:
    pid = child.process.pid if child.process is not None and not child.done else None
    return ServiceStatus(
        service=child.service,
        index=child.index,
        pid=pid,
        create_time=_create_time(pid),
        state=child.state,
        metrics_port=child.metrics_port,
        log_file=child.log_file,
        error=child.error or None,
    )


def _create_time(pid: int | None) -> float | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).create_time() if pid is not None else None
    return None


def _described(service: ServiceStatus) -> str:
    words = [f"{service.name}: {service.state}"]
    words += [f"process {service.pid}"] if service.pid else []
    words += [f"metrics port {service.metrics_port}"] if service.pid and service.metrics_port else []
    words += [service.error] if service.error else []
    return ", ".join(words)


class _EmbeddedBroker:
    """The embedded broker, started again when it dies. One that ran already is used, and left running at the end."""

    def __init__(self, service: str, home: Path) -> None:
        self.bootstrap = ""
        self._service, self._home = service, home
        self._state: State = "starting"
        self._error = ""
        self._running: broker.BrokerState | None = None
        self._restarts = Restarts()

    def start(self) -> None:
        """Start it, at the address it had before if that is free, and wait until it answers."""
        port = int(self.bootstrap.rpartition(":")[2]) if self.bootstrap else broker.DEFAULT_PORT
        self._is_up(broker.start(self._home, port=port, die_with_parent=True))

    def check(self) -> None:
        """Start it again if it died, after a pause."""
        if self._state == "ready":
            running = broker.status(self._home)
            if running is None:
                self._died("it ended")
            elif running != self._running:
                self._is_up(running)
        elif self._restarts.due():
            try:
                self.start()
            except FaultError as error:
                self._died(str(error))

    def stop(self) -> None:
        """Stop it if it is ours."""
        running = broker.status(self._home)
        if running is not None and running.owner_pid != os.getpid():
            return
        broker.stop(self._home, BROKER_STOP_TIMEOUT_S)
        self._state, self._running = "stopped", None

    def status(self) -> ServiceStatus:
        """How it is now."""
        return ServiceStatus(
            service=self._service,
            index=0,
            pid=self._running.pid if self._running else None,
            create_time=self._running.create_time if self._running else None,
            state=self._state,
            metrics_port=None,
            log_file=self._home / "kafka" / "broker.log",
            error=self._error or None,
        )

    def _is_up(self, running: broker.BrokerState) -> None:
        self._running, self.bootstrap = running, running.bootstrap
        self._state, self._error, self._restarts.too_many = "ready", "", False

    def _died(self, why: str) -> None:
        self._running = None
        self._restarts.died()
        get_logger().warning("the embedded broker died", reason=why)
        self._state, self._error = ("failed", why) if self._restarts.too_many else ("restarting", "")
