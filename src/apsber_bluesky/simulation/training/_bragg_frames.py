"""Frames of a serial experiment with known truth: some with a crystal in the beam, some without."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.simulation._diffraction import (
    Diffraction,
    DiffractionGeometry,
    ScatteringSample,
)
from apsber_bluesky.simulation._diffraction_crystal import Crystal

#: A spot of fewer photons is not said to be seen.
SEEN_PHOTONS: Final = 30.0
#: A frame with so many that are is a hit.
HIT_SPOTS: Final = 10

# The strongest powder rings of hexagonal ice, as lattice spacings [Angstrom].
_ICE_A: Final = (3.90, 3.67, 3.44, 2.67, 2.25, 2.07, 1.95)
_ICE_WIDTH_PX: Final = 1.5
_TEXTURE_DEG: Final = 1.0
_GAP_PX: Final = 8
_EXPOSURE_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class FrameConditions:
    """What one frame is taken of.

    Attributes
    ----------
    spot_photons : float
        Photons of a reflection of mean intensity at its peak; 0 for no crystal.
    background_photons : float
        Photons per pixel at the ring of the water.
    ice_photons : float
        Photons per pixel of the strongest ice ring; 0 for none.
    ice_grains : float
        Grains of ice per degree; few make its rings spotty.
    hot_pixels : int
        Pixels that count without light.
    """

    spot_photons: float
    background_photons: float
    ice_photons: float = 0.0
    ice_grains: float = 30.0
    hot_pixels: int = 0

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Conditions as they come: half of the frames have a crystal, a third has ice."""

        def between(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(math.log(low), math.log(high))))

        return cls(
            spot_photons=between(20, 2000) if rng.random() < 0.5 else 0.0,
            background_photons=between(0.05, 30),
            ice_photons=between(0.5, 50) if rng.random() < 1 / 3 else 0.0,
            ice_grains=between(2, 100),
            hot_pixels=int(rng.integers(0, 200)) if rng.random() < 0.5 else 0,
        )


@dataclass(frozen=True, slots=True)
class BraggFrame:
    """A frame and what is known of it.

    Attributes
    ----------
    counts : ndarray of uint32, shape (rows, columns)
        Photons; pixels of the gaps between modules have the largest value, as an EIGER's.
    seen_spots : ndarray of float64, shape (n, 2)
        Row and column of the spots with `SEEN_PHOTONS` or more [pixel].
    conditions : FrameConditions
        What it was taken of.
    """

    counts: NDArray[np.uint32]
    seen_spots: NDArray[np.float64]
    conditions: FrameConditions

    @property
    def is_hit(self) -> bool:
        """Whether `HIT_SPOTS` spots or more can be seen."""
        return len(self.seen_spots) >= HIT_SPOTS


def simulate_bragg_frame(
    seed: int, shape: tuple[int, int] = (512, 512), conditions: FrameConditions | None = None
) -> BraggFrame:
    """One frame of a crystal in a random orientation, or of none.

    Parameters
    ----------
    seed : int
        Fixes everything.
    shape : tuple of int
        Rows and columns.
    conditions : FrameConditions, optional
        Random ones (`FrameConditions.random`) when not given.
    """
    rng = np.random.default_rng((seed, 0xB4A6))
    conditions = conditions or FrameConditions.random(rng)
    # Of a small detector the same range of angles as of one of 1024 pixels.
    geometry = DiffractionGeometry(*shape, distance_mm=120.0 * min(shape) / 1024)
    crystal = None
    if conditions.spot_photons:
        crystal = Crystal(strength=conditions.spot_photons / _EXPOSURE_S)
    # The detector is closer than 100 mm, and a pixel sees more of the water.
    closer = (100.0 / geometry.distance_mm) ** 2
    water = conditions.background_photons / _EXPOSURE_S / closer
    sample = ScatteringSample(
        crystal, sphere_rate=100 * water, water_rate=water, air_rate=water / 4
    )
    diffraction = Diffraction(geometry, sample, seed=int(rng.integers(1 << 31)))
    angle_deg = float(rng.uniform(0, 360))
    expected = diffraction.rate(angle_deg) * _EXPOSURE_S
    if conditions.ice_photons:
        expected += _ice(geometry, conditions, rng)
    counts = rng.poisson(expected).astype(np.uint32)
    _heat(counts, conditions.hot_pixels, rng)
    gaps = _gaps(shape)
    counts[gaps] = np.iinfo(np.uint32).max
    spots = [
        (row, column)
        for row, column, photons in diffraction.spots(angle_deg)
        if photons * _EXPOSURE_S >= SEEN_PHOTONS and _on_module(gaps, row, column)
    ]
    return BraggFrame(counts, np.array(spots, np.float64).reshape(-1, 2), conditions)


def _ice(
    geometry: DiffractionGeometry, conditions: FrameConditions, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Photons of powder rings that are as spotty as their grains are few."""
    y, x = geometry.offsets_mm()
    radius_px = np.hypot(x, y) / (geometry.pixel_size_um * 1e-3)
    sector = ((np.degrees(np.arctan2(y, x)) + 180) / _TEXTURE_DEG).astype(np.int64)
    total = np.zeros(radius_px.shape)
    for number, spacing_A in enumerate(_ICE_A):
        if 2 * spacing_A <= geometry.wavelength_A:
            continue
        texture = rng.gamma(conditions.ice_grains, 1 / conditions.ice_grains, sector.max() + 1)
        profile = np.exp(
            -0.5 * ((radius_px - geometry.radius_px(2 * math.pi / spacing_A)) / _ICE_WIDTH_PX) ** 2
        )
        total += conditions.ice_photons / (1 + 0.3 * number) * profile * texture[sector]
    return total


def _heat(counts: NDArray[np.uint32], number: int, rng: np.random.Generator) -> None:
    """Let some pixels count without light; one in thirty has a hot neighbour."""
    rows, columns = (rng.integers(0, size - 1, number) for size in counts.shape)
    counts[rows, columns] += rng.integers(10, 1000, number).astype(np.uint32)
    pairs = slice(0, number // 30)
    counts[rows[pairs], columns[pairs] + 1] += np.uint32(50)


def _gaps(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A cross between four modules, beside the middle."""
    gaps = np.zeros(shape, np.bool_)
    row, column = shape[0] // 3, shape[1] // 3
    gaps[row : row + _GAP_PX] = True
    gaps[:, column : column + _GAP_PX] = True
    return gaps


def _on_module(gaps: NDArray[np.bool_], row: float, column: float) -> bool:
    y, x = round(row), round(column)
    inside = 0 <= y < gaps.shape[0] and 0 <= x < gaps.shape[1]
    return inside and not gaps[y, x]
