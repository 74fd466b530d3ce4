"""Denoising by total variation of 16 slices at a time, compiled.

Images are flat arrays of ``columns x columns x 16`` floats. The inner steps are written in vectors
of 16 floats, since no compiler proves that so many arrays do not overlap.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import (
    LANES,
    load,
    multiply_add,
    pointer,
    splat,
    store,
    vector_step,
)
from apsber_bluesky.processing.iterative._projector_stages import half_chord

_ROW = ir.VectorType(ir.FloatType(), LANES)
_ROOT = f"llvm.sqrt.v{LANES}f32"


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@vector_step
def _primal_pixel(
    typing_context: Any,
    v: Any,
    weight: Any,
    along: Any,
    down: Any,
    place: Any,
    left: Any,
    above: Any,
    least: Any,
    out: Any,
    target: Any,
) -> Any:
    """``max(v + weight * divergence, least)`` of 16 slices at one pixel.

    `left` and `above` are the factors, 0 or 1, of the dual field before the pixel, and `place`
    is where the pixel is; where there is nothing before it the factor is 0.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, given = signature.args, arguments
        v, along, down, out = (pointer(context, builder, kinds[k], given[k]) for k in (0, 2, 3, 8))
        place = given[4]
        change = builder.fadd(load(builder, along, place, LANES), load(builder, down, place, LANES))
        change = builder.fsub(change, load(builder, along, given[5], LANES))
        change = builder.fsub(change, load(builder, down, given[6], LANES))
        value = multiply_add(
            builder, splat(builder, given[1], LANES), change, load(builder, v, place, LANES)
        )
        store(builder, _larger(builder, value, splat(builder, given[7], LANES)), out, given[9])
        return context.get_dummy_value()

    arguments = (v, weight, along, down, place, left, above, least, out, target)
    return types.void(*arguments), generate


@vector_step
def _dual_pixel(
    typing_context: Any,
    here: Any,
    at: Any,
    right: Any,
    below: Any,
    rate: Any,
    momentum: Any,
    along: Any,
    down: Any,
    along_old: Any,
    down_old: Any,
    place: Any,
) -> Any:
    """Step of the dual field of 16 slices at one pixel; see `dual_step`.

    The image is at floats `at` and, to the right of it, `right` of its row `here`, and at `at` of
    the row `below`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, given = signature.args, arguments
        here, below = (pointer(context, builder, kinds[k], given[k]) for k in (0, 3))
        fields = [pointer(context, builder, kinds[k], given[k]) for k in (6, 7, 8, 9)]
        rate, momentum = (splat(builder, given[k], LANES) for k in (4, 5))
        place, value = given[10], load(builder, here, given[1], LANES)
        neighbours = (load(builder, here, given[2], LANES), load(builder, below, given[1], LANES))
        stepped = [
            multiply_add(
                builder, rate, builder.fsub(beyond, value), load(builder, field, place, LANES)
            )
            for beyond, field in zip(neighbours, fields[:2], strict=True)
        ]
        squares = builder.fmul(stepped[0], stepped[0])
        squares = multiply_add(builder, stepped[1], stepped[1], squares)
        one = ir.Constant(_ROW, [1.0] * LANES)
        root = builder.module.globals.get(_ROOT) or ir.Function(
            builder.module, ir.FunctionType(_ROW, [_ROW]), _ROOT
        )
        length = builder.call(root, [_larger(builder, squares, one)])
        scale = builder.fdiv(one, length)
        for k in (0, 1):
            new = builder.fmul(stepped[k], scale)
            old = load(builder, fields[2 + k], place, LANES)
            beyond = multiply_add(builder, momentum, builder.fsub(new, old), new)
            store(builder, beyond, fields[k], place)
            store(builder, new, fields[2 + k], place)
        return context.get_dummy_value()

    arguments = (
        here, at, right, below, rate, momentum, along, down, along_old, down_old, place
    )  # fmt: skip
    return types.void(*arguments), generate


@compiled
def _primal_row(
    v: Any,
    weight: Any,
    along: Any,
    down: Any,
    j: int,
    columns: int,
    radius: float,
    least: Any,
    nothing: int,
    out: Any,
    start: int,
) -> None:
    """Row `j` of ``v + weight * divergence``, brought into the set of images that are allowed.

    The dual fields are 0 at float `nothing` and on, which stands for what is before an edge.
    """
    length, row = LANES * columns, LANES * columns * j
    half = columns // 2
    width = half_chord(radius, j - half, half, columns)
    first, last = max(0, half - width), min(columns, half + width + 1)
    if width < 0:
        first = last = columns
    out[start : start + LANES * first] = 0
    out[start + LANES * last : start + length] = 0
    for i in range(first, last):
        place = row + LANES * i
        left = place - LANES if i > 0 else nothing
        above = place - length if j > 0 else nothing
        _primal_pixel(v, weight, along, down, place, left, above, least, out, start + LANES * i)


@compiled
def dual_step(
    v: Any,
    weight: Any,
    rate: Any,
    momentum: Any,
    columns: int,
    radius: float,
    least: Any,
    along: Any,
    down: Any,
    along_old: Any,
    down_old: Any,
    here: Any,
    below: Any,
) -> None:
    """One step of the fast gradient projection on the dual field, in place.

    A. Beck and M. Teboulle, IEEE Trans. Image Process. 18 (2009) 2419. A row of the image is made
    just before its dual field changes, so the image itself is never stored.

    Parameters
    ----------
    v : ndarray of float32
        Image to be denoised.
    weight, rate : float32
        Weight of the total variation, and ``1 / (8 weight)``.
    momentum : float32
        How far to go beyond.
    columns : int
        Size of the image.
    radius : float
        Pixels farther from the axis are 0.
    least : float32
        Smallest value that is allowed.
    along, down : ndarray of float32
        Dual field that the step starts from, and is extrapolated into; 16 floats more than an
        image, which are 0.
    along_old, down_old : ndarray of float32
        Dual field after the last step, and after this one.
    here, below : ndarray of float32
        Working memory, a row each.
    """
    length = LANES * columns
    nothing = length * columns
    _primal_row(v, weight, along, down, 0, columns, radius, least, nothing, here, 0)
    for j in range(columns):
        row = length * j
        if j + 1 < columns:
            _primal_row(v, weight, along, down, j + 1, columns, radius, least, nothing, below, 0)
        else:
            below[:] = here
        for at in range(0, length, LANES):
            right = at + LANES if at + LANES < length else at
            _dual_pixel(
                here, at, right, below, rate, momentum, along, down, along_old, down_old, row + at
            )
        here, below = below, here


@compiled
def primal(
    v: Any, weight: Any, along: Any, down: Any, columns: int, radius: float, least: Any, out: Any
) -> None:
    """Image that belongs to a dual field: ``v + weight * divergence``, where it is allowed."""
    length = LANES * columns
    for j in range(columns):
        start = length * j
        _primal_row(v, weight, along, down, j, columns, radius, least, length * columns, out, start)
