"""Surface of what has a label, from how often lines pass through it."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Part of all directions that is closest to each of the 13 axes of a cube, by how many coordinates
# an axis changes: J. Ohser and F. Muecklich, Statistical Analysis of Microstructures in Materials
# Science (Wiley 2000), and D. Legland et al., Image Anal. Stereol. 26 (2007) 83.
_WEIGHT_OF: Final = {1: 0.09155578, 2: 0.07396126, 3: 0.07039128}

_AXES: Final = [axis for axis in itertools.product((0, 1, -1), repeat=3) if axis > (0, 0, 0)]


class Surfaces:
    """Surface of each class, from slabs of the labels in order.

    Crofton's formula: a surface has twice the area as there are crossings of it on test lines of
    unit length per volume; here lines through all voxels, along 13 directions. Unlike a count of
    voxel faces it is right for surfaces that lie aslant. Where the volume or what is known ends
    there is no surface.

    Parameters
    ----------
    number : int
        Of the classes.
    unknown : int
        Label of voxels of no class.
    """

    def __init__(self, number: int, unknown: int) -> None:
        # Counted by how many coordinates the axis changes, so that slabs make no difference.
        self._crossings = {steps: np.zeros(number, np.int64) for steps in _WEIGHT_OF}
        self._unknown = unknown
        self._above: NDArray[np.uint8] | None = None

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Take the next slab, shape ``(slices, rows, columns)``."""
        whole = labels if self._above is None else np.concatenate([self._above, labels])
        for axis in _AXES:
            # Lines within a slice are new in new slices only.
            within = labels if axis[0] == 0 else whole
            first, second = _shifted(within, axis)
            crossed = (first != second) & (first != self._unknown) & (second != self._unknown)
            counts = self._crossings[sum(map(abs, axis))]
            for side in (first, second):
                counts += np.bincount(side[crossed], minlength=len(counts))
        self._above = labels[-1:].copy()

    def areas(self) -> NDArray[np.float64]:
        """Surface of each class [faces of a voxel]."""
        areas: NDArray[np.float64] = np.sum(
            [
                2 * _WEIGHT_OF[steps] / math.sqrt(steps) * counts
                for steps, counts in self._crossings.items()
            ],
            axis=0,
        )
        return areas


def _shifted(labels: NDArray[np.uint8], axis: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Voxels, and those one step further along an axis."""
    here = tuple(slice(max(-d, 0), n - max(d, 0)) for d, n in zip(axis, labels.shape, strict=True))
    there = tuple(slice(max(d, 0), n - max(-d, 0)) for d, n in zip(axis, labels.shape, strict=True))
    return labels[here], labels[there]
