"""Receivers of the live feed in plain pyzmq and msgpack, which keep all that they get."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

LIMIT_S = 30.0


class Received(NamedTuple):
    """A message: where and when it came, the header's fields in the order of the wire, and the pixels."""

    sector: int
    time: float
    scan_number: int
    frame_number: int
    frames_this_thread: int
    width_field: int
    height_field: int
    x: int
    y: int
    thread_id: int
    module: int
    pixels: NDArray[np.uint16]


class Receivers:
    """A PULL socket for each of four sectors, and what came there."""

    def __init__(self) -> None:
        self.to: dict[int, str] = {}
        self.messages: list[Received] = []

    def wait_for(self, count: int) -> list[Received]:
        """All messages once there are so many; a moment later there must not be more."""
        wait_until(lambda: len(self.messages) >= count, f"{count} messages")
        time.sleep(0.1)
        assert len(self.messages) == count
        return self.messages

    def of(self, sector: int) -> list[Received]:
        return [message for message in self.messages if message.sector == sector]

    def numbers(self, sector: int) -> list[int]:
        """Frame numbers of a sector in the order of their arrival."""
        return [message.frame_number for message in self.of(sector)]

    def take(self, sector: int, parts: Sequence[bytes]) -> None:
        header, pixels = parts
        fields = msgpack.unpackb(header)
        assert isinstance(fields, list)
        frame = np.frombuffer(pixels, "<u2").reshape(144, 576)
        self.messages.append(Received._make((sector, time.monotonic(), *fields, frame)))


@contextmanager
def listening() -> Iterator[Receivers]:
    """Receivers at ports of their own, which take messages while the context is open."""
    receivers, stop = Receivers(), threading.Event()
    with zmq.Context() as context:
        sockets = [context.socket(zmq.PULL) for _ in range(4)]
        for sector, socket in enumerate(sockets):
            receivers.to[sector] = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

        def receive() -> None:
            poller = zmq.Poller()
            for socket in sockets:
                poller.register(socket, zmq.POLLIN)
            while not stop.is_set():
                for socket, _ in poller.poll(20):
                    receivers.take(sockets.index(socket), socket.recv_multipart())

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield receivers
        finally:
            stop.set()
            thread.join()
            for socket in sockets:
                socket.close(linger=0)


@contextmanager
def answering(answers: list[bytes | None], asked: Callable[[], object]) -> Iterator[str]:
    """Answer questions with these answers one by one, and then always with the last; None: not at all.

    Yields the address. ``asked`` is called before each answer.
    """
    stop = threading.Event()
    with zmq.Context() as context:
        # A ROUTER may leave a question unanswered; a REP may not.
        socket = context.socket(zmq.ROUTER)
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            left = list(answers)
            while not stop.is_set():
                if socket.poll(20):
                    *envelope, _question = socket.recv_multipart()
                    asked()
                    text = left.pop(0) if len(left) > 1 else left[0]
                    if text is not None:
                        socket.send_multipart([*envelope, text])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            stop.set()
            thread.join()
            socket.close(linger=0)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {LIMIT_S:g} s"
        time.sleep(0.005)
