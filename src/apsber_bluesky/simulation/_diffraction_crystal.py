"""Bragg spots of a rotating mosaic crystal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

# Reflections whose mosaic blocks are further away than this many widths give nothing.
_REACH: Final = 5.0
_LARGEST_COUNT: Final = 4_000_000
_INTENSITIES: Final = 0xF2


@dataclass(frozen=True, slots=True)
class Crystal:
    """A crystal with right angles in its cell; the default cell is that of lysozyme.

    Attributes
    ----------
    cell_A : tuple of float
        Lattice constants a, b, c [Angstrom].
    mosaic_deg : float
        Standard deviation of the orientations of its mosaic blocks [deg].
    b_factor_A2 : float
        Debye-Waller factor B [Angstrom^2].
    strength : float
        Photons per second of a reflection of mean intensity at its peak, before the Debye-Waller
        factor and polarisation [1/s].
    """

    cell_A: tuple[float, float, float] = (79.1, 79.1, 37.9)
    mosaic_deg: float = 0.25
    b_factor_A2: float = 12.0
    strength: float = 4e4

    def __post_init__(self) -> None:
        if min(self.cell_A) <= 0 or self.mosaic_deg <= 0 or self.strength < 0:
            raise InputError(
                f"a crystal cannot have a cell of {self.cell_A} Angstrom, a mosaic width of"
                f" {self.mosaic_deg} deg and a strength of {self.strength}; give positive numbers"
            )


@dataclass(frozen=True, slots=True)
class Spots:
    """Spots at one angle.

    Attributes
    ----------
    indices : ndarray of int, shape (n, 3)
        Miller indices.
    directions : ndarray of float64, shape (n, 3)
        Unit vectors of the diffracted beams: x along columns, y along rows, z along the beam.
    photons_per_s : ndarray of float64, shape (n,)
        What they bring [1/s].
    """

    indices: NDArray[np.int64]
    directions: NDArray[np.float64]
    photons_per_s: NDArray[np.float64]


class Reflections:
    """All reflections of a crystal up to a resolution, and which of them shine at an angle.

    The rotation axis is y, from one row of the detector to the next. Reciprocal lattice and
    orientation: Busing and Levy, Acta Cryst. 22, 457 (1967). A reflection g diffracts where
    ``|s0 + g| = |s0|``; mosaic blocks that are turned by delta do so elsewhere, with
    ``delta = (|s0 + g| - |s0|) / (|g| cos(theta))``, and their orientations are normally
    distributed (Kabsch, Acta Cryst. D66, 133 (2010), eq. 4 for the distribution). Intensities
    follow Wilson's distribution of acentric reflections (Acta Cryst. 2, 318 (1949)), equal for
    Friedel mates.

    Parameters
    ----------
    crystal : Crystal
        Lattice and mosaic.
    wavelength_A : float
        Wavelength [Angstrom].
    smallest_d_A : float
        Resolution [Angstrom].
    seed : int
        Seed of the orientation and of the structure factors.

    Raises
    ------
    InputError
        If there would be too many.
    """

    def __init__(
        self, crystal: Crystal, wavelength_A: float, smallest_d_A: float, seed: int
    ) -> None:
        self._crystal = crystal
        self._beam = np.array([0.0, 0.0, 1.0 / wavelength_A])
        self.indices = _indices(crystal.cell_A, smallest_d_A)
        random = np.random.default_rng((seed, _INTENSITIES))
        orientation = _random_rotation(random)
        self._vectors = (self.indices / np.asarray(crystal.cell_A)) @ orientation.T
        self._lengths = np.linalg.norm(self._vectors, axis=1)
        self._sin_theta = np.minimum(0.5 * wavelength_A * self._lengths, 1.0)
        # Friedel mates lie at mirrored places of the sorted list.
        half = random.standard_exponential(len(self.indices) // 2)
        wilson = np.concatenate([half, half[::-1]])
        debye_waller = np.exp(-2 * crystal.b_factor_A2 * (0.5 * self._lengths) ** 2)
        self._strengths = crystal.strength * wilson * debye_waller

    def at(self, angle_deg: float) -> Spots:
        """Spots that the crystal gives at an angle of its rotation axis [deg]."""
        radians = math.radians(angle_deg)
        cosine, sine = math.cos(radians), math.sin(radians)
        turn = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
        diffracted = self._vectors @ turn.T + self._beam
        lengths = np.linalg.norm(diffracted, axis=1)
        cos_theta = np.sqrt(np.maximum(1.0 - self._sin_theta**2, 1e-12))
        off = (lengths - self._beam[2]) / (self._lengths * cos_theta)
        widths = off / math.radians(self._crystal.mosaic_deg)
        shining = np.flatnonzero(np.abs(widths) < _REACH)
        directions = diffracted[shining] / lengths[shining, None]
        photons = self._strengths[shining] * np.exp(-0.5 * widths[shining] ** 2)
        return Spots(self.indices[shining], directions, photons)


def _indices(cell_A: tuple[float, float, float], smallest_d_A: float) -> NDArray[np.int64]:
    """Miller indices up to a resolution, sorted; the mate of number i is number -1 - i."""
    highest = [int(side / smallest_d_A) for side in cell_A]
    if math.prod(2 * n + 1 for n in highest) > _LARGEST_COUNT:
        raise InputError(
            f"a cell of {cell_A} Angstrom has too many reflections up to {smallest_d_A:.3g}"
            " Angstrom; choose a smaller cell or detector, or a lower energy"
        )
    axes = [np.arange(-n, n + 1) for n in highest]
    indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    squared = ((indices / np.asarray(cell_A)) ** 2).sum(axis=1)
    inside: NDArray[Any] = indices[(squared > 0) & (squared <= smallest_d_A**-2)]
    return inside


def _random_rotation(random: np.random.Generator) -> NDArray[np.float64]:
    """A rotation, all equally likely: from a random unit quaternion."""
    w, x, y, z = (values := random.standard_normal(4)) / np.linalg.norm(values)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
