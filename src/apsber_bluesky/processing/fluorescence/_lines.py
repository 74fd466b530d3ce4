"""Emission lines of the elements, from xraydb, as an excitation energy makes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from apsber_bluesky.core import InputError

#: Lines weaker than this part of an element's strongest are left out.
_WEAKEST: Final = 1e-3
_SHELLS: Final = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")
_FIRST, _LAST = 5, 92


@dataclass(frozen=True, slots=True)
class EmissionLine:
    """One line of an element.

    Attributes
    ----------
    name : str
        In Siegbahn's notation, e.g. ``"Ka1"``.
    energy_eV : float
        Energy of the photons [eV].
    cross_section_cm2_g : float
        Fluorescence cross section at the excitation energy [cm2/g].
    """

    name: str
    energy_eV: float
    cross_section_cm2_g: float


@dataclass(frozen=True, slots=True)
class ElementLines:
    """What an element emits when it is excited with photons of one energy.

    Attributes
    ----------
    symbol : str
        Chemical symbol.
    excitation_eV : float
        Energy of the exciting photons [eV].
    lines : tuple of EmissionLine
        Its lines, the strongest first.
    """

    symbol: str
    excitation_eV: float
    lines: tuple[EmissionLine, ...]

    @property
    def strongest(self) -> EmissionLine:
        """The strongest line."""
        return self.lines[0]


@cache
def all_elements() -> tuple[str, ...]:
    """Symbols of the elements with X-ray lines, from boron to uranium."""
    import xraydb

    return tuple(str(xraydb.atomic_symbol(number)) for number in range(_FIRST, _LAST + 1))


def element_lines(symbol: str, excitation_eV: float) -> ElementLines:
    """Lines of an element, each with its fluorescence cross section.

    The photoelectric cross section is shared among the shells that the photons can ionise by
    their jump ratios; vacancies that Coster-Kronig transitions move among the L shells are
    counted where they end [1]_.

    Parameters
    ----------
    symbol : str
        Chemical symbol, e.g. ``"Fe"``.
    excitation_eV : float
        Energy of the exciting photons [eV].

    Returns
    -------
    ElementLines
        Its lines; none if the photons cannot excite any.

    Raises
    ------
    InputError
        If there is no such element or the energy is not positive.

    References
    ----------
    .. [1] Elam, W. T., Ravel, B. D., Sieber, J. R., "A new atomic database for X-ray
       spectroscopic calculations", Radiat. Phys. Chem. 63 (2002) 121-128. Read through xraydb.
    """
    if symbol not in all_elements():
        raise InputError(f"element is {symbol!r}; give a chemical symbol such as 'Fe'")
    if not 0 < excitation_eV < 1e6:
        raise InputError(f"excitation_eV is {excitation_eV!r}; give an energy in eV")
    return _element_lines(symbol, float(excitation_eV))


@cache
def _element_lines(symbol: str, excitation_eV: float) -> ElementLines:
    import xraydb

    vacancies = _vacancies(symbol, excitation_eV)
    edges = xraydb.xray_edges(symbol)
    lines = [
        EmissionLine(name, float(line.energy), part * edges[shell].fyield * float(line.intensity))
        for name, line in xraydb.xray_lines(symbol).items()
        for shell, part in vacancies.items()
        # Some M lines begin in one of two shells, "M4,5"; the deeper stands for both.
        if shell == line.initial_level.partition(",")[0] and line.energy < excitation_eV
    ]
    lines.sort(key=lambda line: -line.cross_section_cm2_g)
    if lines:
        least = _WEAKEST * lines[0].cross_section_cm2_g
        lines = [line for line in lines if line.cross_section_cm2_g > least]
    return ElementLines(symbol, excitation_eV, tuple(lines))


def _vacancies(symbol: str, excitation_eV: float) -> dict[str, float]:
    """Cross section [cm2/g] for a vacancy in each shell when it emits."""
    import xraydb

    edges = xraydb.xray_edges(symbol)
    left = float(xraydb.mu_elam(symbol, excitation_eV, kind="photo"))
    made: dict[str, float] = {}
    for shell in _SHELLS:
        edge = edges.get(shell)
        if edge is None or edge.energy >= excitation_eV:
            continue
        made[shell] = left * (1 - 1 / edge.jump_ratio)
        left -= made[shell]
    for above, below in (("L1", "L2"), ("L1", "L3"), ("L2", "L3")):
        if above in made and below in made:
            made[below] += made[above] * xraydb.ck_probability(symbol, above, below, total=False)
    return made
