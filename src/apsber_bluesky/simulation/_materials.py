"""How strongly materials attenuate X-rays."""

from __future__ import annotations

import math
from functools import lru_cache

from apsber_bluesky.core import ConfigurationError

_EV_PER_KEV = 1000.0
_PER_CM = 1e-4  # 1/cm in 1/um


@lru_cache(maxsize=1024)
def attenuation_per_um(material: str, energy_keV: float) -> float:
    """Linear attenuation coefficient [1/um].

    From the tables of W. T. Elam, B. D. Ravel and J. R. Sieber, Radiation Physics and Chemistry
    63 (2002) 121, as xraydb has them.

    Parameters
    ----------
    material : str
        Chemical formula, or a name that xraydb knows. Formulas without a known density count as
        1 g/cm^3, which is all the same for ratios.
    energy_keV : float
        Photon energy [keV].

    Raises
    ------
    ConfigurationError
        If it is no formula.
    """
    import xraydb

    if not 0.1 <= energy_keV <= 800.0:
        raise ConfigurationError(f"photon energy {energy_keV} keV is not between 0.1 and 800 keV")
    try:
        known = xraydb.get_material(material)
        formula, density = known if known is not None else (material, _density(material))
        found = xraydb.material_mu(formula, energy_keV * _EV_PER_KEV, density=density)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ConfigurationError(f"material {material!r} is no chemical formula: {error}") from None
    coefficient = float(found) * _PER_CM
    if not math.isfinite(coefficient):
        raise ConfigurationError(f"material {material!r} has no attenuation at {energy_keV} keV")
    return coefficient


def _density(formula: str) -> float:
    import xraydb

    try:
        return float(xraydb.atomic_density(formula))
    except (KeyError, ValueError):
        return 1.0


class RelativeAttenuation:
    """Attenuation of a material at an energy over that at the energy of reference.

    Parameters
    ----------
    material : str
        Chemical formula.
    reference_keV : float
        Energy at which the ratio is 1 [keV].
    """

    def __init__(self, material: str, reference_keV: float) -> None:
        self._material, self._reference_keV = material, reference_keV

    def at(self, energy_keV: float) -> float:
        """The ratio at an energy [keV]; exactly 1 at that of reference, without any table."""
        if energy_keV == self._reference_keV:
            return 1.0
        there = attenuation_per_um(self._material, energy_keV)
        return there / attenuation_per_um(self._material, self._reference_keV)
