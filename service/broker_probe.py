"""Ask a broker whether it is there, before any other client does and logs its failed attempts."""

import socket
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

_PAUSE_S = 0.05
_REQUEST_TIMEOUT_S = 2.0


def wait_for_broker(
    bootstrap: str,
    timeout_s: float,
    *,
    cluster_id: str | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> bool:
    """Wait until a broker answers a metadata request and takes part in its cluster.

    Parameters
    ----------
    bootstrap
        Address of the broker, ``HOST:PORT``.
    timeout_s
        How long to wait, in seconds. 0 asks once.
    cluster_id
        Only a broker of this cluster counts.
    alive
        Asked between attempts: False ends the wait.

    Returns
    -------
    bool
        Whether it answered in time.
    """
    deadline = time.monotonic() + timeout_s
    while alive():
        if _accepts_connections(bootstrap):
            found = _ask_cluster_id(bootstrap)
            if found is not None and cluster_id in (None, found):
                return True
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)
    return False


def _accepts_connections(bootstrap: str) -> bool:
    host, _, port = bootstrap.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_REQUEST_TIMEOUT_S):
            return True
    except OSError:
        return False


def _ask_cluster_id(bootstrap: str) -> str | None:
    """Cluster that the broker belongs to; None without an answer, or while it is not yet or no longer in service."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=_REQUEST_TIMEOUT_S)
    except KafkaException:
        return None
    return str(metadata.cluster_id) if metadata.brokers else None
