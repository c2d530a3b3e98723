"""The socket way: sector frames over ZeroMQ, joined in memory, counted by stempy per frame in two processes, then HDF5.

Run as ``python -m benchmarks.peers.socket_way RAW OUT BACKGROUND XRAY``: prints one JSON object. The raw files are
mapped and sent without a copy, whole frames in turn to the two processes, so that neither has to wait.
"""

import json
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray
from stempy.image import electron_count_frame
from stempy.io import SparseArray

from benchmarks.peers.stopwatch import Stopwatch, cpu_seconds
from producers.raw_files import RawFiles, open_raw_files
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS, SECTORS

WORKERS = 2
MESSAGES_IN_A_SOCKET = 256
FRAMES_AT_ONCE = 16

Counted = dict[int, NDArray[np.uint32]]


def main(raw: Path, out: Path, background: float, xray: float) -> None:
    files = open_raw_files(str(raw))
    context = zmq.Context()
    workers = [Worker(context, background, xray) for _ in range(WORKERS)]
    watch = Stopwatch(sum(worker.used_to_start for worker in workers))
    send(files, workers)
    counted: Counted = {}
    for worker in workers:
        counted |= worker.result()
    watch.lap("send, join and count")
    write(files, counted, out / "counted.h5")
    watch.lap("hdf5")
    print(json.dumps(watch.report(len(counted), sum(map(len, counted.values())))))
    context.destroy()


class Worker:
    """A process that counts, and the socket to it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], background: float, xray: float) -> None:
        self.socket = context.socket(zmq.PUSH)
        self.socket.set_hwm(MESSAGES_IN_A_SOCKET)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        here, there = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(target=count_frames, args=(port, background, xray, there))
        self._process.start()
        there.close()
        self._pipe = here
        self.used_to_start: float = here.recv()  # CPU seconds until it had imported what it needs, and was connected

    def result(self) -> Counted:
        """Ask for what was counted, and end it."""
        self.socket.send_multipart([b"", b""])
        counted: Counted = self._pipe.recv()
        self._process.join()
        return counted


def send(files: RawFiles, workers: list[Worker]) -> None:
    """Send all sector frames; returns when the sockets have them."""
    frames = files.width * files.height
    for first in range(0, frames, FRAMES_AT_ONCE):
        for sector in range(SECTORS):
            for run in files.sector_frames(sector, first, first + FRAMES_AT_ONCE):
                for number, pixels in zip(run.frame_numbers.tolist(), run.pixels, strict=True):
                    header = number.to_bytes(4, "little") + sector.to_bytes(1, "little")
                    workers[number % len(workers)].socket.send_multipart([header, pixels.data], copy=False)


def count_frames(port: int, background: float, xray: float, pipe: Connection) -> None:
    """Receive, join and count until an empty message comes."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
    socket.set_hwm(MESSAGES_IN_A_SOCKET)
    socket.connect(f"tcp://127.0.0.1:{port}")
    pipe.send(cpu_seconds())
    joining: dict[int, tuple[NDArray[np.uint16], set[int]]] = {}
    counted: Counted = {}
    while True:
        header, pixels = socket.recv_multipart(copy=False)
        if not header.bytes:
            break
        number, sector = int.from_bytes(header.bytes[:4], "little"), header.bytes[4]
        frame, present = joining.setdefault(number, (np.empty((FRAME_HEIGHT, FRAME_WIDTH), np.uint16), set()))
        rows = slice(sector * SECTOR_ROWS, (sector + 1) * SECTOR_ROWS)
        frame[rows] = np.frombuffer(pixels.buffer, np.uint16).reshape(SECTOR_ROWS, FRAME_WIDTH)
        present.add(sector)
        if len(present) == SECTORS:
            del joining[number]
            electrons = electron_count_frame(frame, background_threshold=background, xray_threshold=xray)
            counted[number] = electrons.data[0, 0]
    pipe.send(counted)


def write(files: RawFiles, counted: Counted, path: Path) -> None:
    """Write the file with stempy."""
    data = np.empty((len(counted), 1), object)
    for number, electrons in counted.items():
        data[number, 0] = electrons
    shape = (files.height, files.width)
    SparseArray(data=data, scan_shape=shape, frame_shape=(FRAME_HEIGHT, FRAME_WIDTH)).write_to_hdf5(str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
