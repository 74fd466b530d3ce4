"""How clearly the object stands out from the noise, and from the air around it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices
from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.analysis._populations import OTSU, Populations, find_populations
from apsber_bluesky.core import InputError, Limits, QualityMetric

_CONTRAST_SOURCE = (
    f"contrast over noise of the background (ISO 15708-3:2017), {OTSU}, noise as 1.4826 x median "
    "absolute deviation"
)
_SIGNAL_SOURCE = (
    "level of the object over its noise, which is half of the difference of two half scans "
    f"(J. Frank and L. Al-Ali, Nature 256 (1975) 376); {OTSU}"
)
_SIGMA_OF_MAD = 1.4826


def contrast_to_noise(
    slices: ArrayLike,
    *,
    populations: Populations | str | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Contrast of the object against the air, in units of the noise of the air.

    The contrast is the difference of their medians. The air must lie in the field of view.

    Parameters
    ----------
    slices : array_like
        Slices, shape ``(k, size, size)`` [attenuation in any unit].
    populations : Populations or str, optional
        What `find_populations` says of them, if that is known already.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``contrast_to_noise``; NaN where the slices show no two populations.

    Raises
    ------
    InputError
        If the slices are not square or hold NaN.
    """
    stack = check_slices(slices).astype(np.float64)
    value, note = _contrast(stack, find_populations(stack) if populations is None else populations)
    return metric(
        "contrast_to_noise", value, unit="1", source=_CONTRAST_SOURCE, note=note, limits=limits
    )


def signal_to_noise(
    slices: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    populations: Populations | str | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Level of the object above the air, in units of the object's own noise.

    What two half scans have in common is the sample, with its texture and its rings; what they
    differ by is noise, and the streaks of too few angles. The noise of the whole scan is half of
    the scatter of their difference.

    Parameters
    ----------
    slices : array_like
        Slices, shape ``(k, size, size)`` [attenuation in any unit].
    first, second : array_like
        The same slices from the even and from the odd projections.
    populations : Populations or str, optional
        What `find_populations` says of `slices`, if that is known already.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``signal_to_noise``; NaN where the slices show no object.

    Raises
    ------
    InputError
        If shapes differ, the slices are not square or hold NaN.
    """
    stack = check_slices(slices).astype(np.float64)
    halves = [check_slices(half, "half scans") for half in (first, second)]
    if any(half.shape != stack.shape for half in halves):
        shapes = " and ".join(str(half.shape) for half in halves)
        raise InputError(f"half scans have shapes {shapes}, the slices {stack.shape}")
    found = find_populations(stack) if populations is None else populations
    value, note = math.nan, ""
    if isinstance(found, str):
        note = found
    else:
        level = float(np.median(stack[found.matter]) - np.median(stack[found.air]))
        noise = _spread(halves[0][found.matter] - halves[1][found.matter]) / 2
        value = level / noise if noise > 0 else math.inf
        note = f"level {level:.4g}, noise {noise:.3g}"
    return metric(
        "signal_to_noise", value, unit="1", source=_SIGNAL_SOURCE, note=note, limits=limits
    )


def _contrast(stack: NDArray[np.float64], found: Populations | str) -> tuple[float, str]:
    if isinstance(found, str):
        return math.nan, found
    background = stack[found.air]
    noise = _spread(background)
    contrast = float(np.median(stack[found.matter]) - np.median(background))
    if noise == 0:
        return math.inf, "the background has no noise at all"
    return contrast / noise, f"background is {found.air_part:.0%} of the field of view"


def _spread(values: NDArray[np.float64]) -> float:
    """Robust standard deviation."""
    return _SIGMA_OF_MAD * float(np.median(np.abs(values - np.median(values))))
