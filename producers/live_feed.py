"""The live source: the detector's sector frames as they come over ZeroMQ, held in bounded memory.

A thread takes frames from the sockets as fast as they come, because the camera cannot be held back. When the buffer
is full, frames are lost, and counted. Pixels are not copied here: a frame keeps the memory that ZeroMQ received it in.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from producers.feed_format import READY, FeedError, FeedHeader, decode_header
from service.errors import InputError
from service.logs import get_logger
from service.metrics import Metrics
from topics.geometry import FRAME_WIDTH, MAX_SCAN_EDGE, SECTOR_FRAME_BYTES, SECTOR_ROWS

SOCKET_BUFFER_BYTES = 8 * 1024 * 1024
SOCKET_MESSAGES = 64  # what ZeroMQ itself may hold back, a sector
POLL_INTERVAL_MS = 50
FRAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One sector frame as it came."""

    sector: int
    header: FeedHeader
    received_ns: int
    pixels: NDArray[np.uint16]
    """(144, 576), detector counts: a view of what was received."""


class FrameSource(Protocol):
    """Where the receiver takes live frames from."""

    ready: bool

    def take(self, timeout_s: float) -> list[LiveFrame]:
        """Frames that have come, in their order."""

    def release(self, frames: int = 1) -> None:
        """Say that the pixels of so many frames are not needed any more."""

    def take_lost(self, sector: int, scan_number: int) -> int:
        """Sector frames of a scan that were lost since last asked."""

    def stop(self) -> list[LiveFrame]:
        """Receive no more; what was received and not taken yet."""


