"""The sending side of the live feed: what the detector's servers do.

A sector has several sender threads, each with a connection of its own: frame f goes through thread f mod T. Each sends
its frames in order, so the frames of a sector arrive slightly out of order. Here one Python thread a sector serves all
connections of that sector; the sectors do not wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
import zmq
from numpy.typing import NDArray

from producers.feed_format import READY, FeedHeader, encode_header
from service.errors import FaultError, InputError
from topics.geometry import SECTORS

DEFAULT_THREADS: Final = 4
DEFAULT_WAIT_S: Final = 30.0

_FRAMES_IN_A_SOCKET = 64  # about 10 MB
_IO_THREADS = 2  # one carries about half of what a busy machine can send over the loopback
_SHORTEST_SLEEP_S = 0.001  # a little late is made up for, and it is far cheaper than waking up for every frame
_CHECK_INTERVAL_MS = 100
_ASK_INTERVAL_S = 0.1
_MAX_PORT = 65_535
_ANSWER_TIMEOUT_MS = 1000


class OutgoingFrame(NamedTuple):
    """One sector frame to send. ``slot`` is when: in frame periods after the scan's start."""

    slot: float
    frame_number: int
    x: int
    y: int
    module: int
    pixels: NDArray[np.uint16]
    """(144, 576) uint16 in one piece; it must not change until the sender is closed."""


