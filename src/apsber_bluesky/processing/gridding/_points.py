"""Where samples of projections lie on the Fourier grid, in the order in which they are added."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled

TILE = 16
"""Cells of a square of the grid that stays in the first-level cache."""

PLACES = 65536
"""Places between two cells of the grid that are told apart."""

POINT_BYTES = 12
"""Memory of a sorted point."""


class PointArrays(NamedTuple):
    """Points sorted by tile, each array of shape ``(n,)``.

    Attributes
    ----------
    cell : ndarray of int32
        Lowest cell reached, as an index into the stored grid.
    x, y : ndarray of uint16
        Distance of that cell from the edge of the kernel along each axis [1/PLACES cell].
    projection : ndarray of uint16
        Projection, counted within the chunk.
    frequency : ndarray of uint16
        Frequency in FFT order.
    """

    cell: NDArray[np.int32]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    projection: NDArray[np.uint16]
    frequency: NDArray[np.uint16]


def sorted_points(
    steps: NDArray[np.float64], period: int, size: int, stride: int, taps: int
) -> PointArrays:
    """Locate and sort the points of some projections.

    Parameters
    ----------
    steps : ndarray of float64
        Cells along x and y from one frequency to the next, shape ``(n, 2)``.
    period : int
        Frequencies, an odd number.
    size : int
        Cells of the grid along each axis.
    stride : int
        Cells from one row of the stored grid to the next.
    taps : int
        Cells that a point reaches along each axis.

    Returns
    -------
    PointArrays
        The points.
    """
    number = len(steps) * period
    points = PointArrays(
        np.empty(number, np.int32), *(np.empty(number, np.uint16) for _ in range(4))
    )
    tiles = -(-size // TILE)
    starts = np.zeros(tiles * tiles + 1, np.int64)
    _sort(np.ascontiguousarray(steps), period, size, stride, taps, starts, *points)
    return points


@compiled
def _lowest(place: float, size: int, taps: int) -> tuple[int, int]:
    """Lowest cell that a point reaches, and its distance from the kernel's edge."""
    edge = place - taps / 2
    cell = math.ceil(edge)
    distance = min(int((cell - edge) * PLACES), PLACES - 1)
    return cell % size, distance


@compiled
def _sort(
    steps: Any,
    period: int,
    size: int,
    stride: int,
    taps: int,
    starts: Any,
    cell: Any,
    x: Any,
    y: Any,
    projection: Any,
    frequency: Any,
) -> None:
    tiles = -(-size // TILE)
    # Counting sort: once to count the points of each tile, once to put them in their places.
    for fill in (False, True):
        if fill:
            for tile in range(tiles * tiles):
                starts[tile + 1] += starts[tile]
        for a in range(steps.shape[0]):
            for k in range(period):
                m = k if 2 * k < period else k - period
                column, across = _lowest(m * steps[a, 0], size, taps)
                row, down = _lowest(m * steps[a, 1], size, taps)
                tile = (row // TILE) * tiles + column // TILE
                if not fill:
                    starts[tile + 1] += 1
                    continue
                place = starts[tile]
                starts[tile] += 1
                cell[place] = row * stride + column
                x[place], y[place] = across, down
                projection[place], frequency[place] = a, k
