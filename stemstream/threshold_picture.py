"""Picture of how automatic thresholds were found: histogram of the sampled pixels, and the Gaussian of the noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.counted_file import FoundThresholds, read_thresholds

# Beyond so many of its standard deviations the axis is logarithmic: electrons reach a hundred times as far.
_NOISE_SIGMAS = 8


def write_threshold_picture(h5_path: Path) -> list[Path]:
    """Draw ``<file>_thresholds.png`` beside a counted file; nothing if its thresholds were given."""
    found = read_thresholds(h5_path)
    if found is None:
        return []
    path = h5_path.with_name(f"{h5_path.stem}_thresholds.png")
    _draw(found, path)
    return [path]


def _draw(found: FoundThresholds, path: Path) -> None:
    # Not pyplot: it would keep the figure and might look for a display. A bare figure is drawn by Agg.
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    figure.suptitle("Automatic thresholds", weight="bold")
    axes = figure.subplots()
    source = "this scan" if found.source == "calibration" else "an earlier scan of the session"
    axes.set_title(f"scan {found.label}, from {found.frames:,} frames of {source}", fontsize="small", color="0.3")
    values, pixels = _widening_bins(found)
    axes.step(values, pixels, where="mid", color="0.35", linewidth=1.2, label="sampled pixels")
    noise = found.optimized_mean + found.optimized_std * np.linspace(-6, 6, 400)
    fit = found.amplitude * np.exp(-(((noise - found.optimized_mean) / found.optimized_std) ** 2) / 2)
    gaussian = f"noise: {found.optimized_mean:.2f} ± {found.optimized_std:.2f} counts"
    axes.plot(noise, fit, color="tab:blue", linewidth=1.6, label=gaussian)
    axes.axvline(found.background, color="tab:green", label=f"background threshold: {found.background:.2f} counts")
    axes.axvline(found.xray, color="tab:red", linestyle="--", label=f"x-ray threshold: {found.xray:.1f} counts")
    axes.set_xscale("symlog", linthresh=max(_end_of_noise(found), 1.0), linscale=1.5)
    axes.set_yscale("log")
    axes.set(xlabel="pixel value after corrections (detector counts)", ylabel="pixels per count")
    axes.set_ylim(bottom=0.5 * pixels[pixels > 0].min())
    axes.set_xlim(min(values[0], noise[0]), 1.3 * max(values[-1], found.xray))
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _widening_bins(found: FoundThresholds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles of bins and their pixels a count; beyond the noise they widen, as few pixels lie there."""
    values = found.first_bin + np.arange(len(found.histogram))
    widening = max(_end_of_noise(found), 1.0) * np.geomspace(1, 65_536, 160)
    edges = (
        np.unique(np.r_[values[values < widening[0]], np.rint(widening[widening < values[-1]]), values[-1] + 1]) - 0.5
    )
    pixels, _ = np.histogram(values, edges, weights=found.histogram)
    return (edges[1:] + edges[:-1]) / 2, pixels / np.diff(edges)


def _end_of_noise(found: FoundThresholds) -> float:
    return found.optimized_mean + _NOISE_SIGMAS * found.optimized_std
