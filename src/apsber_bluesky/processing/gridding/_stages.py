"""The three stages of the gridding engine but the spreading: filter, columns, rows; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding._fourier import transform
from apsber_bluesky.processing.gridding._rows import (
    add_row,
    copy_row,
    gather_rows,
    scale_row,
    scatter_rows,
)

GROUP = 16
"""Columns of the grid that are transformed together, for whole lines of memory."""

# An exponent of ones is infinity or NaN.
_EXPONENT = np.uint32(0x7F800000)


@compiled
def all_finite(values: Any) -> bool:
    """Whether no float32, given as uint32, is NaN or infinite."""
    # Vectorises, and reads the memory once.
    highest = np.uint32(0)
    for value in values:
        highest = max(highest, value & _EXPONENT)
    return bool(highest != _EXPONENT)


@compiled
def filter_rows(
    projections: Any,
    start: int,
    stop: int,
    slots: Any,
    first_row: int,
    response: Any,
    padded: Any,
    period: Any,
    out: Any,
    first: int,
    rows: Any,
    spare: Any,
) -> None:
    """Ramp-filter 16 rows of some projections, cut them and keep their spectra.

    Parameters
    ----------
    projections : ndarray of float32
        Line integrals, shape ``(n, rows, columns)``, contiguous.
    start, stop : int
        Which projections.
    slots : ndarray of int64
        Where each projection's spectra go, as a number of spectra after `first`.
    first_row : int
        Detector row of the first slice.
    response : ndarray of float32
        Ramp filter with the scale of its transforms.
    padded, period : tuple
        Length, factors and roots of the two transforms (`FourierPlan`).
    out : ndarray of float32
        Spectra, flat.
    first : int
        Float where these 16 slices start.
    rows, spare : ndarray of float32
        Working memory, ``16 * padded`` floats each.
    """
    length, kept = padded[0], period[0]
    columns = projections.shape[2]
    present = min(LANES, projections.shape[1] - first_row)
    after = kept - (kept - columns) // 2
    flat = projections.reshape(projections.size)
    for a in range(start, stop):
        image = (a * projections.shape[1] + first_row) * columns
        gather_rows(flat, image, present, columns, rows)
        rows[LANES * columns :] = 0
        here, other = rows, spare
        if transform(here, other, length, padded[1], padded[2], False):
            here, other = other, here
        for k in range(length):
            scale_row(here, LANES * k, response[k])
        if transform(here, other, length, padded[1], padded[2], True):
            here, other = other, here
        # Beyond the detector the filtered row has a tail; what is cut off is never looked at.
        for k in range(kept):
            copy_row(here, LANES * (k if k < after else k + length - kept), other, LANES * k)
        place = first + slots[a] * LANES * kept
        result = out[place : place + LANES * kept]
        moved = transform(other, result, kept, period[1], period[2], False)
        if not moved:
            result[:] = other[: LANES * kept]


@compiled
def transform_columns(
    grid: Any, margin: int, size: int, stride: int, plan: Any, reach: int, out: Any, work: Any
) -> None:
    """Inverse transform along y, for the rows of the image that the field of view reaches.

    Parameters
    ----------
    grid : ndarray of float32
        Stored grid, flat.
    margin : int
        Rows and columns beyond `size`, which are added where they belong.
    size, stride : int
        Cells of the grid, and from one stored row to the next.
    plan : tuple
        Length, factors and roots of the transform.
    reach : int
        Rows ``y`` with ``-reach <= y <= reach`` are wanted.
    out : ndarray of float32
        Like `grid`, and may be `grid` itself.
    work : ndarray of float32
        Working memory, ``(GROUP + 1) * 16 * size`` floats.
    """
    floats, spare = LANES * size, work[GROUP * LANES * size :]
    for x in range(0, size, GROUP):
        for y in range(size):
            source = LANES * (y * stride + x)
            for c in range(GROUP):
                copy_row(grid, source + LANES * c, work, c * floats + LANES * y)
        _add_margin(grid, margin, size, stride, x, work)
        for c in range(GROUP):
            column = work[c * floats : (c + 1) * floats]
            if transform(column, spare, size, plan[1], plan[2], True):
                column[:] = spare[:floats]
        for j in range(-reach, reach + 1):
            y = j % size
            target = LANES * (y * stride + x)
            for c in range(GROUP):
                copy_row(work, c * floats + LANES * y, out, target + LANES * c)


@compiled
def _add_margin(grid: Any, margin: int, size: int, stride: int, x: int, work: Any) -> None:
    """Add to a group of columns what was spread beyond the far edges of the grid."""
    floats = LANES * size
    for y in range(margin):
        source = LANES * ((size + y) * stride + x)
        for c in range(GROUP):
            add_row(grid, source + LANES * c, work, c * floats + LANES * y)
    for c in range(min(GROUP, margin - x)):
        for y in range(size + margin):
            source = LANES * (y * stride + size + x + c)
            add_row(grid, source, work, c * floats + LANES * (y % size))


@compiled
def transform_rows(
    grid: Any,
    size: int,
    stride: int,
    plan: Any,
    correction: Any,
    radius: float,
    out: Any,
    targets: Any,
    together: int,
    spare: Any,
) -> None:
    """Inverse transform along x, and write the slices.

    Parameters
    ----------
    grid : ndarray of float32
        What `transform_columns` wrote, flat; it is overwritten.
    size, stride : int
        Cells of the grid, and from one stored row to the next.
    plan : tuple
        Length, factors and roots of the transform.
    correction : ndarray of float32
        What undoes the kernel, shape ``(columns,)``.
    radius : float
        Pixels farther from the axis are 0.
    out : ndarray of float32
        Slices, flat.
    targets, together
        As in `scatter_rows`.
    spare : ndarray of float32
        Working memory, ``16 * size`` floats.
    """
    columns = correction.size
    half = columns // 2
    for j in range(columns):
        y = j - half
        inside = radius * radius - y * y
        first = last = columns
        if inside >= 0:
            width = int(np.sqrt(inside))
            first, last = max(0, half - width), min(columns, half + width + 1)
        for slice_ in range(LANES):
            if targets[slice_] >= 0:
                row = targets[slice_] + j * columns
                out[row : row + first] = 0
                out[row + last : row + columns] = 0
        if inside < 0:
            continue
        start = LANES * (y % size) * stride
        line = grid[start : start + LANES * size]
        if transform(line, spare, size, plan[1], plan[2], True):
            line = spare
        for i in range(first, last):
            scale_row(line, LANES * ((i - half) % size), correction[i] * correction[j])
        # Pixels left of the axis are at the end of the transformed line.
        middle = max(first, min(half, last))
        source = LANES * (size + first - half)
        scatter_rows(line, source, middle - first, out, targets, j * columns + first, together)
        source = LANES * (middle - half)
        scatter_rows(line, source, last - middle, out, targets, j * columns + middle, together)
