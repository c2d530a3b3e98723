"""What the detector adds to the pixels and how it is taken away again: dark reference, gain, row dark."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PIXEL_MAX = 65_535
ROW_DARK_STATISTICS = ("mean", "median")
WRAPPING_XRAY = 60_000.0  # up to here the x-ray threshold hides what wraps round below 0


@dataclass(frozen=True, eq=False)
class Corrections:
    """The corrections applied to each frame before its electrons are counted, as stempy applies them [1]_.

    ======================  ==========================================================================================
    dark                    uint16: raw - dark without its fraction. It wraps round below 0, which the x-ray threshold
                            hides; above an x-ray threshold of 60,000, negative is 0 instead and nothing wraps (the
                            stempy engine wraps there, too)
    gain                    float32: raw · 1/gain
    dark and gain           float32: (raw - dark) · 1/gain, with the dark's fraction
    row dark                uint16: each half row times optimized mean / (mean or median of that raw half row), cut off
                            to whole counts; above 65,535 it wraps round
    row dark and dark       uint16: raw - dark with its fraction, cut off to whole counts, then as above
    row dark and gain       float32: ((raw - dark) · optimized mean / mean or median) · 1/gain
    ======================  ==========================================================================================

    An instance is its own identity (two with equal arrays are not equal): what counting prepares for one is kept and
    used again, so give the same instance for all frames of a scan.

    Parameters
    ----------
    dark : (y, x) float32, float64 or integers, detector counts, optional
        Dark reference: what each pixel shows without beam.
    gain : (y, x) float32 or float64, optional
        Gain reference: each pixel is divided by it (in fact multiplied by its inverse, as stempy does).
    row_dark : {"mean", "median"}, optional
        Whether and by which statistic each half row is scaled to the optimized mean. In an odd width the right half is
        the longer.
    optimized_mean : float, detector counts, optional
        What row dark scales each half row to: the mean of the Gaussian fitted to the histogram of the samples.

    Attributes
    ----------
    inverse_gain : (y, x) float32 or None
        1 / gain, computed in the type of the gain.

    Raises
    ------
    ValueError
        A reference that is not two-dimensional, holds NaN or infinity, cannot be float32 without loss, or is not of the
        other's shape; a dark that no detector has; a gain that is zero or negative; row dark without its optimized
        mean, the mean without row dark, or an unknown statistic.

    References
    ----------
    .. [1] OpenChemistry/stempy@0a191e7, stempy/electron.cpp: ``electronCount`` (lines 527-561) and ``applyRowDark``
       (lines 218-310); python/stempy/image/__init__.py: ``_safe_cast``.
    """

    dark: NDArray[np.float32] | None = None
    gain: NDArray[np.floating[Any]] | None = None
    row_dark: Literal["mean", "median"] | None = None
    optimized_mean: float | None = None
    inverse_gain: NDArray[np.float32] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.dark is not None:
            object.__setattr__(self, "dark", _checked_dark(self.dark))
        if self.gain is not None:
            object.__setattr__(self, "gain", _checked_gain(self.gain))
            object.__setattr__(self, "inverse_gain", _invert(self.gain))
        if self.dark is not None and self.gain is not None and self.dark.shape != self.gain.shape:
            raise ValueError(f"gain: expected the shape of dark, {self.dark.shape}, got {self.gain.shape}")
        self._check_row_dark()

    def check_frame(self, rows: int, width: int) -> None:
        """Refuse frames that these corrections are not made for.

        Parameters
        ----------
        rows, width : int, pixels
            Size of the whole frame.

        Raises
        ------
        ValueError
            A reference of another shape, or row dark on frames that are not square: stempy takes their width for their
            height there.
        """
        for name, reference in (("dark", self.dark), ("gain", self.gain)):
            if reference is not None and reference.shape != (rows, width):
                raise ValueError(
                    f"{name}: expected the shape of a frame (y, x), ({rows}, {width}), got {reference.shape}"
                )
        if self.row_dark is not None and rows != width:
            raise ValueError(f"row_dark: expected square frames, as stempy does, got {rows} rows of {width}")

    def _check_row_dark(self) -> None:
        if self.row_dark is None:
            if self.optimized_mean is not None:
                raise ValueError(f"optimized_mean: expected none without row_dark, got {self.optimized_mean}")
            return
        if self.row_dark not in ROW_DARK_STATISTICS:
            raise ValueError(f"row_dark: expected one of {', '.join(ROW_DARK_STATISTICS)}, got {self.row_dark!r}")
        if self.optimized_mean is None:
            raise ValueError("optimized_mean: expected a mean in detector counts with row_dark, got none")
        if not abs(self.optimized_mean) <= float(np.finfo(np.float32).max):
            raise ValueError(f"optimized_mean: expected a mean in detector counts, got {self.optimized_mean}")


def _checked_dark(dark: NDArray[Any]) -> NDArray[np.float32]:
    _check_reference("dark", dark, np.floating, np.integer)
    if dark.min() < -PIXEL_MAX or dark.max() > PIXEL_MAX:
        raise _refusal("dark", dark, abs(dark) <= PIXEL_MAX, f"-{PIXEL_MAX} to {PIXEL_MAX} detector counts")
    return _cast("dark", dark.copy(), "values")


def _checked_gain(gain: NDArray[Any]) -> NDArray[np.floating[Any]]:
    _check_reference("gain", gain, np.floating)
    if gain.min() <= 0:
        raise _refusal("gain", gain, gain > 0, "values above 0")
    kept = gain.copy()
    kept.flags.writeable = False
    return kept


def _invert(gain: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    # In the type it came in and with this very function, as stempy does: another division may differ in the last bit.
    with np.errstate(over="ignore"):
        inverse = np.power(gain, -1)
    if not np.isfinite(inverse.max()):
        raise _refusal("gain", gain, np.isfinite(inverse), "values whose inverse is finite")
    return _cast("gain", inverse, "1 / gain")


def _check_reference(name: str, reference: NDArray[Any], *kinds: type) -> None:
    dtype = getattr(reference, "dtype", None)
    if dtype is None or not any(np.issubdtype(dtype, kind) for kind in kinds):
        raise ValueError(f"{name}: expected an array of float32 or float64, got {dtype or type(reference).__name__}")
    if reference.ndim != 2 or reference.size == 0:
        raise ValueError(f"{name}: expected 2 dimensions (y, x), got shape {reference.shape}")
    if not (np.isfinite(reference.min()) and np.isfinite(reference.max())):
        raise _refusal(name, reference, np.isfinite(reference), "finite values")


def _cast(name: str, values: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Give float32 that nobody can change; refuse, as stempy does, what float32 does not hold."""
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(np.float32, order="C", copy=False)
    lossless = cast is values or cast.astype(values.dtype) == values
    if not np.all(lossless):
        remedy = f"{what} that float32 holds without loss ({name}.astype(np.float32) helps)"
        raise _refusal(name, values, np.asarray(lossless), remedy)
    cast.flags.writeable = False
    return cast


def _refusal(name: str, values: NDArray[Any], good: NDArray[np.bool_], expected: str) -> ValueError:
    y, x = (int(number) for number in np.argwhere(~good)[0])
    bad = int(good.size - np.count_nonzero(good))
    return ValueError(f"{name}: expected {expected}, got {values[y, x]} at y {y}, x {x} ({bad} such pixels)")


NO_CORRECTIONS = Corrections()