@dataclass(frozen=True, slots=True)
class FeedScan:
    """A scan to send. ``sectors`` has four streams of sector frames, each in the order of its slots."""

    scan_number: int
    frames: int
    """Frames of the complete scan, as the detector was told."""
    width_field: int
    height_field: int
    sectors: Sequence[Iterable[OutgoingFrame]]
    late_s: tuple[float, ...] = (0.0,) * SECTORS
    """How much later than the scan each sector starts."""


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Where and how to send.

    Attributes
    ----------
    to
        Address of each sector that is sent, ``tcp://HOST:PORT``.
    threads
        Sender threads a sector.
    rate
        Frames/s; 0: as fast as they are taken.
    ready
        Addresses that are asked until they answer ``ready``.
    wait_s
        How long to wait for a receiver that does not answer, or does not take a frame.
    """

    to: dict[int, str]
    threads: int = DEFAULT_THREADS
    rate: float = 0.0
    ready: tuple[str, ...] = ()
    wait_s: float = DEFAULT_WAIT_S


@dataclass(frozen=True, slots=True)
class SentScan:
    """What was sent."""

    scan_number: int
    sector_frames: tuple[int, ...]
    """Messages of each sector."""
    seconds: float
    late_s: float
    """How far the latest frame was behind its time; 0 without a rate."""


class FeedSender:
    """Connections to the receivers of all sectors, for one scan or several.

    Closing it waits until everything is on its way, except after an error.
    """

    def __init__(self, settings: SenderSettings) -> None:
        self._settings = settings
        self._context = zmq.Context(_IO_THREADS)
        self._sockets = {sector: [self._socket() for _ in range(settings.threads)] for sector in settings.to}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait_s = self._settings.wait_s if error is None else 0.0
        closing = time.monotonic()
        self._context.destroy(linger=int(wait_s * 1000))
        if error is None and time.monotonic() - closing >= wait_s:
            raise FaultError(f"the last frames were not taken within {wait_s:g} s: did a receiver stop?")

    def connect(self) -> None:
        """Connect to the receivers, wait until each accepts its connections and says that it is ready.

        Raises
        ------
        FaultError
            A receiver is not there in time.
        InputError
            An address is none.
        """
        for sector, sockets in self._sockets.items():
            for socket in sockets:
                _connect(socket, self._settings.to[sector])
        deadline = time.monotonic() + self._settings.wait_s
        for sector, sockets in self._sockets.items():
            for socket in sockets:
                if not socket.poll(_left_ms(deadline), zmq.POLLOUT):
                    raise FaultError(
                        f"{self._settings.to[sector]}: nobody listens there (waited {self._settings.wait_s:g} s); "
                        f"is a receiver of sector {sector} running?"
                    )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Ask the ready addresses, if there are any, until they answer ``ready``.

        Raises
        ------
        FaultError
            One does not in time.
        """
        deadline = time.monotonic() + self._settings.wait_s
        for address in self._settings.ready:
            said = "no answer"
            while (answer := self._ask(address, deadline)) != READY:
                said = said if answer is None else f"it answered {answer[:40]!r}"
                if time.monotonic() >= deadline:
                    raise FaultError(
                        f"{address}: not ready within {self._settings.wait_s:g} s ({said}); is a receiver running?"
                    )
                time.sleep(_ASK_INTERVAL_S)

    def send(self, scan: FeedScan, progress: Callable[[int], None] | None = None) -> SentScan:
        """Send a scan; returns when the sockets have all of it.

        ``progress`` is called now and then with the number of sector frames sent so far.

        Raises
        ------
        FaultError
            A receiver took no frame for too long.
        """
        streams = [_SectorStream(scan, sector, self._settings, sockets) for sector, sockets in self._sockets.items()]
        stop = threading.Event()
        start = time.monotonic()
        with ThreadPoolExecutor(max(len(streams), 1)) as threads:
            sending = [threads.submit(stream.send, start, stop) for stream in streams]
            try:
                while _are_running(sending):
                    if progress is not None:
                        progress(sum(stream.sent for stream in streams))
            finally:
                stop.set()
        for future in sending:
            future.result()
        if progress is not None:
            progress(sum(stream.sent for stream in streams))
        sent = {stream.sector: stream.sent for stream in streams}
        return SentScan(
            scan_number=scan.scan_number,
            sector_frames=tuple(sent.get(sector, 0) for sector in range(SECTORS)),
            seconds=time.monotonic() - start,
            late_s=max((stream.late_s for stream in streams), default=0.0),
        )

    def _socket(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.sndhwm = _FRAMES_IN_A_SOCKET
        socket.immediate = True  # no frame is given to a connection that does not exist yet
        return socket

    def _ask(self, address: str, deadline: float) -> bytes | None:
        """Ask once; a REQ socket that got no answer cannot be used again."""
        with self._context.socket(zmq.REQ) as socket:
            socket.linger = 0
            _connect(socket, address)
            socket.send(b"ready?")
            answered = socket.poll(min(_ANSWER_TIMEOUT_MS, _left_ms(deadline)))
            return socket.recv() if answered else None


class _SectorStream:
    """The sender threads of one sector."""

    def __init__(self, scan: FeedScan, sector: int, settings: SenderSettings, sockets: list[zmq.Socket[bytes]]) -> None:
        self.sector = sector
        self.sent = 0
        self.late_s = 0.0
        self._scan, self._settings, self._sockets = scan, settings, sockets
        self._frames_of_thread = [
            (scan.frames - thread + len(sockets) - 1) // len(sockets) for thread in range(len(sockets))
        ]

    def send(self, start: float, stop: threading.Event) -> None:
        """Send all frames, each at its time: a frame that was late does not move the next one's time."""
        start += self._scan.late_s[self.sector]
        period = 1 / self._settings.rate if self._settings.rate else 0.0
        for frame in self._scan.sectors[self.sector]:
            due = start + frame.slot * period
            ahead = due - time.monotonic()
            if ahead > 0:
                stop.wait(max(ahead, _SHORTEST_SLEEP_S))
            if not self._send_frame(frame, stop):
                return
            self.sent += 1
            if period:
                self.late_s = max(self.late_s, time.monotonic() - due)

    def _send_frame(self, frame: OutgoingFrame, stop: threading.Event) -> bool:
        """Send a frame; False if it was not taken because the sending is stopped."""
        thread = frame.frame_number % len(self._sockets)
        header = FeedHeader(
            scan_number=self._scan.scan_number,
            frame_number=frame.frame_number,
            frames_this_thread=self._frames_of_thread[thread],
            width_field=self._scan.width_field,
            height_field=self._scan.height_field,
            x=frame.x,
            y=frame.y,
            thread_id=thread,
            module=frame.module,
        )
        socket = self._sockets[thread]
        parts: list[bytes | memoryview] = [encode_header(header), frame.pixels.data]
        waiting_since = time.monotonic()
        while not stop.is_set():
            try:
                socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._wait_for_room(socket, waiting_since)
            else:
                return True
        return False

    def _wait_for_room(self, socket: zmq.Socket[bytes], waiting_since: float) -> None:
        if (
            socket.poll(_CHECK_INTERVAL_MS, zmq.POLLOUT) == 0
            and time.monotonic() - waiting_since >= self._settings.wait_s
        ):
            raise FaultError(
                f"{self._settings.to[self.sector]}: no frame was taken for {self._settings.wait_s:g} s "
                f"({self.sent} were before); did the receiver of sector {self.sector} stop?"
            )


def _connect(socket: zmq.Socket[bytes], address: str) -> None:
    port = address.rpartition(":")[2]
    try:
        if not (port.isdecimal() and 1 <= int(port) <= _MAX_PORT):  # ZeroMQ would wait for it for ever
            raise InputError(f"{address}: expected tcp://HOST:PORT with a port from 1 to {_MAX_PORT}")
        socket.connect(address)
    except zmq.ZMQError as error:
        raise InputError(f"{address}: expected tcp://HOST:PORT ({error.strerror})") from error


def _are_running(sending: list[Future[None]]) -> bool:
    """Wait a moment; True unless all have ended or one has failed."""
    done, running = wait(sending, _CHECK_INTERVAL_MS / 1000, FIRST_EXCEPTION)
    return bool(running) and not any(future.exception() for future in done)


def _left_ms(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000))
