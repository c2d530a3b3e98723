"""Automatic thresholds: from sample frames to the background and x-ray thresholds, by stempy's arithmetic.

Samples are corrected by dark and gain (not by row dark, as in stempy) to whole numbers. Then, as stempy's
``calculateThresholds`` does [1]_:

- x-ray threshold = mean + n · standard deviation of all samples;
- background threshold = mean + n · standard deviation of a Gaussian fitted to their histogram.

On the same samples both are stempy's to many digits. Two things differ on purpose: each sample frame is taken once
(stempy draws with repetition, seeded at random), so that the same frames give the same thresholds; and samples below
the dark are negative, where in stempy they wrap round to about 65,500, which makes its statistics nonsense.

References
----------
.. [1] OpenChemistry/stempy@0a191e7, stempy/electronthresholds.cpp, lines 76-190.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from counting import checks
from counting.corrections import PIXEL_MAX, Corrections

if TYPE_CHECKING:
    from counting.histogram import Histogram

PARAMETERS = 3  # of a Gaussian


class ThresholdError(ValueError):
    """The samples give no thresholds; the message says why."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds found in samples, and the statistics they come from.

    Attributes
    ----------
    background, xray : float, detector counts
        The thresholds to count with.
    mean, std : float, detector counts
        Of all samples.
    optimized_mean, optimized_std, amplitude : float, detector counts (the amplitude: pixels a bin)
        The Gaussian amplitude · exp(-(bin - optimized_mean)² / (2 · optimized_std²)).
    frames : int
        Number of sample frames.
    min_sample, max_sample : int, detector counts
        The smallest and the greatest sample.
    first_bin : int, detector counts
        Bin ``i`` of the histogram holds the samples of ``first_bin + i`` counts.
    histogram : (bins,) int64
        The histogram the Gaussian was fitted to. Not looked at when thresholds are compared.
    """

    background: float
    xray: float
    mean: float
    std: float
    optimized_mean: float
    optimized_std: float
    amplitude: float
    frames: int
    min_sample: int
    max_sample: int
    first_bin: int
    histogram: NDArray[np.int64] = field(compare=False, repr=False)


class ThresholdSamples:
    """Gathers sample frames in a histogram, as many as come, in the same memory.

    Parameters
    ----------
    corrections : Corrections
        Those that the frames are counted with.

    Attributes
    ----------
    frames : int
        Number of sample frames so far.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._frame_shape: tuple[int, int] | None = None
        self._histogram: Histogram
        self.frames = 0

    def add(self, sectors: Sequence[NDArray[np.uint16]], slots: NDArray[np.int64]) -> None:
        """Take frames in; arguments as those of counting.count_sectors.

        Parameters
        ----------
        sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
            The sector frames.
        slots : (n, S) int64
            Frame ``i`` is made of ``sectors[m][slots[i, m]]``.

        Raises
        ------
        ValueError
            As counting.count_sectors; or frames of another size than those before.
        """
        checks.check_sectors(sectors)
        checks.check_slots(slots, sectors)
        rows, width = len(sectors) * sectors[0].shape[1], sectors[0].shape[2]
        checks.check_frame_size(rows, width)
        self._corrections.check_frame(rows, width)
        if self._frame_shape is None:
            from counting.histogram import Histogram  # noqa: PLC0415 - numba takes a second, see counting

            self._histogram = Histogram(self._corrections, rows, width)
            self._frame_shape = rows, width
        if self._frame_shape != (rows, width):
            raise ValueError(f"sectors: expected frames of {self._frame_shape} as before, got ({rows}, {width})")
        self._histogram.add(sectors, slots)
        self.frames += len(slots)

    def find(self, background_sigmas: float, xray_sigmas: float) -> Thresholds:
        """Find the thresholds of all samples so far.

        Parameters
        ----------
        background_sigmas, xray_sigmas : float
            How many standard deviations (of the fitted Gaussian; of all samples) the thresholds lie above the mean.

        Raises
        ------
        ThresholdError
            There are no samples, they are all equal or mostly saturated, the fit does not converge or makes no sense,
            or the background threshold is not below the x-ray threshold.
        """
        if self.frames == 0:
            raise ThresholdError("expected sample frames, got none")
        least, counted = self._histogram.counted()
        pixels, greatest = int(counted.sum()), least + len(counted) - 1
        if least == greatest:
            raise ThresholdError(f"all {pixels} sample pixels are equal: {least} counts")
        if 2 * self._histogram.saturated > pixels:
            raise ThresholdError(f"{self._histogram.saturated} of {pixels} sample pixels are saturated ({PIXEL_MAX})")
        values = np.arange(least, greatest + 1)
        mean = int(values @ counted) / pixels
        std = math.sqrt(np.square(values - mean) @ counted / (pixels - 1))
        xray = mean + xray_sigmas * std
        # The bins as stempy takes them, in all likelihood meant otherwise; the greatest sample has none.
        first = max(least, int(mean - xray * std))
        end = min(greatest, int(mean + xray * std))
        if end - first < PARAMETERS:
            raise ThresholdError(f"expected samples over more than {PARAMETERS} counts, got {least} to {greatest}")
        histogram = counted[first - least : end - least]
        amplitude, centre, width = _fit_gaussian(first, histogram, (float(histogram.max()), mean, std))
        background = centre + background_sigmas * width
        if not background < xray:
            raise ThresholdError(f"expected background below x-ray threshold, got {background:.6g} and {xray:.6g}")
        return Thresholds(
            background=background,
            xray=xray,
            mean=mean,
            std=std,
            optimized_mean=centre,
            optimized_std=width,
            amplitude=amplitude,
            frames=self.frames,
            min_sample=least,
            max_sample=greatest,
            first_bin=first,
            histogram=histogram,
        )


