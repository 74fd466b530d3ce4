"""Coarser levels of a volume: each halves every axis that is longer than one voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEVELS = 4
_SMALLEST_LATERAL = 64


@dataclass(frozen=True, slots=True)
class PyramidLevel:
    """One level of a multiscale volume.

    Attributes
    ----------
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    factors : tuple of int
        Voxels of the full volume along each axis that one voxel of this level stands for.
    """

    shape: tuple[int, int, int]
    factors: tuple[int, int, int]


def pyramid_levels(shape: tuple[int, int, int]) -> list[PyramidLevel]:
    """Plan the levels of a volume, the full one first.

    Parameters
    ----------
    shape : tuple of int
        Shape ``(slices, rows, columns)`` of the full volume.

    Returns
    -------
    list of PyramidLevel
        Up to four levels; the rows and columns of a coarser one are at least 64.
    """
    levels = [PyramidLevel(shape, (1, 1, 1))]
    while len(levels) < _LEVELS and min(levels[-1].shape[1:]) >= 2 * _SMALLEST_LATERAL:
        last = levels[-1]
        depth, rows, columns = ((size + 1) // 2 for size in last.shape)
        fz, fy, fx = (
            factor * 2 if size > 1 else factor
            for size, factor in zip(last.shape, last.factors, strict=True)
        )
        levels.append(PyramidLevel((depth, rows, columns), (fz, fy, fx)))
    return levels


def halve(slab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average blocks of 2 x 2 x 2 voxels.

    Parameters
    ----------
    slab : ndarray of float32, shape (slices, rows, columns)
        The slab; where a size is odd, the blocks at the end average the voxels that are there.

    Returns
    -------
    ndarray of float32, shape (ceil(slices / 2), ceil(rows / 2), ceil(columns / 2))
        The averages.
    """
    for axis in range(3):
        size = slab.shape[axis]
        even = slab[(slice(None),) * axis + (slice(0, size - size % 2, 2),)]
        odd = slab[(slice(None),) * axis + (slice(1, None, 2),)]
        half = (even + odd) * np.float32(0.5)
        if size % 2:
            last = slab[(slice(None),) * axis + (slice(size - 1, None),)]
            half = np.concatenate([half, last], axis=axis)
        slab = half
    return slab
