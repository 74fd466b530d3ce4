"""Direct back-projection into planes, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from apsber_bluesky.processing._compiled import compiled


@compiled
def back_project(
    lines: Any, starts: Any, slopes: Any, weights: Any, spans: Any, plane: Any
) -> None:
    """Add projections to the rows of a plane, one after the other.

    Pixel ``i`` of row ``r`` lies at place ``starts[p, r] + slopes[p] * i`` of the line that
    projection ``p`` has for the row; between samples the line is straight.

    Parameters
    ----------
    lines : ndarray of float32
        Filtered rows, shape ``(projections, rows, samples)``, or ``(projections, 1, samples)``
        where all rows of the plane see the same line.
    starts : ndarray of float64
        Place of pixel 0, shape ``(projections, rows)``.
    slopes : ndarray of float64
        Step from pixel to pixel, shape ``(projections,)``.
    weights : ndarray of float32
        Weight of each projection, shape ``(projections,)``.
    spans : ndarray of int64
        First pixel and the one after the last that every projection sees, shape ``(rows, 2)``.
    plane : ndarray of float32
        The sum, shape ``(rows, pixels)``.
    """
    shared = lines.shape[1] == 1
    for row in range(plane.shape[0]):
        begin, end = spans[row, 0], spans[row, 1]
        target = plane[row]
        for number in range(lines.shape[0]):
            line = lines[number, 0 if shared else row]
            weight = weights[number]
            start, slope = np.float32(starts[number, row]), np.float32(slopes[number])
            for pixel in range(begin, end):
                place = start + slope * np.float32(pixel)
                # Unsigned, for a place that may be negative would have to be asked about.
                sample = np.uint32(np.int32(place))
                low = line[sample]
                part = place - np.float32(np.int32(place))
                target[pixel] += weight * (low + part * (line[sample + np.uint32(1)] - low))
