"""How well opposite projections match about each centre, seen directly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_PAIRS = 4
_LEAST_OVERLAP = 0.2


def opposite_matches(
    sinogram: NDArray[np.float32], angles_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlate nearly opposite projections, mirrored about each possible centre.

    The slopes of the rows are compared within the columns that both projections show, so the
    object may leave the field of view. A scan of half a turn has no exact opposites, so the best
    centre can be off by half the way that the object turns in one step.

    Parameters
    ----------
    sinogram : ndarray of float32
        Line integrals, shape ``(n, rows, columns)``.
    angles_deg : ndarray of float64
        Angle of each projection, sorted [deg].

    Returns
    -------
    centres : ndarray of float64
        Centres at which a fifth of the columns or more overlap, in steps of half a pixel [pixel].
    matches : ndarray of float64
        Correlation coefficient times the root of the overlapping part, for each centre.
    """
    slopes = ndimage.gaussian_filter1d(sinogram.astype(np.float64), 1.5, axis=-1, order=1)
    pairs = _nearest_opposites(angles_deg)
    first = np.stack([slopes[i] for i, _ in pairs])
    second = np.stack([slopes[j] for _, j in pairs])
    columns = sinogram.shape[2]
    least = int(np.ceil(_LEAST_OVERLAP * columns))
    sums = np.arange(least - 1, 2 * columns - least)
    return sums / 2, np.array([_match(first, second, int(s)) for s in sums])


def _nearest_opposites(angles_deg: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of projections whose angles differ from half a turn the least."""
    apart = np.abs(angles_deg[None, :] - angles_deg[:, None] - 180)
    partner = np.argmin(apart, axis=1)
    miss = apart[np.arange(len(partner)), partner]
    return [(int(i), int(partner[i])) for i in np.argsort(miss, kind="stable")[:_PAIRS]]


def _match(first: NDArray[np.float64], second: NDArray[np.float64], column_sum: int) -> float:
    """Correlate ``first[u]`` with ``-second[column_sum - u]``: mirroring turns slopes round."""
    columns = first.shape[-1]
    low, high = max(0, column_sum - columns + 1), min(columns - 1, column_sum)
    one = first[..., low : high + 1]
    other = -second[..., low : high + 1][..., ::-1]
    size = np.sqrt(np.sum(one**2) * np.sum(other**2))
    overlap = (high - low + 1) / columns
    return float(np.sum(one * other) / size * np.sqrt(overlap)) if size > 0 else 0.0
