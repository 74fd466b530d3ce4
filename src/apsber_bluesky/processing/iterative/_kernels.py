"""Sums and updates of arrays with 16 slices innermost, each slice with its own factors; compiled.

The loops run over stretches of a whole number of rows of 16 floats, with the factors of the 16
slices repeated along them, so that they vectorise. Every sum has one fixed order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import LANES

STRETCH = 64 * LANES
"""Floats of a stretch."""


def spread_lanes(values: ArrayLike, length: int = STRETCH) -> NDArray[np.float32]:
    """Repeat one factor of each slice along `length` floats."""
    return np.tile(np.asarray(values, np.float32), length // LANES)


def lane_dots(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scalar product of each slice's part of two arrays, shape ``(16,)``."""
    sums = np.zeros(STRETCH)
    _dots(a.reshape(-1), b.reshape(-1), sums)
    return _folded(sums)


def lane_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distance of each slice's part of two arrays, shape ``(16,)``."""
    sums = np.zeros(STRETCH)
    _distances(a.reshape(-1), b.reshape(-1), sums)
    return _folded(sums)


def lane_turns(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Scalar product of the steps from `a` to `b` and from `b` to `c`, shape ``(16,)``."""
    sums = np.zeros(STRETCH)
    _turns(a.reshape(-1), b.reshape(-1), c.reshape(-1), sums)
    return _folded(sums)


def add_scaled(x: NDArray[np.float32], factors: ArrayLike, p: NDArray[np.float32]) -> None:
    """``x += factors * p``."""
    _combine(x.reshape(-1), spread_lanes(np.ones(LANES)), spread_lanes(factors), p.reshape(-1))


def scale_add(p: NDArray[np.float32], factors: ArrayLike, s: NDArray[np.float32]) -> None:
    """``p = s + factors * p``."""
    _combine(p.reshape(-1), spread_lanes(factors), spread_lanes(np.ones(LANES)), s.reshape(-1))


def _folded(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    folded: NDArray[np.float64] = sums.reshape(-1, LANES).sum(axis=0)
    return folded


@compiled
def _dots(a: Any, b: Any, sums: Any) -> None:
    for start in range(0, a.size, STRETCH):
        for f in range(min(STRETCH, a.size - start)):
            sums[f] += np.float64(a[start + f]) * np.float64(b[start + f])


@compiled
def _distances(a: Any, b: Any, sums: Any) -> None:
    for start in range(0, a.size, STRETCH):
        for f in range(min(STRETCH, a.size - start)):
            distance = np.float64(a[start + f]) - np.float64(b[start + f])
            sums[f] += distance * distance


@compiled
def _turns(a: Any, b: Any, c: Any, sums: Any) -> None:
    for start in range(0, a.size, STRETCH):
        for f in range(min(STRETCH, a.size - start)):
            sums[f] += np.float64(b[start + f] - a[start + f]) * np.float64(
                c[start + f] - b[start + f]
            )


@compiled
def _combine(x: Any, kept: Any, factors: Any, p: Any) -> None:
    for start in range(0, x.size, STRETCH):
        for f in range(min(STRETCH, x.size - start)):
            x[start + f] = kept[f] * x[start + f] + factors[f] * p[start + f]


@compiled
def note_bound(x: Any, s: Any, bound: Any) -> None:
    """Note which pixels are at 0 and would be made smaller by the direction `s`, all flat."""
    for f in range(x.size):
        bound[f] = x[f] <= 0 and s[f] < 0


@compiled
def hold_bound(s: Any, bound: Any) -> None:
    """Set the direction to 0 where pixels are held at their bound."""
    for f in range(s.size):
        if bound[f]:
            s[f] = np.float32(0)


@compiled
def clip_step(x: Any, start: Any) -> None:
    """Replace `x` by what leads from `start` to it with negative pixels set to 0, all flat."""
    for f in range(x.size):
        x[f] = max(x[f], np.float32(0)) - start[f]


@compiled
def weigh_residual(b: Any, lines: Any, weights: Any, sums: Any) -> None:
    """Replace projections of the present image by the weighted difference to the measured ones.

    Parameters
    ----------
    b, lines : ndarray of float32
        Measured and present projections, flat.
    weights : ndarray of float32
        Of each ray, for every one of its 16 slices, shape ``(size / 16,)``.
    sums : ndarray of float64
        What the squares of the differences are added to, shape ``(STRETCH,)``.
    """
    row = np.empty(STRETCH, np.float32)
    for start in range(0, b.size, STRETCH):
        count = min(STRETCH, b.size - start)
        for ray in range(count // LANES):
            row[LANES * ray : LANES * (ray + 1)] = weights[start // LANES + ray]
        for f in range(count):
            difference = b[start + f] - lines[start + f]
            sums[f] += np.float64(difference) * np.float64(difference)
            lines[start + f] = row[f] * difference


@compiled
def weigh_update(x: Any, g: Any, weights: Any, factors: Any, least: Any, sums: Any) -> None:
    """``x = max(x + factors * weights * g, least)``.

    Parameters
    ----------
    x, g : ndarray of float32
        Image and direction, flat.
    weights : ndarray of float32
        Of each pixel, shape ``(size / 16,)``.
    factors : ndarray of float32
        Of each slice, repeated along a stretch.
    least : float32
        Smallest value that is allowed.
    sums : ndarray of float64
        What the squares of the changes are added to, shape ``(STRETCH,)``.
    """
    row = np.empty(STRETCH, np.float32)
    for start in range(0, x.size, STRETCH):
        count = min(STRETCH, x.size - start)
        for pixel in range(count // LANES):
            row[LANES * pixel : LANES * (pixel + 1)] = weights[start // LANES + pixel]
        for f in range(count):
            before = x[start + f]
            after = max(before + factors[f] * row[f] * g[start + f], least)
            x[start + f] = after
            sums[f] += np.float64(after - before) * np.float64(after - before)
