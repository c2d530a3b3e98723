"""How fast electrons are counted on one core: the fast engine, stempy, and np.max over the same memory.

Run as ``python -m benchmarks.counting [--json]``. All are timed in turn in one run, so that a busy machine slows all of
them; the table gives medians. The frames (85 MB) are more than most caches hold. stempy's electron_count_frame is timed
on the first few of them, and the electrons of these are compared.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stempy.image import electron_count_frame

import counting

HEIGHT = WIDTH = 576
SECTORS = 4
ROWS = HEIGHT // SECTORS
FRAMES = 128
STEMPY_FRAMES = 8
DENSITIES = (80, 500, 2000)  # electrons a frame
BACKGROUND = 34.5  # 4.5 standard deviations above the offset, as automatic thresholds would find it
XRAY = 2000.0


def simulate(electrons: int) -> NDArray[np.uint16]:
    """Give frames of noise (12 ± 5 counts) with electrons whose charge spreads over 3 x 3 pixels."""
    rng = np.random.default_rng(electrons)
    frames = rng.standard_normal((FRAMES, HEIGHT, WIDTH), np.float32)
    frames *= 5
    frames += 12
    for frame in frames:
        centre = rng.uniform(0, HEIGHT, (2, electrons))
        pixel = centre.astype(np.int64)
        charge = rng.gamma(4, 50, electrons)
        for step in np.ndindex(3, 3):
            near = pixel + np.array(step)[:, np.newaxis] - 1
            distance = ((near + 0.5 - centre) ** 2).sum(axis=0)
            share = np.exp(-distance / (2 * 0.5**2)) / (2 * np.pi * 0.5**2)
            inside = ((near >= 0) & (near < HEIGHT)).all(axis=0)
            np.add.at(frame, tuple(near[:, inside]), (charge * share)[inside])
    return np.clip(np.rint(frames), 0, 65_535).astype(np.uint16)


def measure(electrons: int, repeats: int) -> dict[str, Any]:
    """Time every contender in turn, `repeats` times, on frames of one density."""
    frames = simulate(electrons)
    sectors = tuple(np.ascontiguousarray(frames[:, m * ROWS : (m + 1) * ROWS]) for m in range(SECTORS))
    slots = np.repeat(np.arange(FRAMES)[:, np.newaxis], SECTORS, axis=1)
    few = frames[:STEMPY_FRAMES]
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "fast, frames": (FRAMES, lambda: counting.count_frames(frames, BACKGROUND, XRAY)),
        "fast, 4 sectors": (FRAMES, lambda: counting.count_sectors(sectors, slots, BACKGROUND, XRAY)),
        "stempy": (STEMPY_FRAMES, lambda: count_with_stempy(few)),
        "np.max": (FRAMES, frames.max),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, (count, run) in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - begin) / count)
    indices, offsets = counting.count_frames(frames, BACKGROUND, XRAY)
    return {
        "electrons_placed_per_frame": electrons,
        "electrons_counted_per_frame": len(indices) / FRAMES,
        "pixels_above_background_per_frame": int((frames > BACKGROUND).sum()) / FRAMES,
        "same_electrons_as_stempy": same_as_stempy(few, indices, offsets),
        "results": summarise({name: times[1:] for name, times in seconds.items()}),  # the first run warms up
    }


def count_with_stempy(frames: NDArray[np.uint16]) -> None:
    """Call stempy as its users do, without what the stempy engine adds."""
    for frame in frames:
        electron_count_frame(frame, background_threshold=BACKGROUND, xray_threshold=XRAY)


def same_as_stempy(frames: NDArray[np.uint16], indices: NDArray[np.uint32], offsets: NDArray[np.int64]) -> bool:
    stempy_indices, stempy_offsets = counting.count_frames(frames, BACKGROUND, XRAY, engine="stempy")
    same_offsets = np.array_equal(stempy_offsets, offsets[: len(frames) + 1])
    return same_offsets and np.array_equal(stempy_indices, indices[: stempy_offsets[-1]])


def summarise(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Turn seconds a frame into medians, with the slowest and fastest run beside them."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {
            "frames_per_second": 1 / medians[name],
            "slowest_frames_per_second": 1 / max(times),
            "fastest_frames_per_second": 1 / min(times),
            "gigabytes_per_second": HEIGHT * WIDTH * 2 / medians[name] / 1e9,
            "times_stempy": medians["stempy"] / medians[name],
            "fraction_of_np_max": medians["np.max"] / medians[name],
        }
        for name, times in seconds.items()
    }


def print_table(measured: list[dict[str, Any]]) -> None:
    print(f"{'':18}{'frames/s':>9}{'(slowest-fastest)':>20}{'GB/s':>8}{'x stempy':>10}{'of np.max':>11}")
    for density in measured:
        print(
            f"{density['electrons_placed_per_frame']} electrons placed, "
            f"{density['electrons_counted_per_frame']:.0f} counted, "
            f"{density['pixels_above_background_per_frame']:.0f} pixels above the background a frame; "
            f"same electrons as stempy: {'yes' if density['same_electrons_as_stempy'] else 'NO'}"
        )
        for name, result in density["results"].items():
            spread = f"({result['slowest_frames_per_second']:.0f}-{result['fastest_frames_per_second']:.0f})"
            print(
                f"  {name:16}{result['frames_per_second']:9.0f}{spread:>20}{result['gigabytes_per_second']:8.2f}"
                f"{result['times_stempy']:10.1f}{result['fraction_of_np_max']:11.2f}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each (at least 5; default 7)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error(f"--repeats: expected at least 5, got {options.repeats}")
    if not hasattr(counting, "count_frames"):
        parser.error("this file has the name of the package it measures: run it as python -m benchmarks.counting")
    counting.warm_up()
    measured = [measure(electrons, options.repeats) for electrons in DENSITIES]
    if options.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        settings = {"background": BACKGROUND, "xray": XRAY, "frames": FRAMES, "repeats": options.repeats}
        print(json.dumps({**machine, **settings, "measured": measured}, indent=2))
    else:
        print_table(measured)
    return 0 if all(density["same_electrons_as_stempy"] for density in measured) else 1


if __name__ == "__main__":
    raise SystemExit(main())
