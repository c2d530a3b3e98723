"""How a service process is put together: logs, signals, metrics, and one line for an error."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from service.errors import StemstreamError
from service.kafka import KafkaException
from service.logs import configure_logs, get_logger
from service.metrics import Metrics, serve_metrics


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every service is told."""

    bootstrap: str
    metrics_port: int = 0
    log_level: str = "info"


class StopFlag:
    """True once SIGTERM or SIGINT came. The handler only sets it; the main loop unwinds by itself."""

    def __init__(self) -> None:
        self._stopped = False

    def __bool__(self) -> bool:
        return self._stopped

    def set(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """Ask the main loop to end (a signal handler)."""
        self._stopped = True


def run_service(name: str, common: CommonSettings, body: Callable[[Metrics, StopFlag], int]) -> int:
    """Run a service's main loop with logs, metrics and signals around it; returns its exit code.

    ``body`` gets the metrics and a flag that turns true when the process is asked to stop.
    """
    configure_logs(name, common.log_level)
    stop = StopFlag()
    signal.signal(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, stop.set)
    log = get_logger()
    metrics = Metrics(name)
    try:
        with serve_metrics(metrics, common.metrics_port) as port:
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
