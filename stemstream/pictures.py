"""Pictures of a counted scan: virtual bright field, virtual annular dark field, summed diffraction pattern."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from service.counted_file import CountedEvents

Floats = NDArray[np.float64]

_ROWS_AT_ONCE: Final = 65_536  # bounds the memory for large scans
_SMALLEST_BLOCK_PX: Final = 8
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_MAX_BINNING: Final = 8
_ENOUGH_ELECTRONS: Final = 12  # in a block of pixels, so that it stands out from chance
_MISSING_COLOUR: Final = "tab:orange"
_GAP: Final = 1.3  # inner edge of the dark field, in radii of the disk


@dataclass(frozen=True)
class VirtualDetectors:
    """Where the virtual detectors lie on the frame, in px."""

    centre_y: float
    centre_x: float
    disk_radius: float
    """Edge of the bright disk: the bright field is what lies within."""
    dark_inner: float
    dark_outer: float


def write_pictures(h5_path: Path) -> list[Path]:
    """Draw a counted file's pictures as PNG files beside it, and say where they are."""
    from service.counted_file import read_events  # noqa: PLC0415 (slow to import)

    return draw_pictures(read_events(h5_path), h5_path.with_suffix(""))


def draw_pictures(events: CountedEvents, stem: Path) -> list[Path]:
    """Draw the pictures of a scan as ``<stem>_bright_field.png`` and so on."""
    images = virtual_images(events)
    detectors = find_detectors(images["diffraction_pattern"])
    label = _label(events)
    figures = {
        "bright_field": _scan_figure(images["bright_field"], "Virtual bright field", label),
        "dark_field": _scan_figure(images["dark_field"], "Virtual annular dark field", label),
        "diffraction_pattern": _pattern_figure(
            images["diffraction_pattern"], detectors, "Summed diffraction pattern", label
        ),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(stem.with_name(f"{stem.name}_{name}.png"))
        figure.savefig(paths[-1], dpi=150)
    return paths


def virtual_images(events: CountedEvents) -> dict[str, Floats]:
    """Images of a scan.

    Returns
    -------
    bright_field, dark_field : (height, width) float64
        Electrons a frame inside the bright disk, and in the ring around it. NaN where no frame is complete.
    diffraction_pattern : (576, 576) float64
        Electrons of the whole scan in each pixel.
    """
    height, width = events.frame_shape
    sums = np.zeros(height * width)
    for _, electrons in _parts(events):
        sums += np.bincount(electrons, minlength=height * width)
    pattern = sums.reshape(height, width)
    detectors = find_detectors(pattern)
    distance = _distance(pattern.shape, detectors.centre_y, detectors.centre_x)
    bright = distance <= detectors.disk_radius
    dark = (distance >= detectors.dark_inner) & (distance <= detectors.dark_outer)
    return {
        "bright_field": _electrons_per_frame(events, bright),
        "dark_field": _electrons_per_frame(events, dark),
        "diffraction_pattern": pattern,
    }


def find_detectors(pattern: Floats) -> VirtualDetectors:
    """Find the bright disk of a summed pattern, and lay the virtual detectors around it.

    The edge of the disk is where the radial profile falls to half of what it is inside; its centre is the
    centre of mass of the disk. Without electrons the middle of the frame is taken.
    """
    height, width = pattern.shape
    centre_y, centre_x, radius = (height - 1) / 2, (width - 1) / 2, min(height, width) / 8
    if pattern.any():
        centre_y, centre_x, radius = _brightest_area(pattern)
        for _ in range(4):
            radius = _disk_edge(pattern, centre_y, centre_x, radius)
            disk = np.where(_distance(pattern.shape, centre_y, centre_x) <= 1.2 * radius, pattern, 0.0)
            centre_y, centre_x = _centre_of_mass(disk)
    outer = min(centre_y, height - 1 - centre_y, centre_x, width - 1 - centre_x)
    return VirtualDetectors(centre_y, centre_x, radius, min(_GAP * radius, outer), outer)


def _brightest_area(pattern: Floats) -> tuple[float, float, float]:
    """Rough centre and radius of the disk: the blocks with at least half as many electrons as the best one."""
    edge = _SMALLEST_BLOCK_PX
    while (blocks := _blocks_of(pattern, edge)).max() < _ENOUGH_ELECTRONS and 8 * edge < min(pattern.shape):
        edge *= 2
    bright = blocks >= blocks.max() / 2
    y, x = _centre_of_mass(np.where(bright, blocks, 0.0))
    radius = edge * math.sqrt(np.count_nonzero(bright) / math.pi)
    return (y + 0.5) * edge - 0.5, (x + 0.5) * edge - 0.5, radius


def _blocks_of(pattern: Floats, edge: int) -> Floats:
    """Sums over square blocks; what does not fill a block is cut off."""
    rows, columns = (size // edge for size in pattern.shape)
    cropped = pattern[: rows * edge, : columns * edge]
    sums: Floats = cropped.reshape(rows, edge, columns, edge).sum(axis=(1, 3))
    return sums


def _disk_edge(pattern: Floats, centre_y: float, centre_x: float, radius: float) -> float:
    ring = np.rint(_distance(pattern.shape, centre_y, centre_x)).astype(np.intp).ravel()
    in_ring = np.bincount(ring, weights=pattern.ravel())
    pixels = np.bincount(ring)
    inner = int(0.7 * radius) + 1
    inside = in_ring[:inner].sum() / pixels[:inner].sum()
    # Over several rings, as one ring of a short scan holds few electrons.
    window = np.ones(max(3, 2 * int(0.15 * radius) + 1))
    profile = np.convolve(in_ring, window, "same") / np.convolve(pixels, window, "same")
    below = np.flatnonzero(profile[inner:] < inside / 2)
    return float(inner + below[0]) if len(below) else radius


def _centre_of_mass(weights: Floats) -> tuple[float, float]:
    total = weights.sum()
    y = weights.sum(axis=1) @ np.arange(weights.shape[0]) / total
    x = weights.sum(axis=0) @ np.arange(weights.shape[1]) / total
    return float(y), float(x)


def _distance(shape: tuple[int, ...], centre_y: float, centre_x: float) -> Floats:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - centre_y, x - centre_x)


def _parts(events: CountedEvents) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """Rows and their electrons, a part of the scan at a time."""
    for first in range(0, len(events.offsets) - 1, _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, len(events.offsets) - 1))
        yield rows, events.indices[events.offsets[rows.start] : events.offsets[rows.stop]]


