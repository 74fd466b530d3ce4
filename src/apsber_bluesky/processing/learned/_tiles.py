"""Tiles of an image that is too large to be worked on at once, and how their answers are joined."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tiling:
    """How one axis of an image is cut.

    Attributes
    ----------
    starts : tuple of int
        First pixel of each tile.
    size : int
        Pixels of each tile.
    weights : tuple of ndarray of float32, shape (size,)
        What the answer of each tile counts; where tiles overlap these sum to 1.
    """

    starts: tuple[int, ...]
    size: int
    weights: tuple[NDArray[np.float32], ...]


@functools.lru_cache(maxsize=64)
def cut(length: int, tile: int, overlap: int, multiple: int, reach: int) -> Tiling:
    """Cut an axis into tiles of one size.

    Tiles begin at multiples of `multiple`, as the network's own grid does; otherwise its answers
    would depend on the cut. A tile's answer counts for nothing closer than `reach` to a cut, since
    it has not seen what lies beyond. Where the overlap is less than two reaches, the outermost
    quarter of it counts for nothing, and the answers of both tiles are blended in the rest.

    Parameters
    ----------
    length : int
        Pixels of the axis, a multiple of `multiple`.
    tile : int
        Most pixels of a tile.
    overlap : int
        Least pixels that neighbours share; at most half of the tile is taken.
    multiple : int
        What starts and sizes are multiples of.
    reach : int
        How far from a pixel the network looks [pixel].

    Returns
    -------
    Tiling
        The tiles.
    """
    tile = max(tile // multiple, 2) * multiple
    if length <= tile:
        return Tiling((0,), length, (np.ones(length, np.float32),))
    shared = min(_up(overlap, multiple), tile // 2 // multiple * multiple)
    count = -(-(length - shared) // (tile - shared))
    # Equal tiles: the last one of largest tiles could be almost all overlap.
    size = _up(-(-(length + (count - 1) * shared) // count), multiple)
    starts = tuple(min(number * (size - shared), length - size) for number in range(count))
    trimmed = reach if shared >= 2 * reach else shared // 4
    raw = []
    for number in range(count):
        rising = _rise(size, trimmed, shared) if number else np.ones(size)
        falling = _rise(size, trimmed, shared)[::-1] if number < count - 1 else np.ones(size)
        raw.append(rising * falling)
    total = np.zeros(length)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + size] += weight
    weights = tuple(
        (weight / total[start : start + size]).astype(np.float32)
        for start, weight in zip(starts, raw, strict=True)
    )
    return Tiling(starts, size, weights)


def mirrored(first: int, last: int, length: int) -> NDArray[np.int64]:
    """Which of `length` pixels (or slices) stand for those from `first` to before `last`.

    Beyond the ends they go back, and the outermost one is not repeated: 2 1 | 0 1 2 3 | 2 1.
    """
    if length == 1:
        return np.zeros(last - first, np.int64)
    period = 2 * (length - 1)
    folded = np.arange(first, last) % period
    return np.minimum(folded, period - folded)


def _rise(size: int, trimmed: int, shared: int) -> NDArray[np.float64]:
    """0 for `trimmed` pixels, then smoothly up to 1 at the mirrored place, then 1."""
    width = shared - 2 * trimmed
    weight = np.ones(size)
    weight[:trimmed] = 0
    weight[trimmed : trimmed + width] = np.sin(np.pi / 2 * (np.arange(width) + 0.5) / width) ** 2
    return weight


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
