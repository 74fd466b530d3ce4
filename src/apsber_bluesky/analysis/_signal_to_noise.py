"""How clearly the object stands out from the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from apsber_bluesky.analysis._arrays import check_slices, field_of_view
from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.core import Limits, QualityMetric

_SOURCE = (
    "contrast over noise of the background (ISO 15708-3:2017), classes by N. Otsu, IEEE Trans. "
    "Syst. Man Cybern. 9 (1979) 62, noise as 1.4826 x median absolute deviation"
)
_BINS = 512
# Otsu's separability is 2/pi for one normal population; well above that there are two.
_TWO_POPULATIONS = 0.75
_LEAST_PART = 0.02
_MARGIN_PX = 3


def signal_to_noise(
    slices: ArrayLike, *, limits: Mapping[str, Limits] | None = None
) -> QualityMetric:
    """Contrast of the object against the background, in units of the background's noise.

    The slices are smoothed a little and split by Otsu's threshold into object and background;
    the background is split again while it holds two populations, so that it ends as the air
    around the object. Both are kept 3 pixels away from their common edge. The contrast is the
    difference of their medians in the unsmoothed slices.

    Parameters
    ----------
    slices : array_like
        Slices, shape ``(k, size, size)`` [attenuation in any unit].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``signal_to_noise``; NaN where the slices show no two populations.

    Raises
    ------
    InputError
        If the slices are not square or hold NaN.
    """
    stack = check_slices(slices).astype(np.float64)
    value, note = _contrast_to_noise(stack)
    return metric("signal_to_noise", value, unit="1", source=_SOURCE, note=note, limits=limits)


def _contrast_to_noise(stack: NDArray[np.float64]) -> tuple[float, str]:
    smooth = ndimage.gaussian_filter(stack, (0, 2, 2))
    seen = ndimage.binary_erosion(field_of_view(stack), iterations=_MARGIN_PX)
    inside = np.broadcast_to(seen, stack.shape)
    values = smooth[inside]
    if values.size == 0 or np.ptp(values) == 0:
        return math.nan, "the slices are uniform; nothing stands out"
    threshold = _background_threshold(values)
    air = _core((smooth <= threshold) & inside)
    matter = _core((smooth > threshold) & inside)
    if not air.any() or not matter.any():
        return math.nan, "the slices show no object and background apart from each other"
    background = stack[air]
    level = float(np.median(background))
    noise = 1.4826 * float(np.median(np.abs(background - level)))
    contrast = float(np.median(stack[matter])) - level
    part = np.count_nonzero(air) / np.count_nonzero(inside)
    if noise == 0:
        return math.inf, "the background has no noise at all"
    return contrast / noise, f"background is {part:.0%} of the field of view"


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