def warm_up() -> None:
    """Import what the fit needs, so that the first scan does not wait half a second for it."""
    import scipy.optimize  # noqa: F401, PLC0415


def _fit_gaussian(
    first_bin: int, histogram: NDArray[np.int64], start: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Fit amplitude, centre and width with MINPACK's lmder and the tolerances of stempy's Eigen port of it."""
    from scipy.optimize import leastsq  # noqa: PLC0415

    bins = first_bin + np.arange(len(histogram), dtype=np.float64)

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        amplitude, centre, width = parameters
        return np.asarray(amplitude * np.exp(-np.square(bins - centre) / (2 * width**2)) - histogram)

    def jacobian(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        amplitude, centre, width = parameters
        distance = bins - centre
        bell = np.exp(-np.square(distance) / (2 * width**2))
        by_centre = amplitude * distance * bell / width**2
        return np.array([bell, by_centre, distance * by_centre / width])

    tolerance = math.sqrt(np.finfo(np.float64).eps)
    with np.errstate(all="ignore"):  # a fit that goes astray is seen in its result
        fitted, _, _, message, status = leastsq(
            residuals,
            start,
            Dfun=jacobian,
            col_deriv=True,
            full_output=True,
            ftol=tolerance,
            xtol=tolerance,
            gtol=0.0,
            maxfev=400,
        )
    amplitude, centre, width = float(fitted[0]), float(fitted[1]), abs(float(fitted[2]))
    converged = status in (1, 2, 3, 4) and all(map(math.isfinite, fitted))
    reach = width + 1  # noise cut off at 0 may have its mean a little below
    within = bins[0] - reach <= centre <= bins[-1] + reach and 0 < width < len(bins)
    if not (converged and within and amplitude > 0):
        raise ThresholdError(
            f"no Gaussian fits the samples' histogram: amplitude {amplitude:.6g}, mean {centre:.6g}, "
            f"standard deviation {width:.6g}; {' '.join(message.split())}"
        )
    return amplitude, centre, width