def _electrons_per_frame(events: CountedEvents, detector: NDArray[np.bool_]) -> Floats:
    """(height, width) float64, electrons on a detector, mean of the complete frames of each scan position."""
    on_detector = detector.ravel()
    counts = np.zeros(len(events.offsets) - 1, np.int64)
    for rows, electrons in _parts(events):
        running = np.concatenate([[0], np.cumsum(on_detector[electrons])])
        bounds = events.offsets[rows.start : rows.stop + 1] - events.offsets[rows.start]
        counts[rows] = np.diff(running[bounds])
    complete = events.missing_sectors == 0
    by_position = (-1, events.frames_per_position)
    frames = complete.reshape(by_position).sum(axis=1)
    electrons_there = np.where(complete, counts, 0).reshape(by_position).sum(axis=1)
    mean = np.full(len(frames), np.nan)
    np.divide(electrons_there, frames, out=mean, where=frames > 0)
    return mean.reshape(events.scan_shape)


def _label(events: CountedEvents) -> str:
    height, width = events.scan_shape
    frames = f", {events.frames_per_position} frames each" if events.frames_per_position > 1 else ""
    return f"scan {events.label}:  {width} {_TIMES} {height} positions{frames},  {len(events.indices):,} electrons"


def _scan_figure(image: Floats, title: str, label: str) -> Figure:
    """Image over the scan positions, in grey as microscopists are used to; what is missing is coloured."""
    figure, axes = _figure(image.shape, title, label)
    axes.set(xlabel="scan position x", ylabel="scan position y")
    axes.locator_params(integer=True)
    known = image[np.isfinite(image)]
    darkest, brightest = np.percentile(known, [0.5, 99.5]) if len(known) else (0.0, 1.0)
    drawn = axes.imshow(image, cmap="gray", vmin=darkest, vmax=brightest, interpolation="nearest")
    if max(image.shape) > 5 * min(image.shape):
        axes.set_aspect("auto")  # else a few lines of a scan would be too thin to be seen
    axes.set_facecolor(_MISSING_COLOUR)  # shows where the image is NaN
    figure.colorbar(drawn, ax=axes, label="electrons per frame", extend="both")
    missing = image.size - len(known)
    if missing:
        handle = axes.plot([], [], "s", color=_MISSING_COLOUR, label=f"incomplete: {missing:,} positions")
        figure.legend(handles=handle, loc="outside lower left", frameon=False, fontsize="small")
    return figure


