"""How large the simulated Jungfrau is, and what it looks at."""

from __future__ import annotations

from typing import Final

from apsber_bluesky.simulation._diffraction import (
    Diffraction,
    DiffractionGeometry,
    ScatteringSample,
)
from apsber_bluesky.simulation._diffraction_crystal import Crystal

#: Modules, one above the other; those of a real detector have 512 x 1024 pixels.
GRID: Final = (2, 1)
MODULE: Final = (64, 128)
ROWS: Final = GRID[0] * MODULE[0]
COLUMNS: Final = GRID[1] * MODULE[1]
# Reflections so strong that some of their pixels leave G1.
STRENGTH: Final = 5e5


def jungfrau_diffraction(seed: int, energy_keV: float) -> Diffraction:
    """What the simulated Jungfrau looks at."""
    geometry = DiffractionGeometry(ROWS, COLUMNS, energy_keV=energy_keV)
    sample = ScatteringSample(crystal=Crystal(strength=STRENGTH))
    return Diffraction(geometry, sample, seed=seed)
