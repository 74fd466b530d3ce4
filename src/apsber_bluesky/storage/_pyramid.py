"""Coarser levels of a volume: each halves every axis that is longer than one voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def halve(slab: NDArray[Any]) -> NDArray[Any]:
    """Average blocks of 2 x 2 x 2 voxels.

    Parameters
    ----------
    slab : ndarray of float, shape (..., slices, rows, columns)
        The slab; where a size is odd, the blocks at the end average the voxels that are there.

    Returns
    -------
    ndarray, shape (..., ceil(slices / 2), ceil(rows / 2), ceil(columns / 2))
        The averages, of the same dtype.
    """
    for axis in range(slab.ndim - 3, slab.ndim):
        size = slab.shape[axis]
        even = slab[(slice(None),) * axis + (slice(0, size - size % 2, 2),)]
        odd = slab[(slice(None),) * axis + (slice(1, None, 2),)]
        half = (even + odd) * slab.dtype.type(0.5)
        if size % 2:
            last = slab[(slice(None),) * axis + (slice(size - 1, None),)]
            half = np.concatenate([half, last], axis=axis)
        slab = half
    return slab


def vote(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """The class that most voxels of each block of 2 x 2 x 2 have.

    Parameters
    ----------
    labels : ndarray of uint8, shape (slices, rows, columns)
        Labels from 0 to `classes` - 1, and 255 for the unknown, which does not vote.
    classes : int
        How many there are.

    Returns
    -------
    ndarray of uint8, shape (ceil(slices / 2), ceil(rows / 2), ceil(columns / 2))
        The labels; of classes that are equally frequent the first, 255 where nobody voted.
    """
    # Repeating the last voxel of an odd size changes no majority.
    padded = np.pad(labels, [(0, size % 2) for size in labels.shape], mode="edge")
    voters = [padded[z::2, y::2, x::2] for z in range(2) for y in range(2) for x in range(2)]
    winner = np.full(voters[0].shape, 255, np.uint8)
    most = np.zeros(winner.shape, np.uint8)
    for number in range(classes):
        votes = np.zeros(winner.shape, np.uint8)
        for voter in voters:
            votes += voter == number
        more = votes > most
        winner[more] = number
        np.maximum(most, votes, out=most)
    return winner
