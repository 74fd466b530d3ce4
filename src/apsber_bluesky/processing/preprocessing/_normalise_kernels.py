"""Normalisation in one pass over a frame, with a logarithm that vectorises."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._compiled import compiled

_ROOT_HALF_BITS, _MANTISSA_BITS = np.int32(0x3F3504F3), np.int32(0x007FFFFF)
_EXPONENT_BITS = np.int32(0x7F800000)
_SHIFT, _ONE = np.int32(23), np.float32(1)
# Rounded to float32 it is good to 3e-9, so that 14 of it, the most there are, still are to 3e-8.
_MINUS_LOG2 = np.float32(-0.6931471805599453)
# -log(1 + f) = f (c0 + c1 f + ...) for 1 + f in [sqrt(1/2), sqrt(2)), with the least largest
# error, 4e-8 (Lawson's iteration; J. R. Rice and K. H. Usow, Math. Comp. 22 (1968) 118).
_C0, _C1 = np.float32(-0.999999821), np.float32(0.500006676)
_C2, _C3 = np.float32(-0.333361834), np.float32(0.249593437)
_C4, _C5 = np.float32(-0.198730469), np.float32(0.173334658)
_C6, _C7 = np.float32(-0.164199904), np.float32(0.10102237)


@numba.njit(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _minus_log(x: Any) -> Any:
    """``-log(x)`` of a positive float32 that is not subnormal, to 1e-7 of itself or of 1."""
    bits = np.float32(x).view(np.int32) - _ROOT_HALF_BITS
    exponent = bits >> _SHIFT
    f = np.int32((bits & _MANTISSA_BITS) + _ROOT_HALF_BITS).view(np.float32) - _ONE
    y = (_C7 * f + _C6) * f + _C5
    y = ((y * f + _C4) * f + _C3) * f + _C2
    y = ((y * f + _C1) * f + _C0) * f
    return np.float32(exponent) * _MINUS_LOG2 + y


@compiled
def lines_of_counts(
    frame: NDArray[Any],
    dark: NDArray[np.float32],
    scale: NDArray[np.float32],
    minimum: np.float32,
    out: NDArray[np.float32],
) -> None:
    """``-log(max((frame - dark) * scale, minimum))`` of flattened whole-number counts."""
    for i in range(out.size):
        x = (np.float32(frame[i]) - dark[i]) * scale[i]
        out[i] = _minus_log(x if x > minimum else minimum)


@compiled
def lines_in_place(
    frame: NDArray[np.float32],
    dark: NDArray[np.float32],
    scale: NDArray[np.float32],
    minimum: np.float32,
) -> int:
    """The same of float32 counts in their place; how many of them were not finite."""
    wrong = 0
    for i in range(frame.size):
        count = frame[i]
        bits = np.float32(count).view(np.int32)
        wrong += (bits & _EXPONENT_BITS) == _EXPONENT_BITS
        x = (count - dark[i]) * scale[i]
        frame[i] = _minus_log(x if x > minimum else minimum)
    return wrong


@compiled
def lines_between_flats(
    frame: NDArray[np.float32],
    dark: NDArray[np.float32],
    gain: NDArray[np.float32],
    next_gain: NDArray[np.float32],
    weight: np.float32,
    minimum: np.float32,
) -> int:
    """As `lines_in_place`, with a gain between two: ``gain + weight * (next_gain - gain)``."""
    wrong = 0
    for i in range(frame.size):
        count = frame[i]
        bits = np.float32(count).view(np.int32)
        wrong += (bits & _EXPONENT_BITS) == _EXPONENT_BITS
        here = gain[i] + weight * (next_gain[i] - gain[i])
        x = (count - dark[i]) / here
        frame[i] = _minus_log(x if x > minimum else minimum)
    return wrong
