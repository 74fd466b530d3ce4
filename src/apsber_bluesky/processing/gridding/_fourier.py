"""Fourier transforms of rows of 16 slices, compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled
from apsber_bluesky.processing._vectors import (
    HALF,
    LANES,
    fourier,
    load,
    load_splat,
    offset,
    pointer,
    store,
    times,
    vector_step,
)


@dataclass(frozen=True)
class FourierPlan:
    """How a transform of one length is done: its factors, and the roots of unity of each step.

    Attributes
    ----------
    length : int
        Samples.
    factors : ndarray of int64
        Of 8, 7, 5, 4, 3 and 2, in the order of the steps.
    roots : ndarray of float32
        Real and imaginary parts, in the order in which the steps use them.
    """

    length: int
    factors: NDArray[np.int64]
    roots: NDArray[np.float32]

    @classmethod
    def of(cls, length: int) -> FourierPlan:
        """Plan for a length without prime factors above 7."""
        factors = _factors(length)
        rest, roots = length, [np.zeros(0, np.float32)]
        for factor in factors:
            each = rest // factor
            turns = np.arange(each)[:, None] * np.arange(1, factor)[None, :]
            wave = np.exp(-2j * np.pi * turns / rest).astype(np.complex64)
            roots.append(wave.ravel().view(np.float32))
            rest = each
        return cls(length, np.array(factors, dtype=np.int64), np.concatenate(roots))

    @property
    def parts(self) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
        """Length, factors and roots, as compiled functions take them."""
        return self.length, self.factors, self.roots


def _factors(length: int) -> list[int]:
    factors = []
    for prime in (7, 5, 3):
        while length % prime == 0:
            factors.append(prime)
            length //= prime
    if length & (length - 1):
        raise ValueError(f"a transform has a prime factor above 7: {length} is left")
    # As many eights as leave a rest of fours, or one two.
    twos = length.bit_length() - 1
    while twos:
        step = {1: 1, 2: 2, 4: 2}.get(twos, 3)
        factors.append(1 << step)
        twos -= step
    return factors


def _butterfly(radix: int) -> Any:
    """Make one step of a transform for one group of rows.

    Rows ``source + j * gap`` are transformed, multiplied with the roots and written to rows
    ``target + j * spacing``; all offsets count floats. `re` and `im` say where in a row the real
    and imaginary parts are: exchanged, the transform is the inverse one.
    """

    @vector_step
    def step(
        typing_context: Any,
        rows: Any,
        source: Any,
        gap: Any,
        out: Any,
        target: Any,
        spacing: Any,
        roots: Any,
        root: Any,
        re: Any,
        im: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, source, gap, out, target, spacing, roots, root, re, im = arguments
            address = pointer(context, builder, signature.args[0], rows)
            result = pointer(context, builder, signature.args[3], out)
            table = pointer(context, builder, signature.args[6], roots)
            values = []
            for j in range(radix):
                row = offset(builder, source, gap, j)
                halves = (builder.add(row, re), builder.add(row, im))
                values.append(tuple(load(builder, address, half) for half in halves))
            turns = [
                tuple(load_splat(builder, table, root, j + k) for k in (0, 1))
                for j in range(0, 2 * (radix - 1), 2)
            ]
            values = fourier(builder, values)
            for j, value in enumerate(values):
                turned = times(builder, value, turns[j - 1]) if j else value
                row = offset(builder, target, spacing, j)
                store(builder, turned[0], result, builder.add(row, re))
                store(builder, turned[1], result, builder.add(row, im))
            return context.get_dummy_value()

        arguments = (rows, source, gap, out, target, spacing, roots, root, re, im)
        return types.void(*arguments), generate

    return step


_by_2, _by_3, _by_4, _by_5, _by_7, _by_8 = (_butterfly(radix) for radix in (2, 3, 4, 5, 7, 8))


@compiled
def _step(
    rows: Any, out: Any, radix: int, each: int, stride: int, roots: Any, root: int, re: int, im: int
) -> None:
    gap, spacing = LANES * stride * each, LANES * stride
    for p in range(each):
        w = root + 2 * (radix - 1) * p
        for q in range(stride):
            source, target = LANES * (q + stride * p), LANES * (q + stride * radix * p)
            if radix == 8:
                _by_8(rows, source, gap, out, target, spacing, roots, w, re, im)
            elif radix == 4:
                _by_4(rows, source, gap, out, target, spacing, roots, w, re, im)
            elif radix == 5:
                _by_5(rows, source, gap, out, target, spacing, roots, w, re, im)
            elif radix == 7:
                _by_7(rows, source, gap, out, target, spacing, roots, w, re, im)
            elif radix == 3:
                _by_3(rows, source, gap, out, target, spacing, roots, w, re, im)
            else:
                _by_2(rows, source, gap, out, target, spacing, roots, w, re, im)


@compiled
def transform(rows: Any, spare: Any, length: int, factors: Any, roots: Any, inverse: bool) -> bool:
    """Transform `length` rows of 16 floats, unnormalised; both arrays are overwritten.

    Stockham's algorithm, which needs no bit reversal and reads and writes whole rows (P. N.
    Swarztrauber, Parallel Computing 5 (1987) 197).

    Returns
    -------
    bool
        Whether the result is in `spare` rather than in `rows`.
    """
    re, im = (HALF, 0) if inverse else (0, HALF)
    stride, root, moved = 1, 0, False
    rest = length
    for radix in factors:
        each = rest // radix
        if moved:
            _step(spare, rows, radix, each, stride, roots, root, re, im)
        else:
            _step(rows, spare, radix, each, stride, roots, root, re, im)
        root += 2 * (radix - 1) * each
        rest = each
        stride *= radix
        moved = not moved
    return moved
