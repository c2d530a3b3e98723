"""Metrics and health, asked over HTTP as Prometheus and Kubernetes do."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from service.errors import InputError
from service.metrics import LOOP_STALLED_AFTER_S, Metrics, serve_metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("counter")


@pytest.fixture
def port(metrics: Metrics) -> Iterator[int]:
    with serve_metrics(metrics, 0) as port:
        yield port


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_every_service_shows_the_same_counters(metrics: Metrics, port: int) -> None:
    metrics.received.labels("raw.sector.0").inc(3)
    metrics.received_bytes.labels("raw.sector.0").inc(1000)
    metrics.sent.labels("events").inc()
    metrics.sent_bytes.labels("events").inc(10)
    metrics.errors.labels("decompression").inc()
    metrics.discarded.labels("dead letter").inc(2)
    metrics.lag.labels("raw.sector.0", 1).set(7)
    status, page = get(port, "/metrics")
    assert status == 200
    for line in (
        'stemstream_received_messages_total{service="counter",topic="raw.sector.0"} 3.0',
        'stemstream_received_bytes_total{service="counter",topic="raw.sector.0"} 1000.0',
        'stemstream_sent_messages_total{service="counter",topic="events"} 1.0',
        'stemstream_sent_bytes_total{service="counter",topic="events"} 10.0',
        'stemstream_errors_total{kind="decompression",service="counter"} 1.0',
        'stemstream_discarded_messages_total{reason="dead letter",service="counter"} 2.0',
        'stemstream_lag_messages{partition="1",service="counter",topic="raw.sector.0"} 7.0',
    ):
        assert line in page.splitlines()


def test_a_service_adds_counters_of_its_own_with_and_without_labels(metrics: Metrics, port: int) -> None:
    metrics.counter("electrons", "Electrons counted").inc(5)
    metrics.counter("counted_frames", "Frames", "state").labels("complete").inc()
    metrics.gauge("waiting_bytes", "Bytes").set(2)
    _, page = get(port, "/metrics")
    for line in (
        'stemstream_electrons_total{service="counter"} 5.0',
        'stemstream_counted_frames_total{service="counter",state="complete"} 1.0',
        'stemstream_waiting_bytes{service="counter"} 2.0',
    ):
        assert line in page.splitlines()


def test_a_service_is_not_ready_until_it_says_so(metrics: Metrics, port: int) -> None:
    assert get(port, "/readyz") == (503, "starting\n")
    metrics.health.set_ready(True)
    assert get(port, "/readyz") == (200, "ready\n")
    metrics.health.set_ready(False, "no partitions assigned")
    assert get(port, "/readyz") == (503, "no partitions assigned\n")
    assert get(port, "/healthz") == (200, "ok\n")


def test_a_service_whose_loop_stands_still_is_neither_healthy_nor_ready(metrics: Metrics, port: int) -> None:
    metrics.health.set_ready(True)
    metrics.health.last_beat = time.monotonic() - LOOP_STALLED_AFTER_S - 1
    assert get(port, "/healthz") == (503, "the main loop stands still\n")
    assert get(port, "/readyz") == (503, "the main loop stands still\n")
    metrics.health.beat()
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (200, "ready\n")


def test_two_services_in_one_process_do_not_share_counters() -> None:
    first, second = Metrics("sink"), Metrics("sink")
    first.received.labels("events").inc()
    with serve_metrics(second, 0) as port:
        assert "stemstream_received_messages_total{" not in get(port, "/metrics")[1]


def test_a_port_that_is_taken_is_said_with_its_number(metrics: Metrics, port: int) -> None:
    with (
        pytest.raises(InputError, match=rf"metrics port {port} on 127\.0\.0\.1 cannot be opened"),
        serve_metrics(metrics, port),
    ):
        pass


def test_the_port_is_free_again_afterwards(metrics: Metrics) -> None:
    with serve_metrics(metrics, 0) as port:
        assert get(port, "/healthz")[0] == 200
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


def test_a_slow_reader_does_not_keep_others_waiting(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")  # and no more
        assert get(port, "/healthz")[0] == 200
