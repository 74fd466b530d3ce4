"""What a silicon drift detector makes of photons of one energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, erfcx

from apsber_bluesky.core import InputError

#: Energy for an electron-hole pair in silicon [eV].
PAIR_EV: Final = 3.66
_SILICON_G_CM3: Final = 2.329
_BERYLLIUM_G_CM3: Final = 1.848
_SI_K_EV: Final = 1839.0
_SI_KA_EV: Final = 1740.0
#: Photons below this energy [eV] do not pass the window, nor do tables know them well.
_LOWEST_EV: Final = 250.0
#: A peak reaches so many standard deviations, its tail so many lengths.
_REACH_SIGMAS: Final = 7.0
_REACH_TAILS: Final = 12.0


@dataclass(frozen=True, slots=True)
class DetectorResponse:
    """Energy calibration and peak shape of a silicon drift detector.

    A peak is a Gaussian with an exponential tail towards low energies from incompletely collected
    charge [1]_, and an escape peak 1.74 keV below it [2]_.

    Attributes
    ----------
    gain_eV : float
        Width of a bin [eV].
    offset_eV : float
        Energy in the middle of bin 0 [eV].
    noise_eV : float
        Standard deviation of the electronic noise [eV].
    fano : float
        Fano factor of silicon.
    tail_fraction : float
        Part of the counts that are in the tail, 0 to 1.
    tail_eV : float
        Length of the tail [eV].
    silicon_um, beryllium_um : float
        Thickness of the detector and of its window [um].

    Raises
    ------
    InputError
        If a number is out of range.

    References
    ----------
    .. [1] Phillips, G. W., Marlow, K. W., "Automatic analysis of gamma-ray spectra from
       germanium detectors", Nucl. Instrum. Methods 137 (1976) 525-536.
    .. [2] Reed, S. J. B., Ware, N. G., "Escape peaks and internal fluorescence in X-ray spectra
       recorded with lithium drifted silicon detectors", J. Phys. E 5 (1972) 582-584.
    """

    gain_eV: float = 10.0
    offset_eV: float = 0.0
    noise_eV: float = 45.0
    fano: float = 0.115
    tail_fraction: float = 0.0
    tail_eV: float = 150.0
    silicon_um: float = 450.0
    beryllium_um: float = 12.5

    def __post_init__(self) -> None:
        positive = (self.gain_eV, self.fano, self.tail_eV, self.silicon_um)
        if not (
            all(math.isfinite(value) and value > 0 for value in positive)
            and self.noise_eV >= 0
            and self.beryllium_um >= 0
            and 0 <= self.tail_fraction < 1
            and math.isfinite(self.offset_eV)
        ):
            raise InputError(f"{self} is no detector; sizes are positive, tail_fraction below 1")

    def energies_eV(self, num_bins: int) -> NDArray[np.float64]:
        """Energy in the middle of each bin, shape ``(num_bins,)`` [eV]."""
        bins = np.arange(num_bins, dtype=np.float64)
        energies: NDArray[np.float64] = self.offset_eV + self.gain_eV * bins
        return energies

    def sigma_eV(self, energy_eV: ArrayLike) -> NDArray[np.float64]:
        """Standard deviation of a peak [eV]."""
        variance = self.noise_eV**2 + self.fano * PAIR_EV * np.asarray(energy_eV, np.float64)
        sigma: NDArray[np.float64] = np.sqrt(variance)
        return sigma

    def efficiency(self, energy_eV: float) -> float:
        """Part of the photons that pass the window and stop in the detector."""
        if energy_eV < _LOWEST_EV:
            return 0.0
        return _efficiency(float(energy_eV), self.silicon_um, self.beryllium_um)

    def peak(
        self,
        energy_eV: float,
        num_bins: int,
        *,
        extra_sigma_eV: float = 0.0,
    ) -> NDArray[np.float64]:
        """Expected spectrum of one count, shape ``(num_bins,)``; its sum is 1 when all of it fits.

        Parameters
        ----------
        energy_eV : float
            Energy of the photons [eV].
        num_bins : int
            Bins of the spectrum.
        extra_sigma_eV : float
            Width that the photons themselves have [eV].
        """
        escaped = escape_fraction(energy_eV)
        spectrum = (1 - escaped) * self._one_peak(energy_eV, num_bins, extra_sigma_eV)
        if escaped:
            spectrum += escaped * self._one_peak(energy_eV - _SI_KA_EV, num_bins, extra_sigma_eV)
        return spectrum

    def _one_peak(
        self, energy_eV: float, num_bins: int, extra_sigma_eV: float
    ) -> NDArray[np.float64]:
        sigma = float(np.hypot(self.sigma_eV(energy_eV), extra_sigma_eV))
        reach = _REACH_SIGMAS * sigma
        below = reach + (_REACH_TAILS * self.tail_eV if self.tail_fraction else 0.0)
        first = math.floor((energy_eV - below - self.offset_eV) / self.gain_eV)
        stop = math.ceil((energy_eV + reach - self.offset_eV) / self.gain_eV) + 1
        first, stop = min(max(first, 0), num_bins), min(max(stop, 0), num_bins)
        spectrum = np.zeros(num_bins)
        half = 0.5 * self.gain_eV
        bins = np.arange(first, stop + 1, dtype=np.float64)
        edges = self.offset_eV - half - energy_eV + self.gain_eV * bins
        # The share of a bin is exact, also where bins are as wide as peaks.
        spectrum[first:stop] = 0.5 * np.diff(erf(edges / (math.sqrt(2) * sigma)))
        if self.tail_fraction:
            tail = self.gain_eV * _tail(edges[:-1] + half, sigma, self.tail_eV)
            spectrum *= 1 - self.tail_fraction
            spectrum[first:stop] += self.tail_fraction * tail
        return spectrum


def _tail(distance_eV: NDArray[np.float64], sigma: float, length: float) -> NDArray[np.float64]:
    """Density [1/eV] of an exponential towards low energies, blurred by a Gaussian."""
    scaled = distance_eV / (math.sqrt(2) * sigma)
    # erfcx keeps the product of a huge exponential and a tiny erfc finite.
    argument = np.maximum(scaled + sigma / (math.sqrt(2) * length), -26.0)
    density: NDArray[np.float64] = np.exp(-(scaled**2)) * erfcx(argument) / (2 * length)
    far = scaled + sigma / (math.sqrt(2) * length) < -26.0
    exponential = np.exp(np.minimum(distance_eV / length + 0.5 * (sigma / length) ** 2, 0.0))
    density[far] = exponential[far] / length
    return density


@cache
def escape_fraction(energy_eV: float) -> float:
    """Part of the counts that a silicon K photon leaves the detector with (Reed and Ware)."""
    import xraydb

    if energy_eV <= _SI_K_EV:
        return 0.0
    edge = xraydb.xray_edge("Si", "K")
    in_k = 1 - 1 / float(edge.jump_ratio)
    ratio = float(
        xraydb.mu_elam("Si", _SI_KA_EV, kind="total")
        / xraydb.mu_elam("Si", energy_eV, kind="total")
    )
    leaving = 0.5 * in_k * float(edge.fyield) * (1 - ratio * math.log1p(1 / ratio))
    return leaving / (1 - leaving)


@cache
def _efficiency(energy_eV: float, silicon_um: float, beryllium_um: float) -> float:
    import xraydb

    window = float(xraydb.mu_elam("Be", energy_eV)) * _BERYLLIUM_G_CM3 * beryllium_um * 1e-4
    silicon = float(xraydb.mu_elam("Si", energy_eV)) * _SILICON_G_CM3 * silicon_um * 1e-4
    return math.exp(-window) * -math.expm1(-silicon)
