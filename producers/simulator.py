"""The simulated detector: a 4D-STEM scan of known electrons, pure functions of seed and frame number.

Positions on the frame are (y, x) in px; whole numbers are the centres of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.specimen import Scattering, scattering
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, MAX_FRAMES, MAX_SCAN_EDGE

Floats = NDArray[np.float64]

MAX_ELECTRONS: Final = 20_000  # a frame's mean; with many more, pixels would overflow 16 bits

_FRAME_PIXELS: Final = FRAME_HEIGHT * FRAME_WIDTH
_CENTRE_Y, _CENTRE_X = FRAME_HEIGHT / 2 + 3.0, FRAME_WIDTH / 2 - 5.0  # a beam is never quite centred
_DISK_RADIUS_PX: Final = 44.0
_FIRST_ORDER_PX, _SECOND_ORDER_PX = 118.0, 118.0 * math.sqrt(3.0)  # Bragg spots of a hexagonal net
_SECOND_ORDER_PART: Final = 0.3
_HALO_RADIUS_PX, _HALO_WIDTH_PX = 110.0, 50.0

_LANDAU_WIDTH: Final = 0.12  # relative to the mean energy
_MOYAL_MEAN: Final = float(np.euler_gamma) + math.log(2.0)
_XRAY_FLOOR_COUNTS, _XRAY_SPREAD_COUNTS, _XRAY_LIMIT_COUNTS = 3_000.0, 6_000.0, 30_000.0

_DARK_PATTERN_COUNTS: Final = 1.0
_NOISE_POOL: Final = 4_000_000
_SUBPIXELS: Final = 64

# Independent random streams of one seed.
_DETECTOR_STREAM, _FRAME_STREAM = 0, 1


class Truth(NamedTuple):
    """What hit the detector in a run of frames; the offsets are CSR over the frames."""

    y: NDArray[np.float32]
    x: NDArray[np.float32]
    energy: NDArray[np.float32]
    """Counts that an electron deposits in all pixels together."""
    offsets: NDArray[np.int64]
    xray_y: NDArray[np.uint16]
    xray_x: NDArray[np.uint16]
    xray_energy: NDArray[np.uint16]
    xray_offsets: NDArray[np.int64]

    @classmethod
    def join(cls, parts: list[Truth]) -> Truth:
        """One truth of consecutive runs of frames."""
        return cls(
            y=np.concatenate([part.y for part in parts]),
            x=np.concatenate([part.x for part in parts]),
            energy=np.concatenate([part.energy for part in parts]),
            offsets=_csr(np.concatenate([np.diff(part.offsets) for part in parts])),
            xray_y=np.concatenate([part.xray_y for part in parts]),
            xray_x=np.concatenate([part.xray_x for part in parts]),
            xray_energy=np.concatenate([part.xray_energy for part in parts]),
            xray_offsets=_csr(np.concatenate([np.diff(part.xray_offsets) for part in parts])),
        )


@dataclass(frozen=True)
class Simulation:
    """A simulated scan: the parameters, and the frames they determine.

    A frame depends on the parameters and on its number alone, not on the batch it is made in: several
    processes may each make a part of a scan.
    """

    width: int
    """Scan positions a row."""
    height: int
    """Rows of the scan."""
    frames_per_position: int = 1
    electrons: float = 300.0
    """Mean number of electrons a frame (Poisson)."""
    noise_counts: float = 5.0
    """Standard deviation of the read noise."""
    dark_counts: float = 12.0
    """Dark offset; each pixel has its own, about 2 counts more or less."""
    energy_counts: float = 650.0
    """Mean energy an electron deposits; its brightest pixel gets a quarter to a half of it."""
    charge_spread_px: float = 0.5
    """Standard deviation of the Gaussian by which an electron's charge spreads."""
    xrays: float = 0.02
    """Mean number of x-rays a frame."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "width": (1, MAX_SCAN_EDGE),
            "height": (1, MAX_SCAN_EDGE),
            "frames_per_position": (1, MAX_SCAN_EDGE),
            "electrons": (0, MAX_ELECTRONS),
            "noise_counts": (0, 1_000),
            "dark_counts": (0, 10_000),
            "energy_counts": (0, 3_000),
            "charge_spread_px": (0.1, 0.8),
            "xrays": (0, 100),
            "seed": (0, 2**64 - 1),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}, expected {lowest} to {highest}")
        if self.frame_count > MAX_FRAMES:
            raise ValueError(f"the scan has {self.frame_count} frames, expected at most {MAX_FRAMES}")

    @property
    def frame_count(self) -> int:
        """Number of frames of the scan."""
        return self.width * self.height * self.frames_per_position

    @cached_property
    def dark(self) -> NDArray[np.int16]:
        """(576, 576) int16, what each pixel shows without beam and noise, in counts."""
        pattern = self._detector_random(0).normal(self.dark_counts, _DARK_PATTERN_COUNTS, (FRAME_HEIGHT, FRAME_WIDTH))
        dark: NDArray[np.int16] = np.rint(pattern).clip(0).astype(np.int16)
        return dark

    @cached_property
    def _noise(self) -> NDArray[np.int16]:
        """A pool of read noise: each frame takes a run of it, which is far faster than new random numbers."""
        normal = self._detector_random(1).standard_normal(_NOISE_POOL + _FRAME_PIXELS, dtype=np.float32)
        noise: NDArray[np.int16] = np.rint(self.noise_counts * normal).astype(np.int16)
        return noise

    @cached_property
    def _charge(self) -> Floats:
        """(64, 3) float64, parts of the charge in the pixel before, the pixel hit, and the one after.

        The first axis is where in the pixel the electron hit.
        """
        hit = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS
        edges = (np.arange(-1, 3) - hit[:, np.newaxis]) / (self.charge_spread_px * math.sqrt(2.0))
        parts: Floats = np.diff(np.vectorize(math.erf)(edges), axis=1) / 2
        return parts

    def scan_position(self, frame_number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column (y, x) of the scan at which frames are taken."""
        y, x = np.divmod(frame_number // self.frames_per_position, self.width)
        return y, x

    def scattering(self, frame_number: NDArray[np.int64]) -> Scattering:
        """Say what the specimen does to the beam in the given frames."""
        y, x = self.scan_position(frame_number)
        edge = max(self.width, self.height)
        return scattering((y + 0.5 - self.height / 2) / edge, (x + 0.5 - self.width / 2) / edge)

    def frames(self, first: int, count: int, out: NDArray[np.uint16] | None = None) -> tuple[NDArray[np.uint16], Truth]:
        """Make consecutive frames.

        Parameters
        ----------
        first, count
            The frame numbers first … first + count - 1.
        out : (count, 576, 576) uint16, optional
            Where to put the pixels: fresh memory costs as much time as filling it.

        Returns
        -------
        pixels : (count, 576, 576) uint16, detector counts
        truth : the electrons and x-rays in them
        """
        if first < 0 or count < 1 or first + count > self.frame_count:
            raise ValueError(f"frames {first} to {first + count - 1} of a scan of {self.frame_count} frames")
        shape = (count, FRAME_HEIGHT, FRAME_WIDTH)
        pixels = np.empty(shape, np.uint16) if out is None else out
        if pixels.shape != shape or not pixels.flags.c_contiguous:
            raise ValueError(f"out has shape {pixels.shape}, expected {shape} in one piece")
        numbers = np.arange(first, first + count)
        dice = [self._throw(int(number)) for number in numbers]
        for frame, thrown in zip(pixels, dice, strict=True):
            self._read_out(frame, thrown.noise_start)
        truth = self._hits(dice, self.scattering(numbers))
        self.expose(pixels, truth)
        return pixels, truth

    def expose(self, pixels: NDArray[np.uint16], truth: Truth) -> None:
        """Add the charge of electrons and x-rays to frames, (n, 576, 576) uint16 in one piece."""
        flat = pixels.reshape(-1)
        frame = np.repeat(np.arange(len(truth.offsets) - 1), np.diff(truth.offsets))
        rows, row_charge = self._spread(truth.y, FRAME_HEIGHT)
        columns, column_charge = self._spread(truth.x, FRAME_WIDTH)
        rows += (frame * FRAME_HEIGHT)[:, np.newaxis]
        row_charge *= truth.energy[:, np.newaxis]
        pixel = rows[:, :, np.newaxis] * FRAME_WIDTH + columns[:, np.newaxis, :]
        charge = row_charge[:, :, np.newaxis] * column_charge[:, np.newaxis, :] + 0.5
        np.add.at(flat, pixel.reshape(-1), charge.astype(np.uint16).reshape(-1))

        frame = np.repeat(np.arange(len(truth.xray_offsets) - 1), np.diff(truth.xray_offsets))
        pixel = (frame * FRAME_HEIGHT + truth.xray_y) * FRAME_WIDTH + truth.xray_x
        np.add.at(flat, pixel, truth.xray_energy)

    def _detector_random(self, part: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, _DETECTOR_STREAM, part))

    def _throw(self, frame_number: int) -> _Dice:
        """All random numbers of one frame; what follows from them is computed for many frames at once."""
        random = np.random.default_rng((self.seed, _FRAME_STREAM, frame_number))
        electrons, xrays = random.poisson((self.electrons, self.xrays))
        return _Dice(
            noise_start=int(random.integers(_NOISE_POOL)),
            uniform=random.random((6, electrons)),
            normal=random.standard_normal((2, electrons)),
            xray=random.random((3, xrays)),
        )

    def _read_out(self, frame: NDArray[np.uint16], noise_start: int) -> None:
        """Fill a frame with dark pattern and read noise, never below zero."""
        noise = self._noise[noise_start : noise_start + _FRAME_PIXELS].reshape(frame.shape)
        counts = frame.view(np.int16)
        np.add(noise, self.dark, out=counts)
        np.maximum(counts, _ZEROS, out=counts)  # an array: numpy's loop for a scalar is five times slower

    def _hits(self, dice: list[_Dice], beam: Scattering) -> Truth:
        """Electrons and x-rays of frames."""
        electrons = [thrown.normal.shape[1] for thrown in dice]
        uniform = np.concatenate([thrown.uniform for thrown in dice], axis=1)
        normal = np.concatenate([thrown.normal for thrown in dice], axis=1)
        y, x = _scatter(uniform, normal[0], Scattering(*(np.repeat(column, electrons, axis=0) for column in beam)))
        inside = (y >= -0.5) & (y < FRAME_HEIGHT - 0.5) & (x >= -0.5) & (x < FRAME_WIDTH - 0.5)
        frame = np.repeat(np.arange(len(dice)), electrons)
        # -ln(z²) of a normal z follows Moyal's approximation of the Landau distribution.
        moyal = -2.0 * np.log(np.abs(normal[1])) - _MOYAL_MEAN
        energy = self.energy_counts * (1.0 + _LANDAU_WIDTH * moyal)
        xray = np.concatenate([thrown.xray for thrown in dice], axis=1)
        xray_energy = _XRAY_FLOOR_COUNTS - _XRAY_SPREAD_COUNTS * np.log1p(-xray[2])
        return Truth(
            y=y[inside],
            x=x[inside],
            energy=energy[inside].astype(np.float32),
            offsets=_csr(np.bincount(frame[inside], minlength=len(dice))),
            xray_y=(xray[0] * FRAME_HEIGHT).astype(np.uint16),
            xray_x=(xray[1] * FRAME_WIDTH).astype(np.uint16),
            xray_energy=xray_energy.clip(max=_XRAY_LIMIT_COUNTS).astype(np.uint16),
            xray_offsets=_csr(np.array([thrown.xray.shape[1] for thrown in dice])),
        )

    def _spread(self, position: NDArray[np.float32], size: int) -> tuple[NDArray[np.intp], Floats]:
        """Pixels along one axis that share an electron's charge, and their parts, both (n, 3)."""
        from_edge = position + np.float32(0.5)
        hit = from_edge.astype(np.intp)
        charge = self._charge[((from_edge - hit) * _SUBPIXELS).astype(np.intp)]
        pixels = hit[:, np.newaxis] + np.arange(-1, 2)
        charge[(pixels < 0) | (pixels >= size)] = 0.0  # lost beside the detector
        return pixels.clip(0, size - 1), charge


