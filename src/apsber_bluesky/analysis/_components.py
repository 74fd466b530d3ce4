"""Connected parts of labelled volumes that are larger than memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ConfigurationError


class ConnectedParts:
    """Sizes of the connected parts of every class, from slabs of the labels in order.

    Voxels of one class belong together if they share a face. Parts of neighbouring slabs are
    joined by union-find (R. E. Tarjan, J. ACM 22 (1975) 215), so that the result does not depend on
    how a volume is cut. Memory grows with the number of parts, not with that of voxels.

    Parameters
    ----------
    unknown : int
        Label of voxels of no class.
    """

    def __init__(self, unknown: int) -> None:
        self._unknown = unknown
        # Part 0 is that of unknown voxels.
        self._parent = np.zeros(1, np.int64)
        self._sizes = np.zeros(1, np.int64)
        self._classes = np.full(1, unknown, np.uint8)
        self._above: tuple[NDArray[Any], NDArray[np.int64]] | None = None

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Take the next slab, shape ``(slices, rows, columns)``."""
        parts = _label(labels, self._unknown)
        count = int(parts.max())
        first = len(self._parent) - 1
        classes = np.full(count + 1, self._unknown, np.uint8)
        classes[parts.ravel()] = labels.ravel()
        self._parent = np.concatenate([self._parent, first + 1 + np.arange(count)])
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        self._sizes = np.concatenate([self._sizes, sizes])
        self._classes = np.concatenate([self._classes, classes[1:]])
        numbers = np.where(parts[[0, -1]] > 0, parts[[0, -1]] + first, 0).astype(np.int64)
        if self._above is not None:
            self._join(*self._above, labels[0], numbers[0])
        self._above = labels[-1].copy(), numbers[1]

    def _join(
        self,
        upper: NDArray[Any],
        upper_parts: NDArray[np.int64],
        lower: NDArray[Any],
        lower_parts: NDArray[np.int64],
    ) -> None:
        same = (upper == lower) & (upper != self._unknown)
        pairs = np.unique(np.stack([upper_parts[same], lower_parts[same]], axis=1), axis=0)
        for a, b in pairs.tolist():
            root, other = self._root(a), self._root(b)
            if root != other:
                self._parent[max(root, other)] = min(root, other)

    def _root(self, part: int) -> int:
        parent = self._parent
        while parent[part] != part:
            # Halving the path keeps it short.
            parent[part] = parent[parent[part]]
            part = int(parent[part])
        return part

    def sizes(self, number: int) -> NDArray[np.int64]:
        """Voxels of each part of class `number`, the largest first."""
        own = np.flatnonzero(self._classes == number)
        roots = np.array([self._root(part) for part in own.tolist()], np.int64)
        _, inverse = np.unique(roots, return_inverse=True)
        sizes = np.bincount(inverse, self._sizes[own]) if len(own) else np.zeros(0)
        return np.sort(sizes.astype(np.int64))[::-1]


def _label(labels: NDArray[np.uint8], unknown: int) -> NDArray[Any]:
    try:
        from skimage.measure import label
    except ImportError as error:
        raise ConfigurationError(
            "connected parts need scikit-image; install apsber_bluesky[ml]"
        ) from error
    parts: NDArray[Any] = label(labels, background=unknown, connectivity=1)
    return parts
