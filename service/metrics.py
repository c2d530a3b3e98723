"""Prometheus metrics and the health answers of a process, served on its metrics port.

Every service has the same four counters: what it received, sent, could not do (errors) and threw away (discarded).
``/healthz`` says that the main loop turns, ``/readyz`` that the service can do its work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app

from service.errors import InputError

LOOP_STALLED_AFTER_S = 30.0
STANDS_STILL = "the main loop stands still"


@dataclass(slots=True)
class Health:
    """State behind ``/healthz`` and ``/readyz``; the main loop calls :meth:`beat`."""

    ready: bool = False
    reason: str = "starting"
    last_beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Say that the main loop turns."""
        self.last_beat = time.monotonic()

    def set_ready(self, ready: bool, reason: str = "") -> None:
        """Say whether the service can do its work, and if not, why."""
        self.ready, self.reason = ready, reason

    @property
    def alive(self) -> bool:
        """Whether the main loop turned lately."""
        return time.monotonic() - self.last_beat < LOOP_STALLED_AFTER_S


class Metrics:
    """The metrics that all services share; a service adds its own to ``registry``."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.health = Health()
        self._service = service
        self.received = self.counter("received_messages", "Messages received", "topic")
        self.received_bytes = self.counter("received_bytes", "Bytes received", "topic")
        self.sent = self.counter("sent_messages", "Messages sent", "topic")
        self.sent_bytes = self.counter("sent_bytes", "Bytes sent", "topic")
        self.errors = self.counter("errors", "What could not be done", "kind")
        self.discarded = self.counter("discarded_messages", "Messages thrown away", "reason")
        self.lag = self.gauge("lag_messages", "Messages in the partition not yet processed", "topic", "partition")

    def counter(self, name: str, text: str, *labels: str) -> Any:  # noqa: ANN401
        """Make a counter ``stemstream_<name>_total`` with the label ``service`` and these."""
        return self._make(Counter, name, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Any:  # noqa: ANN401
        """Make a gauge ``stemstream_<name>`` with the label ``service`` and these."""
        return self._make(Gauge, name, text, labels)

    def _make(self, kind: type[Any], name: str, text: str, labels: tuple[str, ...]) -> Any:  # noqa: ANN401
        metric = kind(f"stemstream_{name}", text, ("service", *labels), registry=self.registry)
        return metric.labels(self._service) if not labels else _Bound(metric, self._service)


class _Bound:
    """A metric whose label ``service`` is filled in."""

    def __init__(self, metric: Any, service: str) -> None:  # noqa: ANN401
        self._metric, self._service = metric, service

    def labels(self, *values: object) -> Any:  # noqa: ANN401
        return self._metric.labels(self._service, *values)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def _application(metrics: Metrics) -> Callable[..., Iterable[bytes]]:
    prometheus: Any = make_wsgi_app(metrics.registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        path = environ.get("PATH_INFO", "/")
        health = metrics.health
        if path == "/healthz":
            ok, text = health.alive, "ok" if health.alive else STANDS_STILL
        elif path == "/readyz":
            ok = health.ready and health.alive
            text = "ready" if ok else STANDS_STILL if health.ready else health.reason
        else:
            page: Iterable[bytes] = prometheus(environ, start_response)
            return page
        start_response("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [text.encode() + b"\n"]

    return answer


@contextmanager
def serve_metrics(metrics: Metrics, port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve /metrics, /healthz and /readyz while the context is open; yields the port (0 picks a free one)."""
    try:
        server = make_server(host, port, _application(metrics), _Server, _QuietHandler)
    except OSError as error:
        raise InputError(
            f"metrics port {port} on {host} cannot be opened: {error.strerror}; choose another one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
