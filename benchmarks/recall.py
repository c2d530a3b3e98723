"""How right counting is: electrons counted against those that the simulator put into the frames.

Run as ``python -m benchmarks.recall [--json] [--frames N] [--picture FILE]``. Recall is the part of the true electrons
that is counted, precision the part of the counted ones that is true. Counted and true electrons are paired one to one,
as many pairs as possible, none further apart than 1.5 px.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

import counting
from counting import NO_CORRECTIONS, Corrections
from counting.thresholds import Thresholds, ThresholdSamples
from producers.simulator import Simulation, Truth
from topics import codec
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, SECTOR_ROWS, SECTORS

DENSITIES = (50, 100, 300, 600, 2000)  # electrons a frame
USUAL = 300
NOISES = (2, 5, 10)  # standard deviation of the read noise, counts
WITHIN_PX = 1.5
PILE_UP_PX = 3.0  # electrons that are closer leave charge in each other's 3 x 3 pixels
DISK_Y, DISK_X, DISK_RADIUS_PX = 291, 283, 48  # the simulated central disk, with room for its shifts
BACKGROUND_SIGMAS, XRAY_SIGMAS, SAMPLES = 4.5, 175, 1200  # defaults of --auto-threshold
DETAILED = "dark"  # what is corrected when all densities are measured; else only the usual one is
OFFSETS = (12, 80, 128)  # counts that a pixel shows without beam and noise
DARK_FRAMES = 400
SCAN_WIDTH = 40
BATCH = 60  # frames at once
CHUNK = 16  # frames in a chunk, as the receiver makes them
CHUNKS = 8
COLOURS = {2: "tab:blue", 5: "tab:green", 10: "tab:red"}  # by noise
MARKS = {2: "o", 5: "s", 10: "^"}
SIZES = {2: 10, 5: 6.5, 10: 4.5}
FRAMES_APART_PX = 1000.0  # all frames of a batch share one search tree

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """One row of the table. Recall and precision are parts of 1, with their standard errors."""

    electrons: float
    noise_counts: float
    corrected: str
    """``none``, ``dark`` or ``dark, gain`` (a gain of 1: pixels are floating-point numbers then)."""
    background: float
    xray: float
    recall: float
    recall_error: float
    precision: float
    precision_error: float
    recall_in_disk: float
    recall_outside: float
    false_per_frame: float
    missed_piled_up: float
    """Parts of all true electrons: not counted, another one within 3 px."""
    missed_faint: float
    """Likewise: alone, and no pixel above the background threshold."""
    missed_xray: float
    """Likewise: alone, and its brightest pixel is not below the x-ray threshold."""
    missed_plateau: float
    """Likewise: alone, and the two brightest pixels are equal."""
    missed_otherwise: float
    xrays: int
    xrays_counted: int


def batches(simulation: Simulation) -> Iterator[tuple[NDArray[np.uint16], Truth]]:
    memory = np.empty((BATCH, FRAME_HEIGHT, FRAME_WIDTH), np.uint16)
    for first in range(0, simulation.frame_count, BATCH):
        count = min(BATCH, simulation.frame_count - first)
        yield simulation.frames(first, count, out=memory[:count])


def corrections(noise: float) -> dict[str, Corrections]:
    """Make the dark reference of the simulated detector from frames without beam, and ways to correct with it."""
    simulation = Simulation(SCAN_WIDTH, DARK_FRAMES // SCAN_WIDTH, electrons=0, noise_counts=noise, xrays=0)
    total = sum(pixels.sum(axis=0, dtype=np.int64) for pixels, _ in batches(simulation))
    dark = np.asarray(total / simulation.frame_count, np.float32)
    return {"none": NO_CORRECTIONS, "dark": Corrections(dark), "dark, gain": Corrections(dark, np.ones_like(dark))}


def find_thresholds(simulation: Simulation, how: Corrections) -> Thresholds:
    """Find thresholds as --auto-threshold does: from the first 1200 frames of the scan."""
    samples = ThresholdSamples(how)
    for pixels, _ in islice(batches(simulation), SAMPLES // BATCH):
        samples.add((pixels,), np.arange(len(pixels))[:, np.newaxis])
    return samples.find(BACKGROUND_SIGMAS, XRAY_SIGMAS)


def measure(electrons: float, noise: float, frames: int, corrected: str, how: Corrections) -> Measured:
    """Count a scan, and compare with its truth."""
    simulation = Simulation(SCAN_WIDTH, frames // SCAN_WIDTH, electrons=electrons, noise_counts=noise)
    thresholds = find_thresholds(simulation, how)
    parts = []
    for pixels, truth in batches(simulation):
        counted = counting.count_frames(pixels, thresholds.background, thresholds.xray, dark=how.dark, gain=how.gain)
        parts.append(compare(pixels, truth, counted, thresholds, how))
    sums = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    recall, recall_error = ratio(sums["found"], sums["true"])
    precision, precision_error = ratio(sums["found"], sums["counted"])
    return Measured(
        electrons=electrons,
        noise_counts=noise,
        corrected=corrected,
        background=thresholds.background,
        xray=thresholds.xray,
        recall=recall,
        recall_error=recall_error,
        precision=precision,
        precision_error=precision_error,
        recall_in_disk=ratio(sums["found_in_disk"], sums["true_in_disk"])[0],
        recall_outside=ratio(sums["found_outside"], sums["true_outside"])[0],
        false_per_frame=float((sums["counted"] - sums["found"]).mean()),
        **{name: ratio(sums[name], sums["true"])[0] for name in sums if name.startswith("missed")},
        xrays=int(sums["xrays"].sum()),
        xrays_counted=int(sums["xrays_counted"].sum()),
    )


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> tuple[float, float]:
    """Sum of a part over sum of the whole, and the standard error, from how it varies from frame to frame."""
    mean = part.sum() / whole.sum()
    error = np.std(part - mean * whole) / (whole.mean() * math.sqrt(len(whole)))
    return float(mean), float(error)


def compare(
    pixels: NDArray[np.uint16],
    truth: Truth,
    counted: counting.Electrons,
    thresholds: Thresholds,
    how: Corrections,
) -> dict[str, NDArray[np.int64]]:
    """Pair counted and true electrons of a batch; all results are numbers by frame."""
    indices, offsets = counted
    frame, counted_frame = frame_numbers(truth.offsets), frame_numbers(offsets)
    y, x = np.divmod(indices.astype(np.int64), FRAME_WIDTH)
    true_tree = cKDTree(np.stack([frame * FRAMES_APART_PX, truth.y, truth.x], axis=-1))
    found = pair(true_tree, cKDTree(np.stack([counted_frame * FRAMES_APART_PX, y, x], axis=-1)))
    in_disk = np.hypot(truth.y - DISK_Y, truth.x - DISK_X) < DISK_RADIUS_PX
    flags = {
        "found": found,
        "true_in_disk": in_disk,
        "found_in_disk": found & in_disk,
        "true_outside": ~in_disk,
        "found_outside": found & ~in_disk,
    }
    flags |= why_missed(pixels, truth, found, true_tree, (thresholds, how))
    xray_frame = frame_numbers(truth.xray_offsets)
    xrays_counted = np.isin(
        (xray_frame * FRAME_HEIGHT + truth.xray_y) * FRAME_WIDTH + truth.xray_x,
        (counted_frame * FRAME_HEIGHT + y) * FRAME_WIDTH + x,
    )
    return {
        "true": np.diff(truth.offsets),
        "counted": np.diff(offsets),
        **{name: np.bincount(frame[flag], minlength=len(pixels)) for name, flag in flags.items()},
        "xrays": np.diff(truth.xray_offsets),
        "xrays_counted": np.bincount(xray_frame[xrays_counted], minlength=len(pixels)),
    }


def frame_numbers(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def pair(true: cKDTree, counted: cKDTree) -> Flags:
    """Pair points of two trees one to one, as many as can be within 1.5 px: which true ones have a partner."""
    near = true.sparse_distance_matrix(counted, WITHIN_PX, output_type="ndarray")
    graph = csr_array((np.ones(len(near), np.int8), (near["i"], near["j"])), shape=(true.n, counted.n))
    partners: NDArray[np.int32] = maximum_bipartite_matching(graph, perm_type="column")
    return partners >= 0


def why_missed(
    pixels: NDArray[np.uint16],
    truth: Truth,
    found: Flags,
    true_tree: cKDTree,
    counted_with: tuple[Thresholds, Corrections],
) -> dict[str, Flags]:
    """Sort the true electrons that were not counted by the reason."""
    thresholds, how = counted_with
    nearest, _ = true_tree.query(true_tree.data, k=[2])
    piled_up = ~found & (nearest[:, 0] < PILE_UP_PX)
    alone = np.flatnonzero(~found & ~piled_up)
    step = np.arange(-1, 2)
    y = np.rint(truth.y[alone]).astype(int).clip(1, FRAME_HEIGHT - 2)[:, np.newaxis, np.newaxis] + step[:, np.newaxis]
    x = np.rint(truth.x[alone]).astype(int).clip(1, FRAME_WIDTH - 2)[:, np.newaxis, np.newaxis] + step
    around = pixels[frame_numbers(truth.offsets)[alone][:, np.newaxis, np.newaxis], y, x].astype(np.float32)
    if how.dark is not None:
        around -= np.trunc(how.dark[y, x]) if how.inverse_gain is None else how.dark[y, x]
    second, brightest = np.sort(around.reshape(-1, 9), axis=1)[:, -2:].T
    reasons = {
        "missed_faint": brightest <= thresholds.background,
        "missed_xray": brightest >= thresholds.xray,
        "missed_plateau": brightest == second,
    }
    missed = {"missed_piled_up": piled_up}
    rest = ~found & ~piled_up
    for name, applies in reasons.items():
        missed[name] = np.zeros_like(found)
        missed[name][alone] = rest[alone] & applies
        rest &= ~missed[name]
    return missed | {"missed_otherwise": rest}


def compression_ratio(electrons: float, noise: float, offset: float) -> float:
    """Bytes of raw frames for each byte of payload, in chunks as the receiver makes them."""
    simulation = Simulation(CHUNK, CHUNKS, electrons=electrons, noise_counts=noise, dark_counts=offset)
    payload = 0
    for chunk in range(CHUNKS):
        pixels, _ = simulation.frames(chunk * CHUNK, CHUNK)
        for m in range(SECTORS):
            rows = pixels[:, m * SECTOR_ROWS : (m + 1) * SECTOR_ROWS]
            payload += len(codec.compress(np.ascontiguousarray(rows)))
    return simulation.frame_count * FRAME_HEIGHT * FRAME_WIDTH * 2 / payload


def print_tables(measured: list[Measured], compression: list[dict[str, float]]) -> None:
    print("Recall and precision with their standard errors; thresholds in detector counts")
    print(
        "electrons  noise  corrected   background  x-ray  recall           in disk  outside  precision      false/frame"
    )
    for row in measured:
        print(
            f"{name_of(row)}{row.background:12.2f}{row.xray:7.0f}{row.recall:8.2%} ± {row.recall_error:.2%}"
            f"{row.recall_in_disk:10.1%}{row.recall_outside:9.1%}{row.precision:9.2%} ± {row.precision_error:.2%}"
            f"{row.false_per_frame:9.2f}"
        )
    print("\nTrue electrons that were not counted, by reason, as parts of all; x-rays counted as electrons")
    print("electrons  noise  corrected   another within 3 px  faint  x-ray  plateau  otherwise  x-rays")
    for row in measured:
        print(
            f"{name_of(row)}{row.missed_piled_up:21.2%}{row.missed_faint:7.2%}{row.missed_xray:7.2%}"
            f"{row.missed_plateau:9.2%}{row.missed_otherwise:11.2%}{row.xrays_counted:5} of {row.xrays}"
        )
    print("\nCompression ratio of raw frames\nelectrons  noise  offset  ratio")
    for ratios in compression:
        print(
            f"{ratios['electrons']:9.0f}{ratios['noise_counts']:7.0f}{ratios['dark_counts']:8.0f}{ratios['ratio']:7.2f}"
        )


def name_of(row: Measured) -> str:
    return f"{row.electrons:9.0f}{row.noise_counts:7.0f}  {row.corrected:10}"


def draw(measured: list[Measured], path: Path) -> None:
    """Draw recall and precision with a dark reference against electrons a frame, as a PNG file of few colours."""
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    recall, precision = figure.subplots(1, 2)
    lines = {
        noise: [row for row in measured if row.noise_counts == noise and row.corrected == DETAILED] for noise in NOISES
    }
    draw_recall(recall, lines)
    draw_precision(precision, lines)
    for axes in (recall, precision):
        axes.set_xscale("log")
        axes.set_xticks(DENSITIES, [str(electrons) for electrons in DENSITIES])
        axes.minorticks_off()
        axes.set_xlabel("electrons per frame")
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(64).save(path, optimize=True)


def draw_recall(axes: Axes, lines: dict[int, list[Measured]]) -> None:
    """All electrons, one line a noise, with those in and outside the central disk for the middle noise."""
    axes.set_title("Recall: true electrons that are counted", loc="left", weight="bold", fontsize="medium")
    axes.set(ylabel="recall (%)", ylim=(0, 103), xlim=(38, 13000))
    for noise, rows in lines.items():
        percent = [100 * row.recall for row in rows]
        # The lines lie on each other: marks of different sizes show that all are there.
        axes.plot(
            DENSITIES, percent, color=COLOURS[noise], marker=MARKS[noise], markersize=SIZES[noise], fillstyle="none"
        )
    label(axes, percent[-1], "all electrons; the lines\nof the three read noises\nlie on each other", "black")
    middle = lines[NOISES[1]]
    for regions, name in (("recall_outside", "outside the\ncentral disk"), ("recall_in_disk", "in the\ncentral disk")):
        percent = [100 * getattr(row, regions) for row in middle]
        axes.plot(DENSITIES, percent, color="0.55", linestyle="--", linewidth=1.2)
        label(axes, percent[-1], name, "0.4")


def draw_precision(axes: Axes, lines: dict[int, list[Measured]]) -> None:
    """One line a noise, and what would be expected of Gaussian noise."""
    axes.set_title("Precision: counted electrons that are true", loc="left", weight="bold", fontsize="medium")
    axes.set(ylabel="precision (%)", ylim=(96, 100.15), xlim=(21, 2500))
    for noise, rows in lines.items():
        percent = [100 * row.precision for row in rows]
        axes.plot(DENSITIES, percent, color=COLOURS[noise], marker=MARKS[noise])
        axes.annotate(
            f"\N{GREEK SMALL LETTER SIGMA} = {noise}", (DENSITIES[0], percent[0]), (-8, 0), textcoords="offset points",
            va="center", ha="right", color=COLOURS[noise],
        )  # fmt: skip
    false = FRAME_HEIGHT * FRAME_WIDTH * math.erfc(BACKGROUND_SIGMAS / math.sqrt(2)) / 2
    found = [row.electrons * row.recall for row in lines[NOISES[1]]]
    axes.plot(DENSITIES, [100 * n / (n + false) for n in found], color="0.55", linestyle="--", linewidth=1.2, zorder=0)
    text = (
        "\N{GREEK SMALL LETTER SIGMA}: read noise, counts\n"
        f"dashed: {false:.1f} false electrons per frame,\n"
        "as many as Gaussian noise has pixels\n"
        f"above {BACKGROUND_SIGMAS} standard deviations"
    )
    axes.text(0.44, 0.08, text, transform=axes.transAxes, color="0.4", fontsize="small")


def label(axes: Axes, percent: float, text: str, colour: str) -> None:
    """Name a line behind its end."""
    axes.annotate(
        text, (DENSITIES[-1], percent), (10, 0), textcoords="offset points", va="center", color=colour, fontsize="small"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, default=1600, help="frames of each scan (a multiple of 40; default 1600)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw recall and precision into this PNG file")
    options = parser.parse_args()
    if options.frames < SCAN_WIDTH or options.frames % SCAN_WIDTH:
        parser.error(f"--frames: expected a multiple of {SCAN_WIDTH}, got {options.frames}")
    measured = [
        measure(electrons, noise, options.frames, corrected, how)
        for noise in NOISES
        for corrected, how in corrections(noise).items()
        for electrons in (DENSITIES if corrected == DETAILED else (USUAL,))
    ]
    at = [(electrons, OFFSETS[0]) for electrons in DENSITIES] + [(USUAL, offset) for offset in OFFSETS[1:]]
    compression = [
        {
            "electrons": electrons,
            "noise_counts": noise,
            "dark_counts": offset,
            "ratio": compression_ratio(electrons, noise, offset),
        }
        for noise in NOISES
        for electrons, offset in at
    ]
    if options.picture is not None:
        draw(measured, options.picture)
    if options.json:
        rows = [asdict(row) for row in measured]
        print(json.dumps({"frames": options.frames, "measured": rows, "compression": compression}, indent=2))
    else:
        print_tables(measured, compression)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
