"""Which voxels of some slices are the object, and which the air around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from apsber_bluesky.analysis._arrays import field_of_view

OTSU = "classes by N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62"

_BINS = 512
# Otsu's separability is 2/pi for one normal population; well above that there are two.
_TWO_POPULATIONS = 0.75
_LEAST_PART = 0.02
_MARGIN_PX = 3


@dataclass(frozen=True, slots=True)
class Populations:
    """The two populations of some slices, away from their common edge.

    Attributes
    ----------
    air, matter : ndarray of bool, shape (k, size, size)
        Voxels of each.
    air_part : float
        Part of the field of view that is air.
    """

    air: NDArray[np.bool_]
    matter: NDArray[np.bool_]
    air_part: float


def find_populations(stack: NDArray[np.float64]) -> Populations | str:
    """Split slices into object and background, or say why they cannot be.

    The slices are smoothed a little and split by Otsu's threshold; the background is split again
    while it holds two populations, so that it ends as the air around the object. Both are kept 3
    pixels away from their common edge.
    """
    smooth = ndimage.gaussian_filter(stack, (0, 2, 2))
    seen = ndimage.binary_erosion(field_of_view(stack), iterations=_MARGIN_PX)
    inside = np.broadcast_to(seen, stack.shape)
    values = smooth[inside]
    if values.size == 0 or np.ptp(values) == 0:
        return "the slices are uniform; nothing stands out"
    threshold = _background_threshold(values)
    air = _core((smooth <= threshold) & inside)
    matter = _core((smooth > threshold) & inside)
    if not air.any() or not matter.any():
        return "the slices show no object and background apart from each other"
    return Populations(air, matter, np.count_nonzero(air) / np.count_nonzero(inside))


def _background_threshold(values: NDArray[np.float64]) -> float:
    threshold, _ = _otsu(values)
    least = _LEAST_PART * values.size
    while True:
        lower = values[values <= threshold]
        if lower.size < least or np.ptp(lower) == 0:
            return threshold
        deeper, separability = _otsu(lower)
        if separability < _TWO_POPULATIONS or np.count_nonzero(lower <= deeper) < least:
            return threshold
        threshold = deeper


def _otsu(values: NDArray[np.float64]) -> tuple[float, float]:
    """Threshold that splits values best, and which part of their variance the split explains."""
    counts, edges = np.histogram(values, bins=_BINS)
    middle = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts) / values.size
    moment = np.cumsum(counts * middle) / values.size
    mean = moment[-1]
    variance = float(np.sum(counts * (middle - mean) ** 2) / values.size)
    rest = weight * (1 - weight)
    between = np.zeros(_BINS)
    np.divide((mean * weight - moment) ** 2, rest, out=between, where=rest > 0)
    best = int(np.argmax(between))
    return float(edges[best + 1]), float(between[best] / variance) if variance > 0 else 0.0


def _core(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask away from its edges, or all of it if nothing would remain."""
    plane = np.ones((1, 3, 3), dtype=np.bool_)
    inner = ndimage.binary_erosion(mask, structure=plane, iterations=_MARGIN_PX)
    return np.asarray(inner if inner.any() else mask)
