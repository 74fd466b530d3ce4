"""Turn images by a small angle, and average blocks of their pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled


def bin_images(images: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Average blocks of ``factor`` x ``factor`` pixels.

    Parameters
    ----------
    images : ndarray of float32
        Images, shape ``(n, rows, columns)``.
    factor : int
        Edge of a block; rows and columns at the end that fill no block are left out.

    Returns
    -------
    ndarray of float32
        Means, shape ``(n, rows // factor, columns // factor)``.
    """
    if factor == 1:
        return images
    count, rows, columns = images.shape
    rows, columns = rows // factor, columns // factor
    cut = images[:, : rows * factor, : columns * factor]
    total = np.zeros((count, rows, columns), np.float32)
    for row in range(factor):
        for column in range(factor):
            total += cut[:, row::factor, column::factor]
    total /= np.float32(factor * factor)
    return total


def rows_for_turn(rows: range, columns: int, all_rows: int, angle_deg: float) -> range:
    """Rows of the recorded images that `turn_images` needs to make some turned ones.

    Parameters
    ----------
    rows : range
        Rows of the turned images.
    columns, all_rows : int
        Size of a recorded image [pixel].
    angle_deg : float
        Angle [deg].

    Returns
    -------
    range
        Rows of the recorded images.
    """
    if angle_deg == 0:
        return rows
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    middle, half = (all_rows - 1) / 2, abs(sine) * (columns - 1) / 2
    first = math.floor((rows.start - middle) * cosine + middle - half) - 1
    last = math.floor((rows.stop - 1 - middle) * cosine + middle + half) + 2
    return range(min(max(first, 0), all_rows - 1), min(max(last, 0), all_rows - 1) + 1)


def turn_images(
    images: NDArray[np.float32],
    angle_deg: float,
    *,
    first_row: int,
    all_rows: int,
    rows: range,
) -> NDArray[np.float32]:
    """Turn images about the middle of the detector, so that a leaning rotation axis stands.

    Values between pixels come from cubic convolution (R. Keys, IEEE Trans. Acoust. Speech Signal
    Process. 29 (1981) 1153, a = -1/2), which needs no pixel but the 4 x 4 around the place; equal
    rows come out equal, bit by bit, however the detector is cut into slabs. Beyond the detector
    its last row or column continues.

    Parameters
    ----------
    images : ndarray of float32
        Some rows of the recorded images, those of `rows_for_turn`, shape ``(n, m, columns)``.
    angle_deg : float
        How far the axis leans: positive where its upper end (towards row 0) lies at higher
        columns than its lower end [deg].
    first_row : int
        Row of the detector that ``images[:, 0]`` is.
    all_rows : int
        Rows of the detector.
    rows : range
        Rows to make.

    Returns
    -------
    ndarray of float32
        Turned images, shape ``(n, len(rows), columns)``.
    """
    if angle_deg == 0:
        return images[:, rows.start - first_row : rows.stop - first_row]
    turned = np.empty((len(images), len(rows), images.shape[2]), np.float32)
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    _turn(np.ascontiguousarray(images), turned, rows.start, first_row, all_rows, cosine, sine)
    return turned


@compiled
def _turn(
    images: Any,
    turned: Any,
    first_made: int,
    first_row: int,
    all_rows: int,
    cosine: float,
    sine: float,
) -> None:
    count, made, columns = turned.shape
    middle_row, middle_column = (all_rows - 1) / 2, (columns - 1) / 2
    across, down = np.empty(4, np.float32), np.empty(4, np.float32)
    for row in range(made):
        height = first_made + row - middle_row
        for column in range(columns):
            width = column - middle_column
            # From the place in the whole detector, so that no slab rounds differently.
            y = height * cosine + width * sine + middle_row
            x = width * cosine - height * sine + middle_column
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            for fraction, weights in ((x - x0, across), (y - y0, down)):
                f2, f3 = fraction * fraction, fraction * fraction * fraction
                weights[0] = -0.5 * f3 + f2 - 0.5 * fraction
                weights[1] = 1.5 * f3 - 2.5 * f2 + 1
                weights[2] = -1.5 * f3 + 2 * f2 + 0.5 * fraction
                weights[3] = 0.5 * f3 - 0.5 * f2
            for number in range(count):
                value = np.float32(0)
                for j in range(4):
                    source = min(max(y0 - 1 + j, 0), all_rows - 1) - first_row
                    line = np.float32(0)
                    for i in range(4):
                        place = min(max(x0 - 1 + i, 0), columns - 1)
                        line += across[i] * images[number, source, place]
                    value += down[j] * line
                turned[number, row, column] = value