def _pattern_figure(pattern: Floats, detectors: VirtualDetectors, title: str, label: str) -> Figure:
    """Summed pattern on a logarithmic scale with the outlines of the virtual detectors."""
    from matplotlib.colors import LogNorm  # noqa: PLC0415 (slow to import)

    figure, axes = _figure(pattern.shape, title, label)
    axes.set(xlabel="x (px)", ylabel="y (px)")
    drawn_pattern, binning = _binned_for_drawing(pattern, detectors)
    lowest = 0.5 / binning**2
    norm = LogNorm(vmin=lowest, vmax=max(10 * lowest, float(drawn_pattern.max())), clip=True)
    height, width = (size * binning for size in drawn_pattern.shape)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = axes.imshow(drawn_pattern, cmap="inferno", norm=norm, interpolation="nearest", extent=extent)
    unit = "electrons per pixel" if binning == 1 else f"electrons per pixel (mean of {binning} {_TIMES} {binning})"
    figure.colorbar(drawn, ax=axes, label=unit)
    turn = np.linspace(0, 2 * np.pi, 361)
    for radius, colour, style, name in (
        (detectors.disk_radius, "cyan", "-", f"bright field: up to {detectors.disk_radius:.0f} px"),
        (
            detectors.dark_inner,
            "white",
            "--",
            f"dark field: {detectors.dark_inner:.0f} to {detectors.dark_outer:.0f} px",
        ),
        (detectors.dark_outer, "white", "--", None),
    ):
        y, x = detectors.centre_y + radius * np.sin(turn), detectors.centre_x + radius * np.cos(turn)
        axes.plot(x, y, style, color=colour, linewidth=1.2, label=name)
    axes.legend(loc="lower left", fontsize="small", labelcolor="white", facecolor="black", framealpha=0.6)
    return figure


def _binned_for_drawing(pattern: Floats, detectors: VirtualDetectors) -> tuple[Floats, int]:
    """Pattern binned until faint Bragg disks rise above the noise of single electrons, and the binning."""
    distance = _distance(pattern.shape, detectors.centre_y, detectors.centre_x)
    around = (distance >= detectors.dark_inner) & (distance <= (detectors.dark_inner + detectors.dark_outer) / 2)
    faint = float(pattern[around].mean()) if around.any() else 0.0
    binning = 1
    while binning < _MAX_BINNING and faint * binning**2 < _ENOUGH_ELECTRONS:
        binning *= 2
    return _blocks_of(pattern, binning) / binning**2, binning


def _figure(shape: tuple[int, ...], title: str, label: str) -> tuple[Figure, Any]:
    # Not pyplot: it would keep the figures and might look for a display. A bare figure is drawn by Agg.
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    height = 1.4 + 4.4 * min(shape[0] / shape[1], 1.0)
    figure = Figure(figsize=(6.4, max(height, 2.6)), layout="compressed")
    figure.suptitle(title, weight="bold")
    axes = figure.subplots()
    axes.set_title(label, fontsize="small", color="0.3")
    return figure, axes
