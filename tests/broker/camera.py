"""The detector, written from the description of its feed alone: plain pyzmq and msgpack."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgpack
import numpy as np
import zmq

from producers.simulator import Simulation
from tests.broker.scans import Electrons, Frames, stempy_electrons

THREADS = 4  # a sector


@dataclass(frozen=True)
class CameraScan:
    """What the camera sends as one scan: frame f shows ``distinct[(f + number) % len(distinct)]``."""

    number: int
    width: int
    height: int
    frames_per_position: int = 1
    sent_frames: int | None = None  # fewer than all: the scan was aborted
    dark_sectors: frozenset[int] = frozenset()  # send nothing
    lost: frozenset[tuple[int, int]] = field(default_factory=frozenset)  # (sector, frame)

    @property
    def frames(self) -> int:
        return self.width * self.height * self.frames_per_position

    @property
    def missing(self) -> list[int]:
        """For each frame, bit m is set when sector m was not sent."""
        sent = self.frames if self.sent_frames is None else self.sent_frames
        masks = [0 if frame < sent else 15 for frame in range(self.frames)]
        for frame in range(self.frames):
            for sector in range(4):
                if sector in self.dark_sectors or (sector, frame) in self.lost:
                    masks[frame] |= 1 << sector
        return masks


class Camera:
    """Sends scans to four ports, each sector from threads of its own, slightly out of order."""

    def __init__(self, first_port: int) -> None:
        self._ports = [first_port + sector for sector in range(4)]
        self.stopped = threading.Event()
        self.distinct: Frames = Simulation(37, 1, seed=11).frames(0, 37)[0]
        self.electrons: list[Electrons] = [stempy_electrons(frame) for frame in self.distinct]

    def electrons_of(self, scan: CameraScan, frame: int) -> Electrons:
        """What stempy counts in a frame."""
        return self.electrons[(frame + scan.number) % len(self.distinct)]

    def record(self, scan: CameraScan, sector: int, frame: int) -> bytes:
        """The raw file's record of a sector frame."""
        y, x = divmod(frame // scan.frames_per_position, scan.width)
        header = struct.pack("<II4H", scan.number, frame, scan.width, scan.height, x, y)
        return header + self._pixels(scan, sector, frame)

    def _pixels(self, scan: CameraScan, sector: int, frame: int) -> bytes:
        shown = self.distinct[(frame + scan.number) % len(self.distinct)]
        return np.ascontiguousarray(shown[sector * 144 : (sector + 1) * 144]).tobytes()

    def send(self, scan: CameraScan, *, seconds: float = 0.0) -> None:
        """Send a scan, spread over so many seconds; returns when all is handed over."""
        sectors = [sector for sector in range(4) if sector not in scan.dark_sectors]
        threads = [threading.Thread(target=self._send_sector, args=(scan, sector, seconds)) for sector in sectors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send_sector(self, scan: CameraScan, sector: int, seconds: float) -> None:
        count = scan.frames if scan.sent_frames is None else scan.sent_frames
        started = time.monotonic()
        with _connected(self._ports[sector]) as sockets:
            for frame in _slightly_out_of_order(range(count), seed=scan.number + sector):
                if (sector, frame) in scan.lost:
                    continue
                if self.stopped.wait(max(0.0, started + seconds * frame / max(count, 1) - time.monotonic())):
                    return
                position = frame // scan.frames_per_position
                y, x = divmod(position, scan.width)
                thread = frame % THREADS
                header = [scan.number, frame, -(-count // THREADS), scan.width, scan.height, x, y, thread, sector]
                sockets[thread].send_multipart([msgpack.packb(header), self._pixels(scan, sector, frame)])


@contextmanager
def _connected(port: int) -> Iterator[list[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        sockets = [context.socket(zmq.PUSH) for _ in range(THREADS)]
        for socket in sockets:
            socket.linger = 20_000
            socket.connect(f"tcp://127.0.0.1:{port}")
        yield sockets
        for socket in sockets:
            socket.close()


def _slightly_out_of_order(frames: Iterable[int], seed: int, depth: int = 12) -> list[int]:
    random = np.random.default_rng(seed)
    return sorted(frames, key=lambda frame: frame + random.uniform(0, depth))
