"""Bad pixels take their values from good ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._arrays import array_namespace


class Repair:
    """Where each bad pixel takes its value from.

    Parameters
    ----------
    bad : ndarray of bool
        Pixels to replace, shape ``(rows, columns)``; at least one is good.
    """

    def __init__(self, bad: NDArray[np.bool_]) -> None:
        hopeless = np.asarray(bad.all(axis=1))
        good_rows = np.flatnonzero(~hopeless)
        self._rows = np.flatnonzero(hopeless)
        self._donors = np.array(
            [good_rows[np.argmin(np.abs(good_rows - row))] for row in self._rows], dtype=np.intp
        )
        rows, columns = np.nonzero(bad & ~hopeless[:, None])
        left, right = _good_neighbours(bad)
        self._place = (rows, columns)
        self._left = (rows, left[rows, columns])
        self._right = (rows, right[rows, columns])
        width = np.maximum(self._right[1] - self._left[1], 1)
        self._weight = ((columns - self._left[1]) / width).astype(np.float32)

    def __call__(self, images: Any) -> None:
        """Replace the bad pixels of images ``(n, rows, columns)`` in their place."""
        xp = array_namespace(images)
        if len(self._weight):
            left, right, place = (
                tuple(xp.asarray(index) for index in pair)
                for pair in (self._left, self._right, self._place)
            )
            first, second = images[:, left[0], left[1]], images[:, right[0], right[1]]
            images[:, place[0], place[1]] = first + xp.asarray(self._weight) * (second - first)
        if len(self._rows):
            images[:, xp.asarray(self._rows)] = images[:, xp.asarray(self._donors)]


def _good_neighbours(bad: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns of the nearest good pixel to the left and right; at an edge both are the same."""
    columns = bad.shape[1]
    index = np.broadcast_to(np.arange(columns), bad.shape)
    left = np.maximum.accumulate(np.where(bad, -1, index), axis=1)
    right = np.minimum.accumulate(np.where(bad, columns, index)[:, ::-1], axis=1)[:, ::-1]
    nearest_left = np.where(left < 0, right, left)
    nearest_right = np.where(right >= columns, left, right)
    return nearest_left, nearest_right
