"""The step that makes the engine: samples of 16 slices are added to the grid at once, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import (
    HALF,
    LANES,
    after,
    join,
    lane,
    load,
    load_splat,
    multiply_add,
    offset,
    pointer,
    splat,
    store,
    times,
    vector_step,
)
from apsber_bluesky.processing.gridding._points import PLACES

TAPS = (4, 5, 6)
"""Widths of the kernel that there are."""

TABLE = 256
"""Places between two cells of the grid for which the kernel is tabulated."""

_SHIFT = (PLACES // TABLE).bit_length() - 1


def _adder(taps: int) -> Any:
    """Make the addition of one sample to ``taps x taps`` cells.

    Its arguments: the samples and the place of this one; the factors and the place of its own;
    its weight; the table of the kernel with, along each axis, the place in it and the remainder
    to the next; the grid, the place of the lowest cell, and the floats from row to row.
    """

    @vector_step
    def add(
        typing_context: Any,
        samples: Any,
        sample: Any,
        factors: Any,
        factor: Any,
        weight: Any,
        table: Any,
        x: Any,
        x_rest: Any,
        y: Any,
        y_rest: Any,
        grid: Any,
        cell: Any,
        row: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds, given = signature.args, arguments
            samples, factors, table, grid = (
                pointer(context, builder, kinds[k], given[k]) for k in (0, 2, 5, 10)
            )
            imag = after(builder, given[1], HALF)
            value = (load(builder, samples, given[1]), load(builder, samples, imag))
            weight = splat(builder, given[4])
            turn = tuple(
                builder.fmul(load_splat(builder, factors, given[3], k), weight) for k in (0, 1)
            )
            both = join(builder, *times(builder, value, turn))
            across, down = (
                multiply_add(
                    builder,
                    load(builder, table, after(builder, place, HALF)),
                    splat(builder, rest),
                    load(builder, table, place),
                )
                for place, rest in ((given[6], given[7]), (given[8], given[9]))
            )
            across = [lane(builder, across, k, LANES) for k in range(taps)]
            for k in range(taps):
                weighted = builder.fmul(both, lane(builder, down, k, LANES))
                place = offset(builder, given[11], given[12], k)
                for j in range(taps):
                    here = after(builder, place, LANES * j)
                    before = load(builder, grid, here, LANES)
                    store(builder, multiply_add(builder, weighted, across[j], before), grid, here)
            return context.get_dummy_value()

        arguments = (
            samples,
            sample,
            factors,
            factor,
            weight,
            table,
            x,
            x_rest,
            y,
            y_rest,
            grid,
            cell,
            row,
        )
        return types.void(*arguments), generate

    return add


_add_4, _add_5, _add_6 = (_adder(taps) for taps in TAPS)


@compiled
def spread(
    taps: int,
    samples: Any,
    first: int,
    period: int,
    weights: Any,
    turn: Any,
    table: Any,
    points: Any,
    grid: Any,
    row: int,
) -> None:
    """Add the samples of some projections to the grid of 16 slices.

    Parameters
    ----------
    taps : {4, 5, 6}
        Cells that a sample reaches along each axis.
    samples : ndarray of float32
        Spectra, flat; those of these projections start at float `first`.
    first : int
        Where they start.
    period : int
        Samples of a spectrum.
    weights : ndarray of float32
        Weight of each projection; one of weight 0 is passed over.
    turn : ndarray of float32
        Factor of each frequency, real and imaginary part by turns, flat.
    table : ndarray of float32
        `GriddingGeometry.table`, flat.
    points : PointArrays
        Sorted points.
    grid : ndarray of float32
        Stored grid, flat.
    row : int
        Cells from one row of it to the next.
    """
    rest = np.float32(1 / (PLACES // TABLE))
    low, high = PLACES // TABLE - 1, _SHIFT
    for p in range(points.cell.size):
        weight = weights[points.projection[p]]
        if weight == 0:
            continue
        k = np.int64(points.frequency[p])
        sample = first + LANES * (np.int64(points.projection[p]) * period + k)
        x, y = np.int64(points.x[p]), np.int64(points.y[p])
        across, x_rest = LANES * (x >> high), rest * np.float32(x & low)
        down, y_rest = LANES * (y >> high), rest * np.float32(y & low)
        cell = LANES * np.int64(points.cell[p])
        if taps == 4:
            _add_4(
                samples,
                sample,
                turn,
                2 * k,
                weight,
                table,
                across,
                x_rest,
                down,
                y_rest,
                grid,
                cell,
                LANES * row,
            )
        elif taps == 5:
            _add_5(
                samples,
                sample,
                turn,
                2 * k,
                weight,
                table,
                across,
                x_rest,
                down,
                y_rest,
                grid,
                cell,
                LANES * row,
            )
        else:
            _add_6(
                samples,
                sample,
                turn,
                2 * k,
                weight,
                table,
                across,
                x_rest,
                down,
                y_rest,
                grid,
                cell,
                LANES * row,
            )
