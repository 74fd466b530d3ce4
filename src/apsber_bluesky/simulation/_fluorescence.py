"""What a silicon drift detector counts beside a thin sample in a monochromatic beam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.fluorescence import element_lines, escape_fraction

BINS: Final = 4096
BIN_WIDTH_EV: Final = 10.0

_PAIR_EV: Final = 3.66
_FANO: Final = 0.115
_ELECTRON_EV: Final = 510_998.95
_SI_KA_EV: Final = 1740.0
_SI_DENSITY, _SI_CM = 2.329, 0.045
_BE_DENSITY, _BE_CM = 1.848, 12.5e-4
_LOWEST_EV: Final = 700.0
_FINE_EV: Final = 2.0
_DOPPLER_EV: Final = 70.0
_TAIL_EV: Final = 250.0
#: Counts without light, in each bin [1/s].
_DARK_RATE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class FluorescenceConditions:
    """Beam and detector.

    Attributes
    ----------
    energy_keV : float
        Photon energy [keV].
    photons_s : float
        Photons that hit the sample [1/s].
    solid_angle_part : float
        Part of the full sphere that one element of the detector sees.
    num_channels : int
        Elements of the detector.
    noise_eV : float
        Standard deviation of the electronic noise [eV].
    tail_part : float
        Part of the counts whose charge is not collected completely.
    scatter_ug_cm2 : float
        Carbon in the beam, which scatters [ug/cm2].
    event_width_s : float
        How long the electronics are dead after an event [s].
    seed : int
        Of the photons' random numbers.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    energy_keV: float = 12.0
    photons_s: float = 2e10
    solid_angle_part: float = 1.25e-3
    num_channels: int = 4
    noise_eV: float = 48.0
    tail_part: float = 0.01
    scatter_ug_cm2: float = 400.0
    event_width_s: float = 3e-7
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            1 <= self.num_channels <= 64
            and 2 <= self.energy_keV <= 40
            and self.photons_s > 0
            and 0 < self.solid_angle_part < 0.5
            and 0 <= self.tail_part < 0.5
            and min(self.noise_eV, self.scatter_ug_cm2, self.event_width_s) >= 0
        ):
            raise InputError(f"{self} cannot be; see FluorescenceConditions")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One frame.

    Attributes
    ----------
    spectra : ndarray, shape (channels, 4096), uint32
        Counts that were recorded.
    arrived : ndarray, shape (channels,)
        Photons that came, dead or not.
    dead_part : ndarray, shape (channels,)
        Part of the exposure in which a channel was dead.
    """

    spectra: NDArray[np.uint32]
    arrived: NDArray[np.int64]
    dead_part: NDArray[np.float64]

    @property
    def events(self) -> NDArray[np.int64]:
        """Events of each channel that were processed."""
        events: NDArray[np.int64] = self.spectra.sum(axis=1, dtype=np.int64)
        return events


class FluorescenceDetector:
    """Spectra of a sample with given areal densities, with noise that goes with the frame.

    Lines and cross sections are those of xraydb; scattering is that of carbon. Peaks are
    convolved on a grid of 2 eV with their tail, so they are not those of any fit's formula.

    Parameters
    ----------
    elements : sequence of str
        Chemical symbols.
    conditions : FluorescenceConditions
        Beam and detector.
    """

    def __init__(
        self, elements: tuple[str, ...], conditions: FluorescenceConditions | None = None
    ) -> None:
        self.conditions = conditions or FluorescenceConditions()
        self.elements = elements
        rates = [self._element_rate(symbol) for symbol in elements]
        self._per_density = np.stack(rates)
        self._always = self._scatter_rate()
        # A channel is a little more or less sensitive than its neighbour.
        rng = np.random.default_rng([self.conditions.seed, 1])
        self._channels = 1 + 0.1 * rng.uniform(-1, 1, self.conditions.num_channels)

    def rate(self, densities_ug_cm2: ArrayLike) -> NDArray[np.float64]:
        """Photons per second and bin that reach a mean channel, shape ``(4096,)`` [1/s]."""
        rate: NDArray[np.float64] = (
            np.asarray(densities_ug_cm2, np.float64) @ self._per_density + self._always
        )
        return rate

    def expose(
        self,
        densities_ug_cm2: ArrayLike,
        exposure_s: float,
        number: int,
        *,
        light: float = 1.0,
    ) -> Recorded:
        """Take one frame.

        Parameters
        ----------
        densities_ug_cm2 : array_like, shape (elements,)
            Areal densities in the beam, a mean over the exposure [ug/cm2].
        exposure_s : float
            Exposure time [s].
        number : int
            Number of the frame; its noise goes with it.
        light : float
            Part of the beam that reaches the sample; 0 with a closed shutter.

        Returns
        -------
        Recorded
            What was counted.
        """
        settings = self.conditions
        rng = np.random.default_rng([settings.seed, 2, number])
        rate = light * self.rate(densities_ug_cm2) + _DARK_RATE
        expected = exposure_s * rate * self._channels[:, None]
        total = expected.sum(axis=1)
        # Non-paralysable: each recorded event is followed by a fixed dead time.
        live = 1 / (1 + total * settings.event_width_s / exposure_s)
        spectra = rng.poisson(expected * live[:, None]).astype(np.uint32)
        lost = rng.poisson(total * (1 - live))
        events = spectra.sum(axis=1, dtype=np.int64)
        dead = events * settings.event_width_s / exposure_s
        return Recorded(spectra, events + lost, dead)

    def _element_rate(self, symbol: str) -> NDArray[np.float64]:
        """Counts per second and bin of 1 ug/cm2 in one channel."""
        settings = self.conditions
        found = element_lines(symbol, 1e3 * settings.energy_keV)
        scale = 1e-6 * settings.photons_s * settings.solid_angle_part
        lines = [(line.energy_eV, scale * line.cross_section_cm2_g) for line in found.lines]
        return self._spectrum(lines)

    def _scatter_rate(self) -> NDArray[np.float64]:
        """Elastic and Compton peaks, which the sample's carrier gives everywhere."""
        import xraydb

        settings = self.conditions
        energy_eV = 1e3 * settings.energy_keV
        scale = 1e-6 * settings.scatter_ug_cm2 * settings.photons_s * settings.solid_angle_part
        elastic = scale * float(xraydb.coherent_cross_section_elam("C", energy_eV))
        inelastic = scale * float(xraydb.incoherent_cross_section_elam("C", energy_eV))
        # The detector sees angles about 90 deg, and electrons that move.
        angles = np.radians(np.linspace(76, 104, 29))
        shifted = energy_eV / (1 + energy_eV / _ELECTRON_EV * (1 - np.cos(angles)))
        steps = np.linspace(-3, 3, 25)
        weights = np.exp(-0.5 * steps**2)
        weights /= weights.sum() * angles.size
        lines = [(energy_eV, elastic)]
        lines += [
            (float(middle + step * _DOPPLER_EV), float(inelastic * weight))
            for middle in shifted
            for step, weight in zip(steps, weights, strict=True)
        ]
        return self._spectrum(lines)

    def _spectrum(self, lines: list[tuple[float, float]]) -> NDArray[np.float64]:
        """Blur lines with what the detector does, and sum them into bins."""
        size = round(BINS * BIN_WIDTH_EV / _FINE_EV)
        # Bin i is about i * 10 eV, so the grid begins half a bin below 0.
        grid = (np.arange(size, dtype=np.float64) + 0.5) * _FINE_EV - 0.5 * BIN_WIDTH_EV
        fine = np.zeros(size)
        for energy_eV, rate in lines:
            if energy_eV < _LOWEST_EV:
                continue
            seen = rate * _absorbed(energy_eV)
            escaped = escape_fraction(float(np.rint(energy_eV)))
            fine += seen * (1 - escaped) * self._peak(grid, energy_eV)
            if energy_eV - _SI_KA_EV > _LOWEST_EV and escaped:
                fine += seen * escaped * self._peak(grid, energy_eV - _SI_KA_EV)
        binned: NDArray[np.float64] = fine.reshape(BINS, -1).sum(axis=1)
        return binned

    def _peak(self, grid: NDArray[np.float64], energy_eV: float) -> NDArray[np.float64]:
        sigma = math.hypot(self.conditions.noise_eV, math.sqrt(_FANO * _PAIR_EV * energy_eV))
        near = np.abs(grid - energy_eV) < 6 * sigma
        peak = np.zeros(grid.size)
        peak[near] = np.exp(-0.5 * ((grid[near] - energy_eV) / sigma) ** 2)
        peak /= peak.sum()
        below = (grid < energy_eV) & (grid > max(energy_eV - 6 * _TAIL_EV, 0.0))
        tail = np.where(below, np.exp((grid - energy_eV) / _TAIL_EV), 0.0)
        total = float(tail.sum())
        part = self.conditions.tail_part if total else 0.0
        return (1 - part) * peak + part * tail / max(total, 1e-300)


_absorbed_at: dict[int, float] = {}


def _absorbed(energy_eV: float) -> float:
    """Part of the photons that pass the window and are stopped; by whole electronvolts."""
    import xraydb

    key = round(energy_eV)
    if key not in _absorbed_at:
        window = float(xraydb.mu_elam("Be", key)) * _BE_DENSITY * _BE_CM
        silicon = float(xraydb.mu_elam("Si", key)) * _SI_DENSITY * _SI_CM
        _absorbed_at[key] = math.exp(-window) * -math.expm1(-silicon)
    return _absorbed_at[key]
