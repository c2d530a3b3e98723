"""How a service process is put together: logs, signals, metrics, and one line for an error."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import FaultError, StemstreamError
from service.kafka import KafkaException
from service.logs import configure_logs, get_logger
from service.metrics import Metrics, serve_metrics

STOP_TIMEOUT_S = 9.0


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every service is told."""

    bootstrap: str
    metrics_port: int = 0
    log_level: str = "info"


class StopFlag:
    """True once the process was asked to stop. The main loop looks at it and unwinds by itself."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def __bool__(self) -> bool:
        return self._stopped.is_set()

    def set(self) -> None:
        """Ask the main loop to end."""
        self._stopped.set()


@contextmanager
def stop_on_signals(stop: StopFlag) -> Iterator[None]:
    """Set ``stop`` on SIGTERM and SIGINT while the context is open.

    A thread waits for the signals, because Python's own handlers wait for a Kafka call that is under way. When the
    main loop does not end in time after all, because the broker does not answer, the process ends without more ado:
    what was not committed is done again by whoever comes next, as after a kill.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ended = threading.Event()

    def wait() -> None:
        reader.recv(1)
        stop.set()
        if not ended.wait(STOP_TIMEOUT_S):
            get_logger().error("the main loop did not end in time", timeout_s=STOP_TIMEOUT_S)
            os._exit(FaultError.exit_code)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(writer.fileno())
    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writer.close()  # ends the thread
        waiting.join()
        reader.close()


def run_service(name: str, common: CommonSettings, body: Callable[[Metrics, StopFlag], int]) -> int:
    """Run a service's main loop with logs, metrics and signals around it; returns its exit code.

    ``body`` gets the metrics and a flag that turns true when the process is asked to stop.
    """
    configure_logs(name, common.log_level)
    stop = StopFlag()
    log = get_logger()
    metrics = Metrics(name)
    try:
        with stop_on_signals(stop), serve_metrics(metrics, common.metrics_port) as port:
            log.info("started", pid=os.getpid(), metrics_port=port, bootstrap=common.bootstrap)
            code = body(metrics, stop)
    except StemstreamError as error:
        log.error(str(error), exit_code=error.exit_code)
        print_error(str(error))
        return error.exit_code
    except KafkaException as error:
        text = f"Kafka at {common.bootstrap}: {error.args[0].str()}"
        log.error(text, exit_code=1)
        print_error(text)
        return 1
    log.info("stopped", exit_code=code)
    return code


def print_error(text: str) -> None:
    """Print the one line that a person is shown."""
    sys.stderr.write(f"error: {' '.join(text.split())}\n")
