"""How fast electrons are counted on one core: the fast engine, stempy, and np.max over the same memory.

Run as ``python -m benchmarks.counting [--json]``. All are timed in turn in one run, in CPU time, so that a busy machine
disturbs all of them alike; the table gives medians. The frames (85 MB) are more than most caches hold. stempy's
electron_count_frame is timed on the first few of them, and the electrons of these are compared.
"""

import argparse
import itertools
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
PEDESTAL = 12  # of the noise; the dark reference is as high on average, the background threshold with it lower


def simulate(electrons: int) -> NDArray[np.uint16]:
    """Give frames of noise (12 ± 5 counts) with electrons whose charge spreads over 3 x 3 pixels."""
    rng = np.random.default_rng(electrons)
    frames = rng.standard_normal((FRAMES, HEIGHT, WIDTH), np.float32)
    frames *= 5
    frames += PEDESTAL
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


def references() -> dict[str, NDArray[np.float32]]:
    """Give a dark reference and a gain."""
    rng = np.random.default_rng(1)
    dark, gain = rng.normal(PEDESTAL, 1, (HEIGHT, WIDTH)), rng.normal(1, 0.05, (HEIGHT, WIDTH))
    return {"dark": dark.astype(np.float32), "gain": gain.astype(np.float32)}


def measure(electrons: int, repeats: int) -> dict[str, Any]:
    """Time every contender in turn, `repeats` times, on frames of one density."""
    frames = simulate(electrons)
    sectors = tuple(np.ascontiguousarray(frames[:, m * ROWS : (m + 1) * ROWS]) for m in range(SECTORS))
    slots = np.repeat(np.arange(FRAMES)[:, np.newaxis], SECTORS, axis=1)
    few = frames[:STEMPY_FRAMES]
    both = references()
    dark = {"dark": both["dark"]}
    with_dark, with_both = counting.Corrections(**dark), counting.Corrections(**both)
    lower = BACKGROUND - PEDESTAL
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "fast": (FRAMES, lambda: counting.count_frames(frames, BACKGROUND, XRAY)),
        "fast, 4 sectors": (FRAMES, lambda: counting.count_sectors(sectors, slots, BACKGROUND, XRAY)),
        "stempy": (STEMPY_FRAMES, lambda: count_with_stempy(few, BACKGROUND)),
        "fast, 4 sectors, dark": (
            FRAMES,
            lambda: counting.count_sectors(sectors, slots, lower, XRAY, corrections=with_dark),
        ),
        "stempy, dark": (STEMPY_FRAMES, lambda: count_with_stempy(few, lower, **dark)),
        "fast, dark + gain": (FRAMES, lambda: counting.count_frames(frames, lower, XRAY, **both)),
        "fast, 4 sectors, dark + gain": (
            FRAMES,
            lambda: counting.count_sectors(sectors, slots, lower, XRAY, corrections=with_both),
        ),
        "stempy, dark + gain": (STEMPY_FRAMES, lambda: count_with_stempy(few, lower, **both)),
        "np.max": (FRAMES, frames.max),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, (count, run) in contenders.items():
            begin = time.thread_time()
            run()
            seconds[name].append((time.thread_time() - begin) / count)
    return {
        "electrons_placed_per_frame": electrons,
        "electrons_counted_per_frame": len(counting.count_frames(frames, BACKGROUND, XRAY)[0]) / FRAMES,
        "pixels_above_background_per_frame": int((frames > BACKGROUND).sum()) / FRAMES,
        "same_electrons_as_stempy": same_as_stempy(few, BACKGROUND)
        and same_as_stempy(few, lower, **dark)
        and same_as_stempy(few, lower, **both),
        "results": summarise({name: times[1:] for name, times in seconds.items()}),  # the first run warms up
    }


def count_with_stempy(
    frames: NDArray[np.uint16],
    background: float,
    dark: NDArray[np.float32] | None = None,
    gain: NDArray[np.float32] | None = None,
) -> list[NDArray[np.uint32]]:
    """Call stempy as its users do, without what the stempy engine adds."""
    thresholds = {"background_threshold": background, "xray_threshold": XRAY}
    return [electron_count_frame(frame, darkreference=dark, gain=gain, **thresholds).data[0, 0] for frame in frames]


def same_as_stempy(frames: NDArray[np.uint16], background: float, **corrections: NDArray[np.float32]) -> bool:
    indices, offsets = counting.count_frames(frames, background, XRAY, **corrections)
    expected = count_with_stempy(frames, background, **corrections)
    counted = [indices[begin:end] for begin, end in itertools.pairwise(offsets)]
    return all(map(np.array_equal, counted, expected))


def summarise(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Turn seconds a frame into medians, with the slowest and fastest run beside them."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {
            "frames_per_second": 1 / medians[name],
            "slowest_frames_per_second": 1 / max(times),
            "fastest_frames_per_second": 1 / min(times),
            "gigabytes_per_second": HEIGHT * WIDTH * 2 / medians[name] / 1e9,
            "times_stempy": medians["stempy" + corrections(name)] / medians[name],
            "times_stempy_without_corrections": medians["stempy"] / medians[name],
            "fraction_of_np_max": medians["np.max"] / medians[name],
        }
        for name, times in seconds.items()
    }


def corrections(name: str) -> str:
    """Give the end of a contender's name that says what is corrected."""
    return next((end for end in (", dark", ", dark + gain") if name.endswith(end)), "")


def print_table(measured: list[dict[str, Any]]) -> None:
    columns = ("frames/s", "(slowest-fastest)", "GB/s", "x stempy", "x plain stempy", "of np.max")
    print(f"{'':32}{'{:>9}{:>20}{:>8}{:>10}{:>16}{:>11}'.format(*columns)}")
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
                f"  {name:30}{result['frames_per_second']:9.0f}{spread:>20}{result['gigabytes_per_second']:8.2f}"
                f"{result['times_stempy']:10.1f}{result['times_stempy_without_corrections']:16.1f}"
                f"{result['fraction_of_np_max']:11.2f}"
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