class _Dice(NamedTuple):
    """The random numbers of one frame."""

    noise_start: int
    uniform: Floats
    normal: Floats
    xray: Floats


_ZEROS: Final = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.int16)


def _scatter(uniform: Floats, normal: Floats, beam: Scattering) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where electrons hit the detector.

    Parameters
    ----------
    uniform : (6, n) float64, random numbers from 0 to 1
    normal : (n,) float64, normal random numbers
    beam : what the specimen does, one entry an electron
    """
    process, disk_radius, disk_angle, halo_angle, order, spot = uniform
    bragg = process < beam.bragg
    halo = ~bragg & (process < beam.bragg + beam.diffuse)
    second = order < _SECOND_ORDER_PART
    bragg_radius = np.where(second, _SECOND_ORDER_PX, _FIRST_ORDER_PX)
    bragg_angle = beam.lattice_angle + np.pi / 3 * (np.floor(6 * spot) + 0.5 * second)
    halo_radius = _HALO_RADIUS_PX + _HALO_WIDTH_PX * normal
    radius = np.select([bragg, halo], [bragg_radius, halo_radius], 0.0)
    angle = np.where(bragg, bragg_angle, 2 * np.pi * halo_angle)
    # Every beam, scattered or not, is as wide as the condenser aperture: a disk.
    within = _DISK_RADIUS_PX * np.sqrt(disk_radius)
    turn = 2 * np.pi * disk_angle
    y = _CENTRE_Y + beam.shift[:, 0] + radius * np.sin(angle) + within * np.sin(turn)
    x = _CENTRE_X + beam.shift[:, 1] + radius * np.cos(angle) + within * np.cos(turn)
    return y.astype(np.float32), x.astype(np.float32)


def _csr(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)])
