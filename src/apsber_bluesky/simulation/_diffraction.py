"""A diffraction pattern: Bragg spots over the scattering of spheres in water."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.simulation._diffraction_crystal import Crystal, Reflections

HC_KEV_A: Final = 12.398419843320026
#: First maximum of the form factor of a sphere beside that in the middle, as q times radius.
SPHERE_SECOND_MAXIMUM: Final = 5.763459196894550
_WATER_Q_PER_A, _WATER_WIDTH_PER_A = 2.0, 0.35
_SPOT_REACH_PX: Final = 4


@dataclass(frozen=True, slots=True)
class DiffractionGeometry:
    """Where the detector stands; it is at right angles to the beam.

    Attributes
    ----------
    rows, columns : int
        Size [pixel].
    pixel_size_um : float
        Side of a pixel [um].
    distance_mm : float
        From the sample [mm].
    energy_keV : float
        Photon energy [keV].
    beam_centre_px : tuple of float
        Row and column that the direct beam would hit [pixel].
    """

    rows: int
    columns: int
    pixel_size_um: float = 75.0
    distance_mm: float = 100.0
    energy_keV: float = 12.398
    beam_centre_px: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        sizes = (self.rows, self.columns, self.pixel_size_um, self.distance_mm, self.energy_keV)
        if not all(math.isfinite(size) and size > 0 for size in sizes):
            raise InputError(
                f"a detector of {self.rows} x {self.columns} pixels of {self.pixel_size_um} um at"
                f" {self.distance_mm} mm and {self.energy_keV} keV cannot be; give positive numbers"
            )

    @property
    def wavelength_A(self) -> float:
        """Wavelength [Angstrom]."""
        return HC_KEV_A / self.energy_keV

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the direct beam; the middle of the detector by default [pixel]."""
        return self.beam_centre_px or ((self.rows - 1) / 2, (self.columns - 1) / 2)

    def radius_px(self, q_per_A: float) -> float:
        """Radius of the ring at a momentum transfer q = 4 pi sin(theta) / wavelength [pixel]."""
        theta = math.asin(q_per_A * self.wavelength_A / (4 * math.pi))
        return self.distance_mm * math.tan(2 * theta) / (self.pixel_size_um * 1e-3)

    def offsets_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance of each row (column vector) and column (row vector) from the beam [mm]."""
        row, column = self.centre
        pixel_mm = self.pixel_size_um * 1e-3
        y = (np.arange(self.rows, dtype=np.float64) - row) * pixel_mm
        x = (np.arange(self.columns, dtype=np.float64) - column) * pixel_mm
        return y[:, None], x[None, :]

    def two_theta(self) -> NDArray[np.float64]:
        """Scattering angle of each pixel, shape (rows, columns) [rad]."""
        y, x = self.offsets_mm()
        return np.arctan2(np.hypot(x, y), self.distance_mm)

    def q_per_A(self) -> NDArray[np.float64]:
        """Momentum transfer of each pixel, shape (rows, columns) [1/Angstrom]."""
        return 4 * math.pi * np.sin(0.5 * self.two_theta()) / self.wavelength_A

    def polarisation(self) -> NDArray[np.float64]:
        """What a horizontally polarised beam leaves for each pixel, shape (rows, columns)."""
        y, x = self.offsets_mm()
        squared: NDArray[np.float64] = x**2 / (x**2 + y**2 + self.distance_mm**2)
        return 1.0 - squared


@dataclass(frozen=True, slots=True)
class ScatteringSample:
    """What scatters.

    Attributes
    ----------
    crystal : Crystal or None
        A crystal that turns with the rotation axis.
    sphere_radius_A : float
        Radius of the spheres [Angstrom].
    sphere_rate, water_rate, air_rate : float
        Photons per pixel and second [1/s]: of the spheres in forward direction, of the water at its
        ring near 2 / Angstrom, and of the air behind the sample in forward direction. They hold for
        a pixel of 75 um at 100 mm.
    beam_stop_mm : float
        Radius of the beam stop's shadow [mm].
    spot_width_px : float
        Standard deviation of a spot [pixel].
    """

    crystal: Crystal | None = field(default_factory=Crystal)
    sphere_radius_A: float = 60.0
    sphere_rate: float = 2e5
    water_rate: float = 200.0
    air_rate: float = 50.0
    beam_stop_mm: float = 0.35
    spot_width_px: float = 0.8


def sphere_form_factor(q_radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scattering of a homogeneous sphere over that in forward direction.

    Lord Rayleigh, Proc. R. Soc. A 84, 25 (1911): ``(3 (sin x - x cos x) / x^3)^2`` with
    ``x = q R``.

    Parameters
    ----------
    q_radius : ndarray of float64
        Momentum transfer times radius [1].
    """
    x = np.maximum(q_radius, 1e-2)
    exact = (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    # The difference of the two terms loses its digits near 0.
    factor: NDArray[np.float64] = np.where(q_radius < 1e-2, 1 - q_radius**2 / 5, exact)
    return factor


class Diffraction:
    """Photons on a detector, a function of geometry, angle, exposure time and what is in the beam.

    Equal arguments give equal photons. Diffuse scattering: spheres (`sphere_form_factor`), water as
    a Gaussian at its first peak, both with the solid angle of a flat detector
    (``cos^3`` of the scattering angle) and horizontal polarisation (Kahn et al., J. Appl. Cryst.
    15, 330 (1982)). Spots: `Reflections`. Noise: Poisson.

    Parameters
    ----------
    geometry : DiffractionGeometry
        Where the detector stands.
    sample : ScatteringSample
        What scatters.
    seed : int
        Seed of crystal and noise.
    """

    def __init__(
        self,
        geometry: DiffractionGeometry,
        sample: ScatteringSample | None = None,
        *,
        seed: int = 1,
    ) -> None:
        self.geometry = geometry
        self.sample = sample or ScatteringSample()
        self._seed = seed
        two_theta = geometry.two_theta()
        self._solid_angle = (
            np.cos(two_theta) ** 3
            * (geometry.pixel_size_um / 75.0) ** 2
            * (100.0 / geometry.distance_mm) ** 2
        )
        self._polarisation = geometry.polarisation()
        y, x = geometry.offsets_mm()
        self._open = np.hypot(x, y) > self.sample.beam_stop_mm
        self._diffuse = self._diffuse_rate()
        self._air = self._seen(self.sample.air_rate * np.exp(-(geometry.q_per_A() ** 2) / 0.5))
        self.reflections = self._reflections(float(two_theta.max()))

    def _seen(self, rate: NDArray[np.float64]) -> NDArray[np.float64]:
        return rate * self._solid_angle * self._polarisation * self._open

    def _diffuse_rate(self) -> NDArray[np.float64]:
        sample, q = self.sample, self.geometry.q_per_A()
        water = np.exp(-0.5 * ((q - _WATER_Q_PER_A) / _WATER_WIDTH_PER_A) ** 2)
        spheres = sphere_form_factor(q * sample.sphere_radius_A)
        return self._seen(sample.sphere_rate * spheres + sample.water_rate * water)

    def _reflections(self, largest_two_theta: float) -> Reflections | None:
        if self.sample.crystal is None:
            return None
        wavelength = self.geometry.wavelength_A
        smallest_d = wavelength / (2 * math.sin(0.5 * largest_two_theta))
        return Reflections(self.sample.crystal, wavelength, smallest_d, self._seed)

    def at_energy(self, energy_keV: float) -> Diffraction:
        """The same at another photon energy [keV]."""
        if energy_keV == self.geometry.energy_keV:
            return self
        geometry = replace(self.geometry, energy_keV=energy_keV)
        return Diffraction(geometry, self.sample, seed=self._seed)

    def rate(self, angle_deg: float, kind: ImageKey = ImageKey.PROJECTION) -> NDArray[np.float64]:
        """Expected photons per pixel and second, shape (rows, columns) [1/s].

        Parameters
        ----------
        angle_deg : float
            Orientation of the sample [deg].
        kind : ImageKey
            A projection has the sample in the beam, a flat has air, a dark nothing.
        """
        if kind is ImageKey.DARK:
            return np.zeros_like(self._air)
        if kind is ImageKey.FLAT:
            return self._air.copy()
        total: NDArray[np.float64] = self._air + self._diffuse
        for row, column, photons in self.spots(angle_deg):
            self._add_spot(total, row, column, photons)
        return total

    def spots(self, angle_deg: float) -> list[tuple[float, float, float]]:
        """Row, column and photons per second of the spots on the detector.

        Parameters
        ----------
        angle_deg : float
            Orientation of the sample [deg].
        """
        if self.reflections is None:
            return []
        found = self.reflections.at(angle_deg)
        forward = found.directions[:, 2] > 0
        directions, photons = found.directions[forward], found.photons_per_s[forward]
        scale = self.geometry.distance_mm / (self.geometry.pixel_size_um * 1e-3)
        row, column = self.geometry.centre
        rows = row + scale * directions[:, 1] / directions[:, 2]
        columns = column + scale * directions[:, 0] / directions[:, 2]
        inside = (
            (rows > -_SPOT_REACH_PX)
            & (rows < self.geometry.rows + _SPOT_REACH_PX)
            & (columns > -_SPOT_REACH_PX)
            & (columns < self.geometry.columns + _SPOT_REACH_PX)
        )
        polarised = photons * (1.0 - directions[:, 0] ** 2)
        return list(
            zip(
                rows[inside].tolist(),
                columns[inside].tolist(),
                polarised[inside].tolist(),
                strict=True,
            )
        )

    def _add_spot(
        self, total: NDArray[np.float64], row: float, column: float, photons: float
    ) -> None:
        """Spread a spot over its pixels; what falls beside the detector is lost."""
        first_row, first_column = (max(int(at) - _SPOT_REACH_PX, 0) for at in (row, column))
        last_row, last_column = int(row) + _SPOT_REACH_PX + 1, int(column) + _SPOT_REACH_PX + 1
        place = (slice(first_row, max(last_row, 0)), slice(first_column, max(last_column, 0)))
        patch = total[place]
        rows = np.arange(first_row, first_row + patch.shape[0])
        columns = np.arange(first_column, first_column + patch.shape[1])
        width = self.sample.spot_width_px
        profile = np.exp(-0.5 * ((rows - row) / width) ** 2)[:, None] * np.exp(
            -0.5 * ((columns - column) / width) ** 2
        )
        patch += photons / (2 * math.pi * width**2) * profile * self._open[place]

    def photons(
        self,
        angle_deg: float,
        *,
        number: int | tuple[int, ...],
        exposure_s: float,
        kind: ImageKey = ImageKey.PROJECTION,
    ) -> NDArray[np.int64]:
        """Photons that one exposure counts, shape (rows, columns).

        Parameters
        ----------
        angle_deg : float
            Orientation of the sample [deg].
        number : int or tuple of int
            Number of the exposure; it fixes the noise.
        exposure_s : float
            Exposure time [s].
        kind : ImageKey
            What is in the beam.
        """
        numbers = number if isinstance(number, tuple) else (number,)
        random = np.random.default_rng((self._seed, int(kind), *numbers))
        counts: NDArray[Any] = random.poisson(self.rate(angle_deg, kind) * exposure_s)
        return counts
