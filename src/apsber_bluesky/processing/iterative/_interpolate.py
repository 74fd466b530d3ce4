"""The transpose of the spreading: samples of 16 slices are read off the grid at once, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import (
    HALF,
    LANES,
    after,
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
from apsber_bluesky.processing.gridding import PLACES, TABLE, TAPS

_SHIFT = (PLACES // TABLE).bit_length() - 1


def _half(builder: Any, value: Any, first: int) -> Any:
    """Eight lanes of a row."""
    nothing = ir.Constant(value.type, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), HALF), list(range(first, first + HALF)))
    return builder.shuffle_vector(value, nothing, lanes)


def _reader(taps: int) -> Any:
    """Make the reading of one sample from ``taps x taps`` cells.

    Its arguments: the samples and the place of this one; the factors and the place of its own,
    whose conjugate is taken; the table of the kernel with, along each axis, the place in it and
    the remainder to the next; the grid, the place of the lowest cell, and the floats from row to
    row.
    """

    @vector_step
    def read(
        typing_context: Any,
        samples: Any,
        sample: Any,
        factors: Any,
        factor: Any,
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
                pointer(context, builder, kinds[k], given[k]) for k in (0, 2, 4, 9)
            )
            # The weights are worked out as for spreading, to the bit: hence an exact transpose.
            across, down = (
                multiply_add(
                    builder,
                    load(builder, table, after(builder, place, HALF)),
                    splat(builder, rest),
                    load(builder, table, place),
                )
                for place, rest in ((given[5], given[6]), (given[7], given[8]))
            )
            across = [lane(builder, across, k, LANES) for k in range(taps)]
            total = ir.Constant(ir.VectorType(ir.FloatType(), LANES), [0.0] * LANES)
            for k in range(taps):
                place = offset(builder, given[10], given[11], k)
                line = builder.fmul(load(builder, grid, place, LANES), across[0])
                for j in range(1, taps):
                    here = after(builder, place, LANES * j)
                    line = multiply_add(builder, load(builder, grid, here, LANES), across[j], line)
                total = multiply_add(builder, line, lane(builder, down, k, LANES), total)
            real, imag = (load_splat(builder, factors, given[3], k) for k in (0, 1))
            value = (_half(builder, total, 0), _half(builder, total, HALF))
            value = times(builder, value, (real, builder.fneg(imag)))
            store(builder, value[0], samples, given[1])
            store(builder, value[1], samples, after(builder, given[1], HALF))
            return context.get_dummy_value()

        arguments = (
            samples, sample, factors, factor, table, x, x_rest, y, y_rest, grid, cell, row
        )  # fmt: skip
        return types.void(*arguments), generate

    return read


_read_4, _read_5, _read_6 = (_reader(taps) for taps in TAPS)


@compiled
def interpolate(
    taps: int, grid: Any, row: int, turn: Any, table: Any, points: Any, period: int, samples: Any
) -> None:
    """Read the samples of some projections off the grid of 16 slices: the transpose of `spread`.

    Parameters
    ----------
    taps : {4, 5, 6}
        Cells that a sample reaches along each axis.
    grid : ndarray of float32
        Stored grid with its margin filled, flat.
    row : int
        Cells from one row of it to the next.
    turn : ndarray of float32
        Factor of each frequency, real and imaginary part by turns, flat; conjugated here.
    table : ndarray of float32
        `GriddingGeometry.table`, flat.
    points : PointArrays
        Sorted points.
    period : int
        Samples of a spectrum.
    samples : ndarray of float32
        Where the spectra go, flat.
    """
    rest = np.float32(1 / (PLACES // TABLE))
    low, high = PLACES // TABLE - 1, _SHIFT
    for p in range(points.cell.size):
        k = np.int64(points.frequency[p])
        sample = LANES * (np.int64(points.projection[p]) * period + k)
        x, y = np.int64(points.x[p]), np.int64(points.y[p])
        across, x_rest = LANES * (x >> high), rest * np.float32(x & low)
        down, y_rest = LANES * (y >> high), rest * np.float32(y & low)
        cell = LANES * np.int64(points.cell[p])
        if taps == 4:
            _read_4(
                samples,
                sample,
                turn,
                2 * k,
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
            _read_5(
                samples,
                sample,
                turn,
                2 * k,
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
            _read_6(
                samples,
                sample,
                turn,
                2 * k,
                table,
                across,
                x_rest,
                down,
                y_rest,
                grid,
                cell,
                LANES * row,
            )
