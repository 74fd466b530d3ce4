"""The parts that a fluorescence spectrum is the sum of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.fluorescence._lines import (
    ElementLines,
    EmissionLine,
    element_lines,
)
from apsber_bluesky.processing.fluorescence._response import DetectorResponse
from apsber_bluesky.processing.fluorescence._snip import snip_background

_ELECTRON_EV: Final = 510_998.95
#: Angles about the detector's at which the Compton peak is made up [deg].
_COMPTON_SPREAD_DEG: Final = (-30.0, -15.0, 0.0, 15.0, 30.0)
#: Background windows in full widths at half maximum.
_BACKGROUND_WIDTHS: Final = 2.0
_WEAKEST_PART: Final = 1e-4
SCATTER: Final = ("elastic", "compton")


@dataclass(frozen=True, slots=True)
class Excitation:
    """The beam and the direction in which the detector looks.

    Attributes
    ----------
    energy_eV : float
        Photon energy [eV].
    scattering_angle_deg : float
        Angle between the beam and the detector [deg].
    doppler_eV : float
        Width of the Compton peak from the motion of the electrons [eV], a standard deviation.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    energy_eV: float
    scattering_angle_deg: float = 90.0
    doppler_eV: float = 60.0

    def __post_init__(self) -> None:
        if not (
            0 < self.energy_eV < 1e6
            and 0 < self.scattering_angle_deg <= 180
            and self.doppler_eV > 0
        ):
            raise InputError(
                f"{self} cannot be; give a photon energy in eV and an angle from 0 to 180 deg"
            )

    def compton_eV(self, angle_deg: float | None = None) -> float:
        """Energy of photons after Compton scattering by an electron at rest [eV]."""
        angle = self.scattering_angle_deg if angle_deg is None else angle_deg
        loss = self.energy_eV / _ELECTRON_EV * (1 - math.cos(math.radians(angle)))
        return self.energy_eV / (1 + loss)

    @property
    def compton_angles_deg(self) -> tuple[float, ...]:
        """Angles that make up the Compton peak [deg]."""
        middle = self.scattering_angle_deg
        angles = (min(max(middle + spread, 1.0), 180.0) for spread in _COMPTON_SPREAD_DEG)
        return tuple(dict.fromkeys(angles))