class LiveFeed:
    """Frames of some sectors. :meth:`take` hands them out, :meth:`release` gives their place in the buffer back."""

    def __init__(self, buffer_bytes: int, metrics: Metrics) -> None:
        self.ready = False  # what the readiness socket waits for
        self.lost: Counter[tuple[int, int]] = Counter()  # by sector and scan number, since last asked
        self.tee: dict[int, zmq.Socket[bytes]] = {}  # by sector: where messages are passed on to
        self._limit = max(1, buffer_bytes // SECTOR_FRAME_BYTES)
        self._stopped = threading.Event()
        self._thread = threading.Thread()
        self._queue: queue.SimpleQueue[LiveFrame] = queue.SimpleQueue()
        self._accepted = self._released = 0  # each is written by one thread only
        self._lock = threading.Lock()  # for what is lost: counted by one thread, taken by the other
        self._received = metrics.counter("received_sector_frames", "Sector frames received", "sector")
        self._lost_total = metrics.counter("lost_sector_frames", "Sector frames lost: the buffer was full", "sector")
        self._refused = metrics.counter("refused_feed_messages", "Messages that are no sector frame of ours", "reason")
        self._tee_dropped = metrics.counter("tee_dropped_messages", "Messages that the tee did not take", "sector")
        self._buffered = metrics.gauge("buffered_bytes", "Pixel bytes received and not yet in a chunk")
        metrics.gauge("buffer_limit_bytes", "Most that is buffered before frames are lost").set(buffer_bytes)

    def take(self, timeout_s: float, most: int = FRAMES_AT_ONCE) -> list[LiveFrame]:
        """Frames that have come, in their order; waits for the first one."""
        self._buffered.set((self._accepted - self._released) * SECTOR_FRAME_BYTES)
        frames: list[LiveFrame] = []
        with contextlib.suppress(queue.Empty):
            frames.append(self._queue.get(timeout=timeout_s))
            while len(frames) < most:
                frames.append(self._queue.get_nowait())
        return frames

    def release(self, frames: int = 1) -> None:
        """Say that the pixels of so many frames are not needed any more."""
        self._released += frames

    def take_lost(self, sector: int, scan_number: int) -> int:
        """Sector frames of a scan that were lost since last asked."""
        with self._lock:
            return self.lost.pop((sector, scan_number), 0)

    def start(self, sockets: dict[zmq.Socket[bytes], int], ready: zmq.Socket[bytes] | None) -> None:
        """Receive in the background until :meth:`stop`."""
        self._thread = threading.Thread(target=self._receive, args=(sockets, ready), daemon=True)
        self._thread.start()

    def stop(self) -> list[LiveFrame]:
        """Receive no more; what was received and not taken yet."""
        self._stopped.set()
        self._thread.join()
        left: list[LiveFrame] = []
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._queue.get_nowait())
        return left

    def _receive(self, sockets: dict[zmq.Socket[bytes], int], ready: zmq.Socket[bytes] | None) -> None:
        """Take frames from the sockets until asked to stop: the thread's work."""
        poller = zmq.Poller()
        for socket in (*sockets, *([ready] if ready else [])):
            poller.register(socket, zmq.POLLIN)
        asked = False
        while not self._stopped.is_set():
            for socket, _ in poller.poll(POLL_INTERVAL_MS):
                if socket is ready:
                    socket.recv_multipart()
                    poller.unregister(socket)  # until it is answered
                    asked = True
                else:
                    self._drain(socket, sockets[socket])
            if asked and self.ready and ready is not None:
                ready.send(READY)
                poller.register(ready, zmq.POLLIN)
                asked = False

    def _drain(self, socket: zmq.Socket[bytes], sector: int) -> None:
        for _ in range(SOCKET_MESSAGES):
            try:
                parts: list[Any] = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._pass_on(parts, sector)
            self._accept(parts, sector)

    def _pass_on(self, parts: list[zmq.Frame], sector: int) -> None:
        """Send the message on as it is; when the other side does not keep up it loses some, never this one."""
        if sector in self.tee:
            try:
                self.tee[sector].send_multipart(parts, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._tee_dropped.labels(sector).inc()

    def _accept(self, parts: list[zmq.Frame], sector: int) -> None:
        try:
            header = _checked_header(parts, sector)
        except FeedError as error:
            self._refused.labels(type(error).__name__).inc()
            get_logger().warning("feed message refused", sector=sector, reason=str(error))
            return
        self._received.labels(sector).inc()
        if self._accepted - self._released >= self._limit:
            with self._lock:
                first = not self.lost[sector, header.scan_number]
                self.lost[sector, header.scan_number] += 1
            self._lost_total.labels(sector).inc()
            if first:
                get_logger().error("the buffer is full: sector frames are lost", sector=sector, scan=header.scan_number)
            return
        self._accepted += 1
        pixels = np.frombuffer(parts[1].buffer, "<u2").reshape(SECTOR_ROWS, FRAME_WIDTH)  # no copy
        self._queue.put(LiveFrame(sector, header, time.time_ns(), pixels))


class WrongModuleError(FeedError):
    """A frame of another module than the socket's sector."""


def _checked_header(parts: list[zmq.Frame], sector: int) -> FeedHeader:
    if len(parts) != 2:
        raise FeedError(f"{len(parts)} parts; a header and pixels were expected")
    header = decode_header(parts[0].buffer)
    if header.module != sector:
        raise WrongModuleError(f"a frame of module {header.module} came to the socket of sector {sector}")
    if not (0 < header.width_field <= MAX_SCAN_EDGE and 0 < header.height_field <= MAX_SCAN_EDGE):
        raise FeedError(f"size fields {header.width_field} and {header.height_field} are out of range")
    if max(header.x, header.y) > MAX_SCAN_EDGE:
        raise FeedError(f"position x {header.x}, y {header.y} is out of range")
    if len(parts[1]) != SECTOR_FRAME_BYTES:
        raise FeedError(f"{len(parts[1])} bytes of pixels; {SECTOR_FRAME_BYTES} were expected")
    return header


@contextmanager
def open_live_feed(
    addresses: dict[int, str], ready_address: str | None, tee: dict[int, str], buffer_bytes: int, metrics: Metrics
) -> Iterator[LiveFeed]:
    """Bind the sockets, one address a sector, and receive in the background while the context is open.

    All messages are passed on to the addresses of ``tee``, if any.

    Raises
    ------
    InputError
        An address cannot be bound.
    """
    feed = LiveFeed(buffer_bytes, metrics)
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        sockets = {
            _bound(stack, context, zmq.PULL, address, f"sector {sector}"): sector
            for sector, address in addresses.items()
        }
        ready = _bound(stack, context, zmq.REP, ready_address, "readiness") if ready_address else None
        for sector, address in tee.items():
            feed.tee[sector] = stack.enter_context(context.socket(zmq.PUSH))
            feed.tee[sector].linger = 0
            feed.tee[sector].sndhwm = SOCKET_MESSAGES
            feed.tee[sector].connect(address)
        feed.start(sockets, ready)
        try:
            yield feed
        finally:
            feed.stop()


def _bound(stack: ExitStack, context: zmq.Context[Any], kind: int, address: str, what: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = stack.enter_context(context.socket(kind))
    socket.linger = 0
    if kind == zmq.PULL:
        socket.rcvhwm = SOCKET_MESSAGES
        socket.setsockopt(zmq.RCVBUF, SOCKET_BUFFER_BYTES)
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * SECTOR_FRAME_BYTES)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise InputError(
            f"{address} for {what} cannot be opened: {error.strerror}; is it in use, or not of this machine?"
        ) from error
    return socket
