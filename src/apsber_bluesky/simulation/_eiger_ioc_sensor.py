"""What an EIGER's sensor makes of photons: modules with gaps, dead pixels, thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey, SimulationSettings
from apsber_bluesky.simulation._camera import Exposure
from apsber_bluesky.simulation._diffraction import (
    Diffraction,
    DiffractionGeometry,
    ScatteringSample,
)
from apsber_bluesky.simulation._eiger_ioc_records import Generation
from apsber_bluesky.simulation._filters import transmission_of

#: Bits of the pixel mask (DECTRIS): no pixel, and one that does not count.
MASK_GAP: Final = 1
MASK_DEAD: Final = 2
_DEAD_PIXELS: Final = 0xDEAD
# Rows and columns of a module and of the gap after it [pixel], by generation.
_MODULES: Final = {1: ((514, 1030), (37, 10)), 2: ((512, 1028), (38, 12))}
_SMALL_GAP: Final = (2, 2)


@dataclass(frozen=True, slots=True)
class Counting:
    """How one image is counted.

    Attributes
    ----------
    exposure_s : float
        Exposure time [s].
    dtype : str
        Pixel type.
    channels : tuple of str
        Names of the channels; ``threshold_2`` and ``difference`` are those, any other is the first.
    thresholds_eV : tuple of float
        Energies of both thresholds, above which photons count [eV].
    """

    exposure_s: float
    dtype: str
    channels: tuple[str, ...]
    thresholds_eV: tuple[float, float]


def pixel_mask(
    rows: int, columns: int, generation: Generation, *, dead_fraction: float, seed: int
) -> NDArray[np.uint32]:
    """Pixels that are none or that are dead, shape (rows, columns).

    A detector of several modules has the gaps of a real one; one that is smaller than two modules
    is made of four small ones.
    """
    mask = np.zeros((rows, columns), np.uint32)
    dead = np.random.default_rng((seed, _DEAD_PIXELS)).random((rows, columns)) < dead_fraction
    mask[dead] = MASK_DEAD
    module, gap = _MODULES[generation]
    small = rows <= module[0] and columns <= module[1]
    for axis, size in enumerate((rows, columns)):
        width = _SMALL_GAP[axis] if small else gap[axis]
        length = (size - width) // 2 if small else module[axis]
        if length < 1:
            continue
        places = np.arange(size) % (length + width) >= length
        index: Any = places if axis == 0 else (slice(None), places)
        mask[index] = MASK_GAP
    return mask


class EigerSensor:
    """The pixels of a simulated EIGER.

    Parameters
    ----------
    settings : SimulationSettings
        Seed and dead pixels.
    generation : {1, 2}
        EIGER or EIGER2.
    geometry : DiffractionGeometry
        Size, and where it stands.
    sample : ScatteringSample, optional
        What scatters.

    Attributes
    ----------
    mask : ndarray of uint32, shape (rows, columns)
        Bit 0 for gaps, bit 1 for dead pixels.
    geometry : DiffractionGeometry
        Where the detector stands.
    """

    def __init__(
        self,
        settings: SimulationSettings,
        generation: Generation,
        geometry: DiffractionGeometry,
        sample: ScatteringSample | None = None,
    ) -> None:
        self.geometry = geometry
        self.mask = pixel_mask(
            geometry.rows,
            geometry.columns,
            generation,
            dead_fraction=settings.dead_pixel_fraction,
            seed=settings.seed,
        )
        self._diffraction = Diffraction(geometry, sample, seed=settings.seed)

    def images(
        self, exposure: Exposure, counting: Counting, number: tuple[int, ...]
    ) -> list[NDArray[Any]]:
        """One image for each channel.

        Parameters
        ----------
        exposure : Exposure
            What there was to see.
        counting : Counting
            Time, type and channels.
        number : tuple of int
            Number of the image; it fixes the noise.
        """
        scene = exposure.scene
        energy_keV = scene.energy_keV or self.geometry.energy_keV
        # Energies drift by less than this; spots do not follow every count of the encoder.
        self._diffraction = self._diffraction.at_energy(round(energy_keV, 4))
        kind = exposure.kind if scene.has_beam else ImageKey.DARK
        photons = self._diffraction.photons(
            exposure.angle_deg - exposure.offset_deg,
            number=number,
            exposure_s=counting.exposure_s * transmission_of(scene.filters, energy_keV),
            kind=kind,
        )
        first, second = (
            photons if threshold < energy_keV * 1000 else np.zeros_like(photons)
            for threshold in counting.thresholds_eV
        )
        counted = {"threshold_2": second, "difference": first - second}
        images = [counted.get(name, first) for name in counting.channels]
        return [self._written(image, counting.dtype) for image in images]

    def _written(self, counts: NDArray[np.int64], dtype: str) -> NDArray[Any]:
        """Counts as the DCU sends them: the highest values mean gaps and dead pixels."""
        highest = int(np.iinfo(dtype).max)
        image = np.minimum(counts, highest - 2).astype(dtype)
        image[(self.mask & MASK_DEAD) != 0] = highest - 1
        image[(self.mask & MASK_GAP) != 0] = highest
        return image
