"""Automatic thresholds: from sample frames to the background and x-ray thresholds, by stempy's arithmetic.

The samples are corrected (dark and gain; row dark is not applied to samples, as in stempy) and go into a histogram of
unit bins. Then, as stempy's ``calculateThresholds`` does [1]_:

- x-ray threshold = mean + n · standard deviation of all samples;
- background threshold = centre + n · width of a Gaussian fitted to the histogram by Levenberg and Marquardt's method.

Other than in stempy, each sample frame is taken once (stempy draws with repetition, seeded at random), so the same
frames give the same thresholds; and a dark without gain is subtracted with its sign, where stempy's uint16 wraps round
and turns every pixel below the dark into one of about 65,500.

References
----------
.. [1] OpenChemistry/stempy@0a191e7, stempy/electronthresholds.cpp, lines 76-190.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counting import checks
from counting.corrections import PIXEL_MAX, Corrections

FIRST_BIN = -65_536  # no pixel is below it, unless by a gain far below 1
BIN_COUNT = 3 * 65_536


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
    min_sample, max_sample : float, detector counts
        Smallest sample; greatest one, rounded up.
    first_bin : int, detector counts
        Bin ``i`` of the histogram holds the samples from ``first_bin + i`` to below ``first_bin + i + 1``.
    histogram : (bins,) int64
        The histogram the Gaussian was fitted to.
    """

    background: float
    xray: float
    mean: float
    std: float
    optimized_mean: float
    optimized_std: float
    amplitude: float
    frames: int
    min_sample: float
    max_sample: float
    first_bin: int
    histogram: NDArray[np.int64]


class ThresholdSamples:
    """Gathers sample frames in a histogram, as many as come, in the same memory.

    Parameters
    ----------
    corrections : Corrections
        Those that the frames are counted with.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._histogram = np.zeros(BIN_COUNT, np.int64)
        self._beyond = 0
        self._pixels = 0
        self._saturated = 0
        self._sum = 0.0
        self._sum_of_squares = 0.0
        self._min = math.inf
        self._max = -math.inf
        self.frames = 0

    def add(self, sectors: Sequence[NDArray[np.uint16]], slots: NDArray[np.int64]) -> None:
        """Take frames in; arguments and errors as those of counting.count_sectors.

        Parameters
        ----------
        sectors : sequence of S arrays (n_m, rows, width) uint16, detector counts
            The sector frames.
        slots : (n, S) int64
            Frame ``i`` is made of ``sectors[m][slots[i, m]]``.
        """
        checks.check_sectors(sectors)
        checks.check_slots(slots, sectors)
        rows, width = sectors[0].shape[1:]
        checks.check_frame_size(len(sectors) * rows, width)
        self._corrections.check_frame(len(sectors) * rows, width)
        dark, inverse_gain = self._corrections.dark, self._corrections.inverse_gain
        for frame_slots in slots:
            raw = np.concatenate([sector[slot] for sector, slot in zip(sectors, frame_slots, strict=True)])
            samples = raw.astype(np.float32)
            if dark is not None:
                samples -= dark if inverse_gain is not None else np.trunc(dark)
            if inverse_gain is not None:
                samples *= inverse_gain
            self._add_samples(samples)
            self._saturated += int(np.count_nonzero(raw == PIXEL_MAX))
            self.frames += 1

    def _add_samples(self, samples: NDArray[np.float32]) -> None:
        bins = np.floor(samples).astype(np.int64) - FIRST_BIN
        inside = (bins >= 0) & (bins < BIN_COUNT)
        self._histogram += np.bincount(bins[inside], minlength=BIN_COUNT)
        self._beyond += int(inside.size - np.count_nonzero(inside))
        self._pixels += samples.size
        self._sum += float(samples.sum(dtype=np.float64))
        self._sum_of_squares += float(np.square(samples, dtype=np.float64).sum())
        self._min = min(self._min, float(samples.min()))
        self._max = max(self._max, float(samples.max()))

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
            raise ThresholdError("thresholds: expected sample frames, got none")
        if self._min == self._max:
            raise ThresholdError(
                f"thresholds: expected samples that differ, all pixels of {self.frames} frames are {self._min:g}"
            )
        if 2 * self._saturated > self._pixels:
            raise ThresholdError(
                f"thresholds: {self._saturated} of {self._pixels} sample pixels are saturated ({PIXEL_MAX})"
            )
        mean = self._sum / self._pixels
        std = math.sqrt(max(self._sum_of_squares - self._sum * mean, 0.0) / (self._pixels - 1))
        xray = mean + xray_sigmas * std
        first_bin, histogram = self._stempy_bins(mean, std, xray)
        amplitude, centre, width = _fit_gaussian(first_bin, histogram, (float(histogram.max()), mean, std))
        background = centre + background_sigmas * width
        if not background < xray:
            raise ThresholdError(f"thresholds: expected background below x-ray, got {background:.6g} and {xray:.6g}")
        return Thresholds(
            background=background,
            xray=xray,
            mean=mean,
            std=std,
            optimized_mean=centre,
            optimized_std=width,
            amplitude=amplitude,
            frames=self.frames,
            min_sample=self._min,
            max_sample=float(math.ceil(self._max)),
            first_bin=first_bin,
            histogram=histogram,
        )

    def _stempy_bins(self, mean: float, std: float, xray: float) -> tuple[int, NDArray[np.int64]]:
        first = max(int(self._min), int(mean - xray * std), FIRST_BIN)
        end = min(math.ceil(self._max), int(mean + xray * std), FIRST_BIN + BIN_COUNT)
        if end <= first:
            raise ThresholdError(
                f"thresholds: expected samples over more than one bin, got {self._min:g} to {self._max:g}"
            )
        histogram = self._histogram[first - FIRST_BIN : end - FIRST_BIN].copy()
        if first == int(self._min) and self._min < first:
            histogram[0] += self._histogram[first - 1 - FIRST_BIN]  # stempy cuts off towards 0
        return first, histogram


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
    (amplitude, centre, width), _, _, message, status = leastsq(
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
    fitted = float(amplitude), float(centre), abs(float(width))
    if status not in (1, 2, 3, 4) or not all(map(math.isfinite, fitted)) or fitted[0] <= 0 or fitted[2] <= 0:
        raise ThresholdError(f"thresholds: no Gaussian fits the samples' histogram ({message.strip()}; {fitted})")
    return fitted
