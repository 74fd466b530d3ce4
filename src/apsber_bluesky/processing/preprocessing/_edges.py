"""Rows that end inside the object."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._arrays import array_namespace

# The edge value, and how steeply a row falls towards its edge, are those of so many columns.
_VALUE_COLUMNS = 4
_FALL_PART = 16
# Radii of the continuation, in halves of the view.
_RADII = 1 + np.geomspace(0.02, 2.0, 14)


def extend_edges(projections: NDArray[np.float32]) -> None:
    """Make rows filter as if they went on beyond the view and came down to zero; in place.

    Where the object is wider than the view, a row that is continued by zeros falls off a cliff at
    each end; its filtered values rise towards the ends, and so do those of the slice (cupping).
    Here each end is continued by the projection of a disc about the middle of the view, which has
    the edge's value and, from the outer sixteenth of the row, its slope (J. Hsieh et al., Medical
    Physics 31 (2004) 2385); 3 times the width of the view at most.

    Rows need not become longer for it, nor engines know of it: inside the view, filtering a row
    with its continuation equals filtering the row plus a fixed curve times the edge value, and
    that curve solves a Toeplitz system. So it costs additions alone. Rows that end beside the
    object hardly change.

    Parameters
    ----------
    projections : ndarray of float32
        Line integrals that are to be filtered with zeros beyond their edges, shape
        ``(n, rows, columns)``; on a GPU if it is a CuPy array.

    Raises
    ------
    InputError
        If `projections` is not float32 of that shape.
    """
    if projections.ndim != 3 or projections.dtype != np.float32:
        raise InputError(
            f"projections are {projections.dtype} {projections.shape}; give float32 (n, rows, "
            "columns)"
        )
    if projections.size == 0:
        return
    xp: Any = array_namespace(projections)
    curves = xp.asarray(_curves(projections.shape[2]))
    for image in projections:
        mirrored = image[:, ::-1]
        at_left, at_right = _continuation(xp, image, curves), _continuation(xp, mirrored, curves)
        image += at_left
        mirrored += at_right


def _continuation(xp: Any, image: Any, curves: Any) -> Any:
    """What to add to rows for their continuation to the left."""
    columns = image.shape[1]
    # Through a disc of radius R, the square of a row is a line over the square of the distance
    # from the middle; it is 0 at R.
    part = image[:, : max(_VALUE_COLUMNS, columns // _FALL_PART)].astype(np.float64)
    middle = (columns - 1) / 2
    away = ((xp.arange(part.shape[1]) - middle) / max(middle, 1)) ** 2
    squares = part * xp.abs(part)
    mean = squares.mean(axis=1)
    fall = -((away - away.mean()) * (squares - mean[:, None])).sum(axis=1)
    fall /= max(float(((away - away.mean()) ** 2).sum()), math.ulp(1.0))
    falling = (fall > 0) & (mean > 0)
    squared = xp.where(falling, away.mean() + mean / xp.where(falling, fall, 1), np.inf)
    squared = xp.clip(squared, _RADII[0] ** 2, _RADII[-1] ** 2)
    few = min(_VALUE_COLUMNS, columns)
    inner = (max(middle - (few - 1) / 2, 0) / max(middle, 1)) ** 2
    value = part[:, :few].mean(axis=1) * xp.sqrt((squared - 1) / (squared - inner))
    value = value.astype(np.float32)
    beyond = xp.sqrt(squared) - 1
    # Radii rise by equal factors beyond 1.
    step = math.log((_RADII[1] - 1) / (_RADII[0] - 1))
    place = xp.clip(xp.log(beyond / (_RADII[0] - 1)) / step, 0, len(_RADII) - 1.001)
    below = place.astype(np.int64)
    share = (place - below).astype(np.float32)
    lower = ((1 - share) * value)[:, None] * curves[below]
    return lower + (share * value)[:, None] * curves[below + 1]


@functools.lru_cache(maxsize=8)
def _curves(columns: int) -> NDArray[np.float32]:
    """What, zero beyond the view, filters inside it as each continuation of edge value 1."""
    middle = (columns - 1) / 2
    reach = 1 + math.ceil((_RADII[-1] - 1) * columns / 2)
    kernel = np.zeros(columns + reach)
    kernel[0] = 0.25
    odd = np.arange(1, len(kernel), 2)
    kernel[odd] = -1 / (np.pi * odd) ** 2
    away = (middle + np.arange(1, reach + 1)) / max(middle, 1)
    tails = np.sqrt(np.maximum(0, 1 - (away**2 - 1) / (_RADII[:, None] ** 2 - 1)))
    # The continuation of column 0 lies 1, 2 ... columns to its left.
    filtered = [np.convolve(kernel[1:], tail[::-1])[reach - 1 :][:columns] for tail in tails]
    solved = scipy.linalg.solve_toeplitz(kernel[:columns], np.stack(filtered, axis=1))
    return np.ascontiguousarray(solved.T, dtype=np.float32)
