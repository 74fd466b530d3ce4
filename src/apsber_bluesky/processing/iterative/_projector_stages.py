"""The Fourier stages of the projector pair, on images and projections with 16 slices innermost."""

from __future__ import annotations

from typing import Any

import numpy as np

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding import GROUP, copy_row, scale_row, transform


@compiled
def half_chord(radius: float, y: int, half: int, columns: int) -> int:
    """Pixels of an image row on either side of the axis that lie within the radius; -1 for none."""
    inside = radius * radius - y * y
    return int(np.sqrt(inside)) if inside >= 0 else -1


@compiled
def image_to_rows(
    image: Any,
    size: int,
    stride: int,
    plan: Any,
    correction: Any,
    radius: float,
    grid: Any,
    work: Any,
) -> None:
    """Weigh an image with the kernel's correction and transform its rows onto the grid.

    Parameters
    ----------
    image : ndarray of float32
        Image of ``columns x columns x 16``, flat; pixels beyond `radius` are taken as 0.
    size, stride : int
        Cells of the grid, and from one stored row to the next.
    plan : tuple
        Length, factors and roots of the transform.
    correction : ndarray of float32
        What undoes the kernel, shape ``(columns,)``.
    radius : float
        Pixels farther from the axis are 0.
    grid : ndarray of float32
        Stored grid, flat; only rows of the image within `radius` are written.
    work : ndarray of float32
        Working memory, ``2 * 16 * size`` floats.
    """
    columns = correction.size
    half, floats = columns // 2, LANES * size
    for j in range(columns):
        y = j - half
        width = half_chord(radius, y, half, columns)
        if width < 0:
            continue
        line, spare = work[:floats], work[floats : 2 * floats]
        line[:] = 0
        for i in range(max(0, half - width), min(columns, half + width + 1)):
            place = LANES * ((i - half) % size)
            copy_row(image, LANES * (j * columns + i), line, place)
            scale_row(line, place, correction[i] * correction[j])
        if transform(line, spare, size, plan[1], plan[2], False):
            line = spare
        start = LANES * (y % size) * stride
        grid[start : start + floats] = line


@compiled
def rows_to_grid(
    grid: Any, margin: int, size: int, stride: int, plan: Any, first: int, last: int, work: Any
) -> None:
    """Transform along y what `image_to_rows` wrote, and fill the margin of the grid.

    Parameters
    ----------
    grid : ndarray of float32
        Stored grid, flat.
    margin : int
        Rows and columns beyond `size`, which repeat the first ones.
    size, stride : int
        Cells of the grid, and from one stored row to the next.
    plan : tuple
        Length, factors and roots of the transform.
    first, last : int
        Rows ``y`` with ``first <= y <= last`` were written; the others are 0.
    work : ndarray of float32
        Working memory, ``(GROUP + 1) * 16 * size`` floats.
    """
    floats, spare = LANES * size, work[GROUP * LANES * size :]
    for x in range(0, size, GROUP):
        work[: GROUP * floats] = 0
        for j in range(first, last + 1):
            y = j % size
            source = LANES * (y * stride + x)
            for c in range(GROUP):
                copy_row(grid, source + LANES * c, work, c * floats + LANES * y)
        for c in range(GROUP):
            column = work[c * floats : (c + 1) * floats]
            if transform(column, spare, size, plan[1], plan[2], False):
                column[:] = spare[:floats]
        for y in range(size):
            target = LANES * (y * stride + x)
            for c in range(GROUP):
                copy_row(work, c * floats + LANES * y, grid, target + LANES * c)
    for y in range(size):
        start = LANES * y * stride
        grid[start + floats : start + floats + LANES * margin] = grid[
            start : start + LANES * margin
        ]
    length = LANES * (size + margin)
    for y in range(margin):
        source, target = LANES * y * stride, LANES * (size + y) * stride
        grid[target : target + length] = grid[source : source + length]


@compiled
def rows_to_image(
    grid: Any,
    size: int,
    stride: int,
    plan: Any,
    correction: Any,
    radius: float,
    image: Any,
    spare: Any,
) -> None:
    """Transform the rows of a grid whose columns are done: the transpose of `image_to_rows`.

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
    image : ndarray of float32
        Image of ``columns x columns x 16``, flat.
    spare : ndarray of float32
        Working memory, ``16 * size`` floats.
    """
    columns = correction.size
    half = columns // 2
    for j in range(columns):
        y = j - half
        width = half_chord(radius, y, half, columns)
        first, last = max(0, half - width), min(columns, half + width + 1)
        row = LANES * j * columns
        if width < 0:
            image[row : row + LANES * columns] = 0
            continue
        image[row : row + LANES * first] = 0
        image[row + LANES * last : row + LANES * columns] = 0
        start = LANES * (y % size) * stride
        line = grid[start : start + LANES * size]
        if transform(line, spare, size, plan[1], plan[2], True):
            line = spare
        for i in range(first, last):
            copy_row(line, LANES * ((i - half) % size), image, row + LANES * i)
            scale_row(image, row + LANES * i, correction[i] * correction[j])


@compiled
def spectra_to_lines(
    samples: Any, count: int, period: Any, columns: int, lines: Any, spare: Any
) -> None:
    """Transform spectra to detector rows.

    Parameters
    ----------
    samples : ndarray of float32
        Spectra of ``count x period x 16``, flat; they are overwritten.
    count : int
        Projections.
    period : tuple
        Length, factors and roots of the transform.
    columns : int
        Pixels of a detector row; the rest of the period lies beyond the detector.
    lines : ndarray of float32
        Detector rows of ``count x columns x 16``, flat.
    spare : ndarray of float32
        Working memory, ``16 * period`` floats.
    """
    length, kept = LANES * period[0], LANES * columns
    for a in range(count):
        row = samples[a * length : (a + 1) * length]
        if transform(row, spare, period[0], period[1], period[2], True):
            row = spare
        lines[a * kept : (a + 1) * kept] = row[:kept]


@compiled
def lines_to_spectra(
    lines: Any, count: int, period: Any, columns: int, samples: Any, spare: Any
) -> None:
    """Transform detector rows to spectra: the transpose of `spectra_to_lines`."""
    length, kept = LANES * period[0], LANES * columns
    for a in range(count):
        row = samples[a * length : (a + 1) * length]
        row[:kept] = lines[a * kept : (a + 1) * kept]
        row[kept:] = 0
        if transform(row, spare, period[0], period[1], period[2], False):
            row[:] = spare[:length]
