"""Zero suppression on one core: suppressing, its payload, and counting from it, beside full chunks.

Run as ``python -m benchmarks.suppression [--json]``. Chunks of 16 simulated frames; the floor is found in each sector's
first chunk as receivers find it (mean of the noise and 3 standard deviations). All are timed in turn, round by round;
GB/s are raw pixels by CPU seconds of one core. The frames (85 MB) are more than most caches hold.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import counting
from benchmarks.machine import describe_machine
from benchmarks.spread import summarise
from benchmarks.workloads import FRAMES_PER_CHUNK, XRAY, Scan
from counting import NO_CORRECTIONS, Electrons, SuppressedFrames
from producers.simulator import Simulation
from topics import codec, suppressed
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_FRAME_BYTES, SECTOR_ROWS, SECTORS

FRAMES = 128
DENSITIES = (80, 500, 2000)  # electrons a frame

Chunk = list[NDArray[np.uint16]]  # (16, 144, 576) a sector


class Sectors:
    """The chunks of a scan, and what is done with them in the receiver and in the counter."""

    def __init__(self, electrons: int) -> None:
        scan = Scan(electrons)
        simulation = Simulation(scan.edge, scan.edge, electrons=electrons, noise_counts=scan.noise)
        frames, _ = simulation.frames(0, FRAMES)
        chunks = frames.reshape(-1, FRAMES_PER_CHUNK, SECTORS, SECTOR_ROWS, FRAME_WIDTH).swapaxes(1, 2)
        self.chunks: list[Chunk] = [[np.ascontiguousarray(sector) for sector in chunk] for chunk in chunks]
        self.background = scan.background
        self.floors = [
            counting.auto_floor(first, NO_CORRECTIONS, m * SECTOR_ROWS) for m, first in enumerate(self.chunks[0])
        ]
        self._pixel_floors = [self._floors_of(m) for m in range(SECTORS)]
        self._slots = np.repeat(np.arange(FRAMES_PER_CHUNK)[:, np.newaxis], SECTORS, axis=1)
        self._buffers = [np.empty(FRAMES_PER_CHUNK * SECTOR_FRAME_BYTES, np.uint8) for _ in range(SECTORS)]
        self.full = [self.compress_in_full(chunk) for chunk in self.chunks]
        self.payloads = [self.suppress_and_compress(chunk) for chunk in self.chunks]
        self.listed = [self.decompress(payloads) for payloads in self.payloads]

    def _floors_of(self, m: int) -> NDArray[np.uint16]:
        floors = counting.pixel_floors(self.floors[m], NO_CORRECTIONS, (FRAME_HEIGHT, FRAME_WIDTH))
        return floors[m * SECTOR_ROWS : (m + 1) * SECTOR_ROWS]

    def suppress(self, chunk: Chunk) -> list[SuppressedFrames]:
        return [counting.suppress(sector, floors) for sector, floors in zip(chunk, self._pixel_floors, strict=True)]

    def suppress_and_compress(self, chunk: Chunk) -> list[bytes]:
        return [suppressed.compress(sector.listed) for sector in self.suppress(chunk)]

    @staticmethod
    def compress_in_full(chunk: Chunk) -> list[bytes]:
        return [codec.compress(sector) for sector in chunk]

    @staticmethod
    def decompress(payloads: list[bytes]) -> list[SuppressedFrames]:
        shape = (FRAMES_PER_CHUNK, SECTOR_ROWS, FRAME_WIDTH)
        return [SuppressedFrames(suppressed.decompress(memoryview(p), FRAMES_PER_CHUNK), shape) for p in payloads]

    def count(self, listed: list[SuppressedFrames]) -> Electrons:
        return counting.count_suppressed(listed, self._slots, self.background, XRAY, floor=max(self.floors))

    def decompress_and_count(self, payloads: list[bytes]) -> Electrons:
        return self.count(self.decompress(payloads))

    def decompress_and_count_in_full(self, payloads: list[bytes]) -> Electrons:
        sectors = [
            codec.decompress(memoryview(payload), FRAMES_PER_CHUNK, buffer)
            for payload, buffer in zip(payloads, self._buffers, strict=True)
        ]
        return counting.count_sectors(sectors, self._slots, self.background, XRAY)


def measure(electrons: int, repeats: int) -> dict[str, Any]:
    """Time every contender in turn, `repeats` times, on the chunks of one density."""
    sectors = Sectors(electrons)
    contenders: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "suppress": (sectors.suppress, sectors.chunks),
        "suppress and compress": (sectors.suppress_and_compress, sectors.chunks),
        "compress in full": (sectors.compress_in_full, sectors.chunks),
        "decompress": (sectors.decompress, sectors.payloads),
        "count": (sectors.count, sectors.listed),
        "decompress and count": (sectors.decompress_and_count, sectors.payloads),
        "decompress and count in full": (sectors.decompress_and_count_in_full, sectors.full),
    }
    raw_bytes = FRAMES * SECTORS * SECTOR_FRAME_BYTES
    runs = []
    for _ in range(repeats + 1):
        run = {}
        for name, (work, chunks) in contenders.items():
            begin = time.process_time()
            for chunk in chunks:
                work(chunk)
            run[name] = raw_bytes / 1e9 / (time.process_time() - begin)
        runs.append(run)
    payload_bytes = sum(len(payload) for payloads in sectors.payloads for payload in payloads)
    full_bytes = sum(len(payload) for payloads in sectors.full for payload in payloads)
    listed_pixels = sum(len(sector.listed) for chunk in sectors.listed for sector in chunk)
    return {
        "electrons_per_frame": electrons,
        "floors": sectors.floors,
        "listed_pixels_per_frame": listed_pixels / FRAMES,
        "payload_bytes_per_listed_pixel": payload_bytes / listed_pixels,
        "raw_by_payload": raw_bytes / payload_bytes,
        "raw_by_full_payload": raw_bytes / full_bytes,
        "same_electrons": same_electrons(sectors),
        "gigabytes_per_cpu_second": summarise(runs[1:]),  # the first run warms up
    }


def same_electrons(sectors: Sectors) -> bool:
    pairs = zip(sectors.payloads, sectors.full, strict=True)
    return all(
        np.array_equal(a, b)
        for payloads, full in pairs
        for a, b in zip(sectors.decompress_and_count(payloads), sectors.decompress_and_count_in_full(full), strict=True)
    )


def print_table(measured: list[dict[str, Any]]) -> None:
    print(f"{'raw GB by CPU second':32}{'median':>8}{'(slowest-fastest)':>20}")
    for density in measured:
        print(
            f"{density['electrons_per_frame']} electrons, {density['listed_pixels_per_frame']:.0f} listed pixels a "
            f"frame in {density['payload_bytes_per_listed_pixel']:.2f} bytes each; traffic "
            f"1/{density['raw_by_payload']:.0f} of raw, in full 1/{density['raw_by_full_payload']:.1f}; "
            f"same electrons: {'yes' if density['same_electrons'] else 'NO'}"
        )
        for name, speed in density["gigabytes_per_cpu_second"].items():
            print(f"  {name:30}{speed['median']:8.2f}{'({min:.2f}-{max:.2f})'.format(**speed):>20}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each (at least 5; default 7)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error(f"--repeats: expected at least 5, got {options.repeats}")
    counting.warm_up()
    measured = [measure(electrons, options.repeats) for electrons in DENSITIES]
    if options.json:
        print(json.dumps({"machine": describe_machine(), "frames": FRAMES, "measured": measured}, indent=2))
    else:
        print_table(measured)
    return 0 if all(density["same_electrons"] for density in measured) else 1


if __name__ == "__main__":
    raise SystemExit(main())
