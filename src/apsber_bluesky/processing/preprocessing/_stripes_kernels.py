"""Sorting and smoothing of sinogram columns, compiled for the processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled

_BYTE = 256
_LEVELS = np.float32(65535)
# Rows of a slab of sinograms lie 64 kB apart and share the lines of the first cache: few at a time.
_TILE_ROWS, _TILE_COLUMNS = 8, 32


@compiled
def transpose(source: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    """Copy ``(n, m)`` to ``(m, n)`` tile by tile, so that both stay in the cache."""
    rows, columns = source.shape
    for left in range(0, columns, _TILE_COLUMNS):
        right = min(left + _TILE_COLUMNS, columns)
        for top in range(0, rows, _TILE_ROWS):
            bottom = min(top + _TILE_ROWS, rows)
            for i in range(left, right):
                for k in range(top, bottom):
                    target[i, k] = source[k, i]


@compiled
def _rank(values: NDArray[np.float32], order: NDArray[np.int32], work: NDArray[np.int32]) -> None:
    """Order of values to 1/65536 of their range, by two passes of a radix sort."""
    low, high = values.min(), values.max()
    scale = _LEVELS / (high - low) if high > low else np.float32(0)
    keys, first = work[0], work[1]
    count_low, count_high = work[2], work[3]
    count_low[:_BYTE] = 0
    count_high[:_BYTE] = 0
    for k in range(values.size):
        key = np.int32((values[k] - low) * scale)
        keys[k] = key
        count_low[key & 255] += 1
        count_high[key >> 8] += 1
    before_low, before_high = 0, 0
    for digit in range(_BYTE):
        number_low, number_high = count_low[digit], count_high[digit]
        count_low[digit], count_high[digit] = before_low, before_high
        before_low += number_low
        before_high += number_high
    for k in range(values.size):
        digit = keys[k] & 255
        first[count_low[digit]] = k
        count_low[digit] += 1
    for k in range(values.size):
        number = first[k]
        digit = keys[number] >> 8
        order[count_high[digit]] = number
        count_high[digit] += 1


@compiled
def rank_columns(
    columns: NDArray[np.float32],
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    means: NDArray[np.float32],
    work: NDArray[np.int32],
) -> None:
    """Rank each column ``(columns, n)``, and average its values in groups of equal rank."""
    for c in range(columns.shape[0]):
        values, ranked = columns[c], order[c]
        _rank(values, ranked, work)
        for group in range(starts.size - 1):
            total = 0.0
            for rank in range(starts[group], starts[group + 1]):
                total += values[ranked[rank]]
            means[group, c] = total / (starts[group + 1] - starts[group])


@compiled
def smoothing_step(means: NDArray[np.float32], size: int, steps: NDArray[np.float32]) -> None:
    """What takes each value of a row to the median of its `size` neighbours; edges repeat."""
    groups, columns = means.shape
    half = size // 2
    window = np.empty(size, np.float32)
    for group in range(groups):
        row = means[group]
        for k in range(size):
            window[k] = row[min(max(k - half, 0), columns - 1)]
        window.sort()
        for c in range(columns):
            steps[group, c] = window[half] - row[c]
            leaving = row[max(c - half, 0)]
            coming = row[min(c + half + 1, columns - 1)]
            # The window stays sorted: what leaves makes room, and the rest moves up or down.
            k = np.searchsorted(window, leaving)
            while k + 1 < size and window[k + 1] < coming:
                window[k] = window[k + 1]
                k += 1
            while k > 0 and window[k - 1] > coming:
                window[k] = window[k - 1]
                k -= 1
            window[k] = coming


@compiled
def add_by_rank(
    columns: NDArray[np.float32],
    order: NDArray[np.int32],
    steps: NDArray[np.float32],
    group: NDArray[np.int64],
    weight: NDArray[np.float32],
) -> None:
    """Add to each value the step of its rank, interpolated between groups."""
    last = steps.shape[0] - 1
    for c in range(columns.shape[0]):
        values, ranked = columns[c], order[c]
        for rank in range(values.size):
            here = group[rank]
            low = steps[here, c]
            high = steps[min(here + 1, last), c]
            values[ranked[rank]] += low + weight[rank] * (high - low)
