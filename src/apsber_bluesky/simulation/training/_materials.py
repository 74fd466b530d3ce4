"""What a sample is made of: a label for each voxel, and how strongly it attenuates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SOIL_CLASSES = ("background", "pore", "soil aggregate", "root", "mineral")
"""Names of the labels 0 to 4. The tube around a soil core belongs to the background."""

BACKGROUND, PORE, AGGREGATE, ROOT, MINERAL = range(len(SOIL_CLASSES))

LARGEST_LINE_INTEGRAL = 1.7
"""Of a sample as thick as the simulated beamline's phantoms."""


class Sample(Protocol):
    """A sample of known composition, as some slices of a detector see it."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Index into `SOIL_CLASSES` of each voxel, shape ``(slices, size, size)``."""
        ...

    def line_integrals(
        self, angles_deg: NDArray[np.float64], centre_px: float
    ) -> NDArray[np.float32]:
        """What the beam sees, shape ``(angles, slices, size)`` [1]."""
        ...


@dataclass(frozen=True, slots=True)
class RelativeMaterials:
    """Attenuation of the materials over that of the soil aggregates."""

    pore: float
    root: float
    mineral: float
    tube: float
