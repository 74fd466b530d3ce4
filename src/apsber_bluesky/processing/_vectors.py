"""Rows of 16 floats as vectors of the processor: what the compiled kernels are written with.

A row holds one sample of 16 slices: 8 complex numbers, the real parts first, then the imaginary
parts. LLVM keeps such a row in one or two registers, whatever the width of the processor's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import extending

LANES = 16
"""Floats of a row: slices that are reconstructed at once."""

HALF = LANES // 2

vector_step = cast("Callable[[Callable[..., Any]], Any]", extending.intrinsic)
"""Makes a function that compiled functions call from one that writes its instructions."""

Complex = tuple[Any, Any]
"""Real and imaginary part of 8 numbers, each a vector."""

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(32)
# A product and a sum may be rounded as one; nothing is reordered.
_FUSED = ("contract",)


def pointer(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Address of the first element of an array argument of an intrinsic."""
    return context.make_array(kind)(context, builder, array).data


def offset(builder: Any, base: Any, step: Any, times: int) -> Any:
    """``base + times * step``."""
    return builder.add(base, builder.mul(step, ir.Constant(step.type, times)))


def after(builder: Any, base: Any, number: int) -> Any:
    """``base + number``."""
    return builder.add(base, ir.Constant(base.type, number))


def load(builder: Any, address: Any, index: Any, lanes: int = HALF) -> Any:
    """Floats ``index`` to ``index + lanes`` of an array."""
    place = builder.gep(address, [index])
    kind = ir.VectorType(_FLOAT, lanes).as_pointer()
    return builder.load(builder.bitcast(place, kind), align=4)


def store(builder: Any, value: Any, address: Any, index: Any) -> None:
    """Write a vector at floats ``index`` and on of an array."""
    place = builder.gep(address, [index])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4)


def splat(builder: Any, number: Any, lanes: int = HALF) -> Any:
    """Vector of the same number in all lanes."""
    nothing = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(one, nothing, _indices([0] * lanes))


def load_splat(builder: Any, address: Any, index: Any, times: int, lanes: int = HALF) -> Any:
    """Float ``index + times`` of an array in all lanes."""
    place = after(builder, index, times)
    return splat(builder, builder.load(builder.gep(address, [place])), lanes)


def lane(builder: Any, value: Any, number: int, lanes: int) -> Any:
    """One lane of a vector in all lanes of another."""
    nothing = ir.Constant(value.type, ir.Undefined)
    return builder.shuffle_vector(value, nothing, _indices([number] * lanes))


def join(builder: Any, first: Any, second: Any) -> Any:
    """Two vectors as one of twice the width."""
    return builder.shuffle_vector(first, second, _indices(range(2 * first.type.count)))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``."""
    return builder.fadd(builder.fmul(a, b, _FUSED), c, _FUSED)


def times(builder: Any, x: Complex, w: Complex) -> Complex:
    """Complex product."""
    real = builder.fsub(builder.fmul(x[0], w[0], _FUSED), builder.fmul(x[1], w[1], _FUSED), _FUSED)
    imag = builder.fadd(builder.fmul(x[0], w[1], _FUSED), builder.fmul(x[1], w[0], _FUSED), _FUSED)
    return real, imag


def transposed(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Turn 16 vectors of 16 floats into the 16 vectors of their first, second ... floats.

    Blocks are exchanged across the diagonal, of 8 x 8 floats first and of single ones last (J. O.
    Eklundh, IEEE Trans. Comput. C-21 (1972) 801).
    """
    result, block = list(rows), LANES // 2
    while block:
        upper = [k + LANES - block if k & block else k for k in range(LANES)]
        lower = [k + LANES if k & block else k + block for k in range(LANES)]
        for k in range(LANES):
            if not k & block:
                a, b = result[k], result[k + block]
                result[k] = builder.shuffle_vector(a, b, _indices(upper))
                result[k + block] = builder.shuffle_vector(a, b, _indices(lower))
        block //= 2
    return result


def fourier(builder: Any, values: Sequence[Complex]) -> list[Complex]:
    """Fourier transform, ``exp(-2 pi i j k / n)``, of 2, 4, 8 or an odd number of values."""
    arithmetic = _Arithmetic(builder)
    special = {2: arithmetic.two, 4: arithmetic.four, 8: arithmetic.eight}
    return special.get(len(values), arithmetic.odd)(list(values))


class _Arithmetic:
    """Small Fourier transforms, written for one builder of instructions."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def two(self, v: list[Complex]) -> list[Complex]:
        return [self._add(v[0], v[1]), self._subtract(v[0], v[1])]

    def four(self, v: list[Complex]) -> list[Complex]:
        a, b = self.two([v[0], v[2]])
        c, d = self.two([v[1], v[3]])
        d = self._quarter(d)
        return [self._add(a, c), self._add(b, d), self._subtract(a, c), self._subtract(b, d)]

    def eight(self, v: list[Complex]) -> list[Complex]:
        even, odd = self.four(v[0::2]), self.four(v[1::2])
        root = math.sqrt(0.5)
        (re1, im1), (re3, im3) = odd[1], odd[3]
        b = self._builder
        odd[1] = self._scale((b.fadd(re1, im1, _FUSED), b.fsub(im1, re1, _FUSED)), root)
        odd[2] = self._quarter(odd[2])
        odd[3] = self._scale((b.fsub(im3, re3, _FUSED), b.fneg(b.fadd(re3, im3, _FUSED))), root)
        return [
            self._map(combine, e, o)
            for combine in (b.fadd, b.fsub)
            for e, o in zip(even, odd, strict=True)
        ]

    def odd(self, v: list[Complex]) -> list[Complex]:
        n = len(v)
        sums = [self._add(v[j], v[n - j]) for j in range(1, n // 2 + 1)]
        turned = [self._quarter(self._subtract(v[j], v[n - j])) for j in range(1, n // 2 + 1)]
        result = list(v)
        for total in sums:
            result[0] = self._add(result[0], total)
        for k in range(1, n // 2 + 1):
            waves = [2 * math.pi * j * k / n for j in range(1, n // 2 + 1)]
            even, odd = v[0], self._scale(turned[0], math.sin(waves[0]))
            for total, wave in zip(sums, waves, strict=True):
                even = self._add(even, self._scale(total, math.cos(wave)))
            for difference, wave in zip(turned[1:], waves[1:], strict=True):
                odd = self._add(odd, self._scale(difference, math.sin(wave)))
            result[k], result[n - k] = self._add(even, odd), self._subtract(even, odd)
        return result

    def _map(self, combine: Callable[..., Any], x: Complex, y: Complex) -> Complex:
        return combine(x[0], y[0], _FUSED), combine(x[1], y[1], _FUSED)

    def _add(self, x: Complex, y: Complex) -> Complex:
        return self._map(self._builder.fadd, x, y)

    def _subtract(self, x: Complex, y: Complex) -> Complex:
        return self._map(self._builder.fsub, x, y)

    def _quarter(self, x: Complex) -> Complex:
        """The product with -i."""
        return x[1], self._builder.fneg(x[0])

    def _scale(self, x: Complex, factor: float) -> Complex:
        same = ir.Constant(x[0].type, [float(np.float32(factor))] * x[0].type.count)
        return self._builder.fmul(x[0], same, _FUSED), self._builder.fmul(x[1], same, _FUSED)


def _indices(numbers: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_INDEX, len(numbers)), list(numbers))