@dataclass(frozen=True, slots=True)
class SpectrumModel:
    """Elements, beam and detector: all that gives a spectrum its shape.

    Attributes
    ----------
    elements : tuple of str
        Chemical symbols.
    excitation : Excitation
        The beam.
    response : DetectorResponse
        The detector.
    fit_range_eV : tuple of float
        Lowest and highest energy that is looked at [eV].
    num_bins : int
        Bins of a spectrum.

    Raises
    ------
    InputError
        If an element has no line in the range, or the range is none.
    """

    elements: tuple[str, ...]
    excitation: Excitation
    response: DetectorResponse
    fit_range_eV: tuple[float, float]
    num_bins: int = 4096

    def __post_init__(self) -> None:
        low, high = self.fit_range_eV
        if not (low < high and np.count_nonzero(self.window) > 2):
            raise InputError(
                f"fit range {low:g} to {high:g} eV is not within the spectrum, or the wrong way"
                " round"
            )
        for symbol in self.elements:
            if not self.visible(symbol):
                raise InputError(
                    f"{symbol} has no line from {low:g} to {high:g} eV that photons of"
                    f" {self.excitation.energy_eV:g} eV excite; leave it out"
                )

    @property
    def window(self) -> NDArray[np.bool_]:
        """Which bins are looked at, shape ``(bins,)``."""
        energies = self.response.energies_eV(self.num_bins)
        inside: NDArray[np.bool_] = (energies >= self.fit_range_eV[0]) & (
            energies <= self.fit_range_eV[1]
        )
        return inside

    def with_response(self, response: DetectorResponse) -> Self:
        """The same model of another detector."""
        return replace(self, response=response)

    def with_elements(self, elements: tuple[str, ...]) -> Self:
        """The same model with other elements."""
        return replace(self, elements=elements)

    def lines(self, symbol: str) -> ElementLines:
        """Lines of an element."""
        return element_lines(symbol, self.excitation.energy_eV)

    def detected(self, symbol: str) -> dict[str, float]:
        """Sensitivity to each line: cross section times efficiency [cm2/g]."""
        return _detected(self.lines(symbol), self.response)

    def sensitivity_cm2_g(self, symbol: str) -> float:
        """Counts of an element per areal density [cm2/g], but for a factor that all share.

        For a sample so thin that it does not absorb what it emits.
        """
        return sum(self.detected(symbol).values())

    def strongest(self, symbol: str) -> EmissionLine | None:
        """The line of an element that the detector sees best; None if it sees none."""
        detected = self.detected(symbol)
        lines = [line for line in self.lines(symbol).lines if detected[line.name] > 0]
        return max(lines, key=lambda line: detected[line.name]) if lines else None

    def visible(self, symbol: str) -> bool:
        """Whether the element's strongest detected line lies in the fit range."""
        line = self.strongest(symbol)
        low, high = self.fit_range_eV
        return line is not None and low <= line.energy_eV <= high

    def element_shape(self, symbol: str) -> NDArray[np.float64]:
        """Spectrum of one count of an element, shape ``(bins,)``: all its lines."""
        return _element_shape(symbol, self.excitation, self.response, self.num_bins)

    def scatter_shapes(self) -> dict[str, NDArray[np.float64]]:
        """Spectra of one scattered count: the elastic peak, and Compton peaks by angle."""
        shapes = {"elastic": self.response.peak(self.excitation.energy_eV, self.num_bins)}
        for angle in self.excitation.compton_angles_deg:
            shapes[f"compton {angle:g} deg"] = self.response.peak(
                self.excitation.compton_eV(angle),
                self.num_bins,
                extra_sigma_eV=self.excitation.doppler_eV,
            )
        return shapes

    def background(self, spectrum: ArrayLike) -> NDArray[np.float64]:
        """The smooth part of a spectrum, shape ``(bins,)`` [counts]."""
        middle_eV = 0.5 * (self.fit_range_eV[0] + self.fit_range_eV[1])
        width_bins = 2.355 * float(self.response.sigma_eV(middle_eV)) / self.response.gain_eV
        return snip_background(spectrum, max(round(_BACKGROUND_WIDTHS * width_bins), 1))

    def parts(self, sum_spectrum: ArrayLike) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Everything that the spectra are the sum of.

        Parameters
        ----------
        sum_spectrum : array_like, shape (bins,)
            Sum of all spectra, whose background has the shape that theirs have.

        Returns
        -------
        names : tuple of str
            Elements, ``elastic``, ``compton ... deg`` and ``background``; without those that are
            nothing in the fit range.
        shapes : ndarray, shape (bins, parts)
            Spectrum of one count of each.
        """
        named = {symbol: self.element_shape(symbol) for symbol in self.elements}
        window = self.window
        scatter = self.scatter_shapes().items()
        named |= {name: shape for name, shape in scatter if shape[window].sum() > 1e-3}
        background = self.background(sum_spectrum)
        if background[window].any():
            named["background"] = background / background[window].sum()
        return tuple(named), np.stack(list(named.values()), axis=1)


def _detected(lines: ElementLines, response: DetectorResponse) -> dict[str, float]:
    return {
        line.name: line.cross_section_cm2_g * response.efficiency(line.energy_eV)
        for line in lines.lines
    }


@lru_cache(maxsize=256)
def _element_shape(
    symbol: str, excitation: Excitation, response: DetectorResponse, num_bins: int
) -> NDArray[np.float64]:
    lines = element_lines(symbol, excitation.energy_eV)
    detected = _detected(lines, response)
    total = sum(detected.values())
    shape = np.zeros(num_bins)
    for line in lines.lines:
        part = detected[line.name] / total
        if part > _WEAKEST_PART:
            shape += part * response.peak(line.energy_eV, num_bins)
    shape.setflags(write=False)
    return shape
