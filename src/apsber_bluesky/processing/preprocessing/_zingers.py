"""Single pixels hit by a stray photon."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._arrays import array_namespace

_WORK_ROWS = 6


def remove_zingers(projections: NDArray[np.float32], threshold: float = 0.3) -> int:
    """Replace pixels that are far brighter than their neighbours, in their place.

    A scattered photon or a cosmic ray that hits the sensor makes a few pixels of one projection
    bright, and a streak in the volume. A pixel whose line integral lies below the median of its
    3 x 3 neighbours by more than `threshold` takes that median; all others stay bit for bit.
    Line integrals are compared, not counts, so that one threshold holds for every brightness and
    the structure of the flats plays no part.

    Parameters
    ----------
    projections : ndarray of float32
        Finite line integrals, shape ``(n, rows, columns)``; on a GPU if it is a CuPy array.
    threshold : float
        Least difference; 0.3 is a pixel 35 % brighter than its neighbours.

    Returns
    -------
    int
        Number of pixels replaced.

    Raises
    ------
    InputError
        If `projections` is not float32 of that shape, or the threshold is not positive.
    """
    if projections.ndim != 3 or projections.dtype != np.float32:
        raise InputError(
            f"projections are {projections.dtype} {projections.shape}; give float32 (n, rows, "
            "columns)"
        )
    if not 0 < threshold < np.inf:
        raise InputError(f"threshold is {threshold}; give a positive number")
    xp = array_namespace(projections)
    if projections.size == 0:
        return 0
    if xp is not np:
        return sum(_replace_on_arrays(xp, image, threshold) for image in projections)
    from apsber_bluesky.processing.preprocessing._zingers_kernels import replace_low

    work = np.empty((_WORK_ROWS, projections.shape[2] + 2), np.float32)
    replaced = 0
    for image in projections:
        rows = np.ascontiguousarray(image)
        replaced += int(replace_low(rows, np.float32(threshold), work))
        if not image.flags.c_contiguous:
            image[...] = rows
    return replaced


def _replace_on_arrays(xp: Any, image: Any, threshold: float) -> int:
    """One projection, with the functions of an array library."""
    rows, columns = image.shape
    padded = xp.pad(image, 1, mode="edge")
    neighbours = [
        padded[down : down + rows, right : right + columns]
        for down in range(3)
        for right in range(3)
    ]
    median = xp.sort(xp.stack(neighbours), axis=0)[4]
    outlier = median - image > np.float32(threshold)
    image[...] = xp.where(outlier, median, image)
    return int(outlier.sum())
