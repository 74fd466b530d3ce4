"""Between images in rows of pixels and arrays in rows of 16 slices, compiled."""

from __future__ import annotations

from typing import Any

from numba import types

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import (
    LANES,
    load,
    offset,
    pointer,
    splat,
    store,
    transposed,
    vector_step,
)


@vector_step
def _turn_block(
    typing_context: Any, rows: Any, source: Any, gap: Any, out: Any, target: Any, spacing: Any
) -> Any:
    """Transpose 16 x 16 floats; rows are `gap` and `spacing` floats apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, source, gap, out, target, spacing = arguments
        address = pointer(context, builder, signature.args[0], rows)
        result = pointer(context, builder, signature.args[3], out)
        values = [
            load(builder, address, offset(builder, source, gap, k), LANES) for k in range(LANES)
        ]
        for k, value in enumerate(transposed(builder, values)):
            store(builder, value, result, offset(builder, target, spacing, k))
        return context.get_dummy_value()

    return types.void(rows, source, gap, out, target, spacing), generate


@vector_step
def copy_row(typing_context: Any, rows: Any, source: Any, out: Any, target: Any) -> Any:
    """Copy the row of 16 floats at float `source` to float `target` of another array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, source, out, target = arguments
        value = load(builder, pointer(context, builder, signature.args[0], rows), source, LANES)
        store(builder, value, pointer(context, builder, signature.args[2], out), target)
        return context.get_dummy_value()

    return types.void(rows, source, out, target), generate


@vector_step
def add_row(typing_context: Any, rows: Any, source: Any, out: Any, target: Any) -> Any:
    """Add the row of 16 floats at float `source` to that at float `target` of another array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, source, out, target = arguments
        address = pointer(context, builder, signature.args[2], out)
        value = load(builder, pointer(context, builder, signature.args[0], rows), source, LANES)
        before = load(builder, address, target, LANES)
        store(builder, builder.fadd(before, value), address, target)
        return context.get_dummy_value()

    return types.void(rows, source, out, target), generate


@vector_step
def scale_row(typing_context: Any, rows: Any, place: Any, factor: Any) -> Any:
    """Multiply the row of 16 floats at float `place`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, place, factor = arguments
        address = pointer(context, builder, signature.args[0], rows)
        value = load(builder, address, place, LANES)
        product = builder.fmul(value, splat(builder, factor, LANES))
        store(builder, product, address, place)
        return context.get_dummy_value()

    return types.void(rows, place, factor), generate


@compiled
def gather_rows(image: Any, first: int, rows: int, columns: int, out: Any) -> None:
    """Write up to 16 rows of an image as rows of 16 slices; slices beyond are 0.

    Parameters
    ----------
    image : ndarray of float32
        Flat; the rows start at float `first`.
    first : int
        Where they start.
    rows : int
        How many there are.
    columns : int
        Pixels of each.
    out : ndarray of float32
        Flat, at least ``16 * columns`` floats.
    """
    whole = columns - columns % LANES if rows == LANES else 0
    for column in range(0, whole, LANES):
        _turn_block(image, first + column, columns, out, LANES * column, LANES)
    for column in range(whole, columns):
        for row in range(rows):
            out[LANES * column + row] = image[first + row * columns + column]
        for row in range(rows, LANES):
            out[LANES * column + row] = 0


@compiled
def scatter_rows(
    rows: Any, source: int, columns: int, out: Any, targets: Any, place: int, together: int
) -> None:
    """Write rows of 16 slices as rows of pixels.

    Parameters
    ----------
    rows : ndarray of float32
        Flat; the first is at float `source`.
    source : int
        Where they start.
    columns : int
        Pixels to write.
    out : ndarray of float32
        Flat images.
    targets : ndarray of int64
        Where in `out` each of the 16 slices starts; -1 for one that nobody wants.
    place : int
        Where in each of them the pixels start.
    together : int
        Floats from each slice to the next if all are wanted and evenly spaced, else 0.
    """
    whole = columns - columns % LANES if together else 0
    for column in range(0, whole, LANES):
        _turn_block(
            rows, source + LANES * column, LANES, out, targets[0] + place + column, together
        )
    for slice_ in range(LANES):
        target = targets[slice_]
        if target >= 0:
            for column in range(whole, columns):
                out[target + place + column] = rows[source + LANES * column + slice_]
