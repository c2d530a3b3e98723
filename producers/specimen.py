"""The specimen that the simulator looks at: gold-like nanoparticles on a carbon film with a hole.

Coordinates are (v, u): the centre of the scan is (0, 0), its longer edge runs from -0.5 to 0.5. A scan that is
not square sees the middle of the same picture, undistorted.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# v, u, half width across flats, lattice angle in degrees. Nothing is symmetric, so that turned axes are seen.
_PARTICLES: Final = np.array(
    [
        (-0.07, -0.13, 0.190, 9.0),
        (0.21, 0.10, 0.120, 14.0),
        (-0.29, 0.21, 0.105, 4.0),
        (0.29, -0.27, 0.085, 24.0),
        (-0.02, 0.30, 0.070, 3.0),
        (-0.38, -0.37, 0.050, 45.0),
        (0.42, -0.05, 0.045, 15.0),
        (-0.41, 0.42, 0.040, 31.0),
    ]
)
_BEVEL: Final = 0.03  # width of a particle's sloping edge
_HOLE_V, _HOLE_U, _HOLE_RADIUS = 0.52, 0.56, 0.27
_HOLE_EDGE: Final = 0.02

# Parts of the beam that leave the central disk.
_FILM_DIFFUSE: Final = 0.14
_PARTICLE_DIFFUSE: Final = 0.16
_PARTICLE_BRAGG: Final = 0.38

_EDGE_SHIFT_PX: Final = 4.0  # how far the slope of a particle's edge moves the pattern


class Scattering(NamedTuple):
    """What the specimen does to the beam, one entry a scan position."""

    particle: Floats
    """Thickness of the particle, 0 (none) to 1 (full)."""
    bragg: Floats
    """Part of the electrons in Bragg disks."""
    diffuse: Floats
    """Part of the electrons scattered diffusely; what is left stays in the central disk."""
    lattice_angle: Floats
    """Direction of the first Bragg disk, radians from +x to +y."""
    shift: Floats
    """(n, 2) float64, y and x shift of the whole pattern in px (the beam is deflected at edges)."""


def scattering(v: Floats, u: Floats) -> Scattering:
    """Scattering of the specimen at the given points.

    Parameters
    ----------
    v, u : (n,) float64, specimen coordinates (see the module)
    """
    thickness = _thickness(v, u)
    which = thickness.argmax(axis=0)
    particle = thickness.max(axis=0)
    film = np.clip((np.hypot(v - _HOLE_V, u - _HOLE_U) - _HOLE_RADIUS) / _HOLE_EDGE + 0.5, 0.0, 1.0)
    step = _BEVEL / 2  # over this distance the finite probe feels the slope
    slope = np.stack(
        [
            _thickness(v + step, u).max(axis=0) - _thickness(v - step, u).max(axis=0),
            _thickness(v, u + step).max(axis=0) - _thickness(v, u - step).max(axis=0),
        ],
        axis=-1,
    )
    return Scattering(
        particle=particle,
        bragg=_PARTICLE_BRAGG * particle,
        diffuse=_FILM_DIFFUSE * film + _PARTICLE_DIFFUSE * particle,
        lattice_angle=np.deg2rad(_PARTICLES[which, 3]),
        shift=_EDGE_SHIFT_PX * slope,
    )


def _thickness(v: Floats, u: Floats) -> Floats:
    """(particles, n) float64, thickness 0 … 1 of each particle: a hexagon with bevelled edges."""
    centre_v, centre_u, half_width, angle = (column[:, np.newaxis] for column in _PARTICLES.T)
    facets = np.deg2rad(angle + np.array([0.0, 60.0, 120.0]))[..., np.newaxis]
    along_v, along_u = (v - centre_v)[:, np.newaxis], (u - centre_u)[:, np.newaxis]
    outward = np.abs(along_u * np.cos(facets) + along_v * np.sin(facets)).max(axis=1)
    thickness: Floats = np.clip((half_width - outward) / _BEVEL + 0.5, 0.0, 1.0)
    return thickness
