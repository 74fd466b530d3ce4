"""A thin sample: areal densities of elements on a plane, known everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError

#: Elements of the sample and their areal density where there is most of it [ug/cm2].
ELEMENTS: Final[Mapping[str, float]] = {
    "Ca": 60.0,
    "Ti": 20.0,
    "Fe": 12.0,
    "Co": 8.0,
    "Zn": 6.0,
}
_FEATURES: Final = 4


@dataclass(frozen=True, slots=True)
class _Feature:
    """A blob with a soft or a sharp edge, turned and stretched."""

    x_mm: float
    y_mm: float
    radius_mm: float
    stretch: float
    turn: float
    edge: float
    amount: float

    def density(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        along = (cos * (x - self.x_mm) + sin * (y - self.y_mm)) / self.stretch
        across = (cos * (y - self.y_mm) - sin * (x - self.x_mm)) * self.stretch
        distance = np.hypot(along, across) / self.radius_mm
        # A Fermi edge: a plateau that falls off within `edge` radii.
        density: NDArray[np.float64] = self.amount / (1 + np.exp((distance - 1) / self.edge))
        return density


class FluorescencePhantom:
    """Areal densities of some elements, a different picture for each.

    Parameters
    ----------
    seed : int
        Which sample; the same number is the same sample.
    elements : mapping of str to float
        Chemical symbol -> largest areal density [ug/cm2].
    half_width_mm : float
        The sample lies within this distance of the origin [mm].

    Raises
    ------
    InputError
        If a number is not positive, or there is no element.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        elements: Mapping[str, float] = ELEMENTS,
        half_width_mm: float = 1.0,
    ) -> None:
        if not elements or min(elements.values()) <= 0 or not half_width_mm > 0:
            raise InputError(
                f"elements are {dict(elements)}, half_width_mm is {half_width_mm}; give positive"
                " numbers"
            )
        self.elements = tuple(elements)
        self._features: list[Sequence[_Feature]] = []
        for number, density in enumerate(elements.values()):
            rng = np.random.default_rng([seed, number])
            self._features.append(_features(rng, density, half_width_mm))

    def densities(self, x_mm: ArrayLike, y_mm: ArrayLike) -> NDArray[np.float64]:
        """Areal densities at places on the sample.

        Parameters
        ----------
        x_mm, y_mm : array_like
            Places [mm]; broadcast against each other.

        Returns
        -------
        ndarray, shape (elements, ...)
            Areal densities [ug/cm2].
        """
        x, y = np.broadcast_arrays(np.asarray(x_mm, np.float64), np.asarray(y_mm, np.float64))
        maps = [
            np.sum([feature.density(x, y) for feature in features], axis=0)
            for features in self._features
        ]
        return np.stack(maps)


def _features(rng: np.random.Generator, density: float, half_width_mm: float) -> list[_Feature]:
    """Some blobs; the first two are always one with a sharp edge and one with a soft one."""
    features = []
    for number in range(_FEATURES):
        sharp = number == 0 or (number > 1 and rng.random() < 0.5)
        features.append(
            _Feature(
                x_mm=float(rng.uniform(-0.7, 0.7) * half_width_mm),
                y_mm=float(rng.uniform(-0.7, 0.7) * half_width_mm),
                radius_mm=float(rng.uniform(0.15, 0.45) * half_width_mm),
                stretch=float(rng.uniform(0.7, 1.4)),
                turn=float(rng.uniform(0, np.pi)),
                edge=0.03 if sharp else 0.3,
                amount=float(density * rng.uniform(0.4, 1.0)),
            )
        )
    return features
