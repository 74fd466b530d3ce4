"""The level of an object: what its usual voxel attenuates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from apsber_bluesky.core import InputError

_BINS = 512


def object_level(slices: ArrayLike) -> float:
    """Median attenuation of what stands out against the air.

    The threshold between the two is Otsu's (N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62),
    found on slices smoothed against noise.

    Parameters
    ----------
    slices : array_like
        Some slices of a volume, shape ``(n, rows, columns)``, in any unit.

    Returns
    -------
    float
        The level, in the unit of the slices.

    Raises
    ------
    InputError
        If a value is NaN or infinite, or nothing stands out.
    """
    values = np.asarray(slices, np.float32)
    if values.ndim != 3:
        raise InputError(f"slices have shape {values.shape}; give (n, rows, columns)")
    if not np.isfinite(values).all():
        raise InputError(
            f"the slices hold {int((~np.isfinite(values)).sum())} NaN or infinite values"
        )
    smooth = gaussian_filter(values, (0, 2, 2))
    low, high = (float(part) for part in np.percentile(smooth, (0.1, 99.9)))
    if not high > low:
        raise InputError(f"the slices are all {low:.4g}: no object stands out in them")
    counts, edges = np.histogram(smooth, _BINS, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.where((below > 0) & (above > 0), below * above * apart, 0.0)
    threshold = middles[int(np.argmax(between))]
    level = float(np.median(values[smooth > threshold]))
    if not level > 0:
        raise InputError(f"the object's level is {level:.4g}: attenuation must be positive")
    return level
