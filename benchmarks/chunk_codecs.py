"""How pixels are packed: ratio and speed of Blosc2 codecs, by noise, electrons and chunk size, one thread.

The codec that is in use is called as the services call it; the others with the same settings but for codec and filter.
"""

import time
from collections.abc import Callable
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from benchmarks.context import Context
from benchmarks.spread import summarise
from benchmarks.workloads import FRAMES_PER_CHUNK, Scan
from producers.simulator import Simulation
from topics.codec import compress
from topics.geometry import SECTOR_ROWS, SECTORS

IN_USE = "in use"
OTHERS = {
    "shuffle + LZ4, 1": (blosc2.Codec.LZ4, blosc2.Filter.SHUFFLE),
    "bitshuffle + LZ4, 1": (blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE),
    "shuffle + Zstandard, 1": (blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE),
    "bitshuffle + Zstandard, 1": (blosc2.Codec.ZSTD, blosc2.Filter.BITSHUFFLE),
}
FRAMES = 64  # 42 MB

Pixels = NDArray[np.uint16]


def measure(context: Context) -> list[dict[str, Any]]:
    """Measure codecs at the usual chunk size, then chunk sizes with the codec in use."""
    plan = context.plan
    before = blosc2.nthreads
    blosc2.set_nthreads(1)
    measured = []
    try:
        for noise in plan.codec_noises:
            for electrons in plan.codec_electrons:
                frames = simulate(Scan(electrons, noise=noise))
                for name in (IN_USE, *OTHERS):
                    measured.append(measure_one(context, name, frames, Scan(electrons, noise=noise), FRAMES_PER_CHUNK))
        usual = Scan(500)
        frames = simulate(usual)
        for size in plan.chunk_sizes:
            measured.append(measure_one(context, IN_USE, frames, usual, size))
    finally:
        blosc2.set_nthreads(before)
    return measured


def simulate(scan: Scan) -> Pixels:
    simulation = Simulation(scan.edge, scan.edge, electrons=scan.electrons, noise_counts=scan.noise)
    frames, _ = simulation.frames(0, FRAMES)
    return frames


def measure_one(context: Context, name: str, frames: Pixels, scan: Scan, frames_per_chunk: int) -> dict[str, Any]:
    """Pack and unpack the sectors of all chunks."""
    pack = packer(name)
    sectors = frames.reshape(-1, frames_per_chunk, SECTORS, SECTOR_ROWS, frames.shape[2]).swapaxes(1, 2)
    chunks = [np.ascontiguousarray(sector) for chunk in sectors for sector in chunk]
    runs = context.repeat(lambda: run_once(pack, chunks))
    summary = summarise(runs)
    figures = ", ".join(f"{figure} {value['median']:.2f}" for figure, value in summary.items())
    context.say(f"codecs: {name}, {scan.name}, {frames_per_chunk} frames a chunk: {figures}")
    described = {"codec": name, "electrons": scan.electrons, "noise": scan.noise, "frames_per_chunk": frames_per_chunk}
    return described | summary


def packer(name: str) -> Callable[[Pixels], bytes]:
    if name == IN_USE:
        return compress
    codec, filter_ = OTHERS[name]
    settings = {"codec": codec, "clevel": 1, "filters": [filter_], "filters_meta": [0], "typesize": 2, "nthreads": 1}
    return lambda pixels: bytes(blosc2.compress2(pixels, **settings))


def run_once(pack: Callable[[Pixels], bytes], chunks: list[Pixels]) -> dict[str, float]:
    out = np.empty(chunks[0].nbytes, np.uint8)
    gigabytes = sum(chunk.nbytes for chunk in chunks) / 1e9
    begin = time.process_time()
    packed = [pack(chunk) for chunk in chunks]
    middle = time.process_time()
    for payload in packed:
        blosc2.decompress2(payload, dst=out)
    end = time.process_time()
    return {
        "ratio": gigabytes * 1e9 / sum(map(len, packed)),
        "compress_cpu_seconds_per_gb": (middle - begin) / gigabytes,
        "decompress_cpu_seconds_per_gb": (end - middle) / gigabytes,
    }
