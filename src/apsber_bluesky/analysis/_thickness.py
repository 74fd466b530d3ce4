"""How thick things are, by the balls that fit into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Width of the classes of the distribution [voxel].
_STEP = 1.0
# Balls up to this radius are painted voxel by voxel [voxel]; those up to twice as wide on a grid
# twice as coarse, and so on: their number and their size would cost the sixth power of the radius.
_FINE_RADIUS = 16.0


@dataclass(frozen=True, slots=True)
class Thickness:
    """How thick something is.

    Attributes
    ----------
    total : float
        Sum of the thickness of all voxels [voxel].
    voxels : ndarray of int64
        How many voxels are 0 to 1, 1 to 2, ... voxels thick.
    """

    total: float
    voxels: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean over the voxels [voxel]; NaN without any."""
        count = self.voxels.sum()
        return self.total / int(count) if count else float("nan")

    def __add__(self, other: Thickness) -> Thickness:
        length = max(len(self.voxels), len(other.voxels))
        voxels = np.zeros(length, np.int64)
        for part in (self.voxels, other.voxels):
            voxels[: len(part)] += part
        return Thickness(self.total + other.total, voxels)


NOTHING = Thickness(0.0, np.zeros(0, np.int64))


def local_thickness(inside: NDArray[np.bool_]) -> Thickness:
    """Diameter of the largest ball that fits inside and holds a voxel, for each voxel.

    T. Hildebrand and P. Rueegsegger, J. Microsc. 185 (1997) 67. Balls are painted around those
    voxels alone whose ball is in no neighbour's. The diameter is right to about half a voxel; of
    balls with a radius above 16 voxels the border is right to an eighth of the radius. What touches
    the border of the block counts as going on beyond it.

    Parameters
    ----------
    inside : ndarray of bool, shape (slices, rows, columns)
        What is measured.
    """
    from scipy.ndimage import distance_transform_edt

    if not inside.any():
        return NOTHING
    if inside.all():
        # It has no surface that would bound a ball; the block does.
        depth = np.full(inside.shape, min(inside.shape) / 2, np.float32)
    else:
        depth = distance_transform_edt(inside).astype(np.float32)
        depth = _painted(depth)
    # To the middle of a voxel outside it is half a voxel too far, or not, by where things lie.
    diameters = 2 * depth[inside].astype(np.float64) - 0.5
    return Thickness(float(diameters.sum()), np.bincount((diameters / _STEP).astype(np.int64)))


def _painted(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Radius of the largest ball that each voxel is in, from its distance to the outside."""
    painted = depth.copy()
    _painter()(depth, painted, 1, 1.0, _FINE_RADIUS)
    step, widest = 2, float(depth.max())
    while _FINE_RADIUS * step / 2 < widest:
        pooled = _pooled(depth, step)
        coarse = np.zeros_like(pooled)
        _painter()(pooled, coarse, step, _FINE_RADIUS * step / 2, _FINE_RADIUS * step)
        for axis in range(3):
            coarse = np.repeat(coarse, step, axis)
        z, y, x = depth.shape
        np.maximum(painted, coarse[:z, :y, :x], out=painted, where=depth > 0)
        step *= 2
    return painted


def _pooled(depth: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """The largest depth in each cube of `step` voxels."""
    padded = np.pad(depth, [(0, -length % step) for length in depth.shape])
    z, y, x = (length // step for length in padded.shape)
    pooled: NDArray[np.float32] = padded.reshape(z, step, y, step, x, step).max((1, 3, 5))
    return pooled


@cache
def _painter() -> Callable[[Any, Any, int, float, float], None]:
    # Imported and compiled when it is needed: that takes a second.
    import numba

    painter: Callable[[Any, Any, int, float, float], None] = numba.njit(nogil=True)(_paint)
    return painter


def _paint(depth: Any, painted: Any, step: int, smallest: float, largest: float) -> None:
    """Let each cell of `step` voxels have the largest radius of the balls that it is in.

    Balls of a radius above `smallest` up to `largest` [voxel] are looked at, no others.
    """
    slices, rows, columns = depth.shape
    for z in range(slices):
        for y in range(rows):
            for x in range(columns):
                radius = depth[z, y, x]
                if radius <= smallest or radius > largest:
                    continue
                # A neighbour that is nearly a step deeper has a ball around this one.
                covered = False
                for k in range(max(z - 1, 0), min(z + 2, slices)):
                    for j in range(max(y - 1, 0), min(y + 2, rows)):
                        for i in range(max(x - 1, 0), min(x + 2, columns)):
                            steps = (k - z) ** 2 + (j - y) ** 2 + (i - x) ** 2
                            far = step * np.sqrt(steps)
                            if steps and depth[k, j, i] > radius + far - 0.1:
                                covered = True
                if covered:
                    continue
                cells = radius / step
                reach = int(cells)
                for k in range(max(z - reach, 0), min(z + reach + 1, slices)):
                    for j in range(max(y - reach, 0), min(y + reach + 1, rows)):
                        left = cells * cells - (k - z) ** 2 - (j - y) ** 2
                        if left <= 0:
                            continue
                        for i in range(max(x - reach, 0), min(x + reach + 1, columns)):
                            if (i - x) ** 2 < left and painted[k, j, i] < radius:
                                painted[k, j, i] = radius
