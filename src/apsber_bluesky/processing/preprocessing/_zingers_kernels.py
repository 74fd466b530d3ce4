"""The median of each pixel's neighbourhood, in one pass over a frame."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled


@numba.njit(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _low(a: Any, b: Any) -> Any:
    return a if a < b else b


@numba.njit(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _high(a: Any, b: Any) -> Any:
    return b if a < b else a


@numba.njit(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _middle(a: Any, b: Any, c: Any) -> Any:
    return _high(_low(a, b), _low(_high(a, b), c))


@compiled
def _keep(line: NDArray[np.float32], kept: NDArray[np.float32]) -> None:
    columns = line.size
    kept[0] = line[0]
    for j in range(columns):
        kept[j + 1] = line[j]
    kept[columns + 1] = line[columns - 1]


@compiled
def replace_low(
    frame: NDArray[np.float32], threshold: np.float32, work: NDArray[np.float32]
) -> int:
    """Replace pixels of a frame that are below the median of 3 x 3 by more than a threshold.

    `work` has shape ``(6, columns + 2)``. Gives the number of pixels replaced.
    """
    rows, columns = frame.shape
    replaced = 0
    # Three rows as they were before anything was replaced, each continued by its edge pixel.
    for slot in range(2):
        _keep(frame[0], work[slot])
    for row in range(rows):
        _keep(frame[min(row + 1, rows - 1)], work[2])
        # The smallest, the middle and the largest of each column of three: the median of nine is
        # the median of the largest small, the middle middle and the smallest large one.
        for j in range(columns + 2):
            a, b, c = work[0, j], work[1, j], work[2, j]
            work[3, j] = _low(_low(a, b), c)
            work[4, j] = _middle(a, b, c)
            work[5, j] = _high(_high(a, b), c)
        line, low, mid, high = frame[row], work[3], work[4], work[5]
        for j in range(columns):
            median = _middle(
                _high(_high(low[j], low[j + 1]), low[j + 2]),
                _middle(mid[j], mid[j + 1], mid[j + 2]),
                _low(_low(high[j], high[j + 1]), high[j + 2]),
            )
            value = line[j]
            outlier = median - value > threshold
            replaced += outlier
            line[j] = median if outlier else value
        for j in range(columns + 2):
            work[0, j] = work[1, j]
            work[1, j] = work[2, j]
    return replaced
