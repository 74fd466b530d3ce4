"""The bands of a wavelet decomposition that hold what changes fast across columns."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOMENTS = 5


@functools.cache
def wavelet_filters(moments: int = _MOMENTS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low-pass and high-pass of Daubechies' wavelet with so many vanishing moments.

    They are computed by spectral factorisation (I. Daubechies, Comm. Pure Appl. Math. 41 (1988)
    909).

    Returns
    -------
    low, high : ndarray of float32
        Orthonormal filters, shape ``(2 * moments,)``.
    """
    terms = [math.comb(moments - 1 + k, k) for k in range(moments)]
    inside = []
    for y in np.roots(terms[::-1]):
        # Of the two z with z + 1/z = 2 - 4y the one within the unit circle gives least phase.
        pair = np.roots([1, 4 * y - 2, 1])
        inside.append(pair[np.argmin(np.abs(pair))])
    low = np.poly([-1] * moments + inside).real
    low *= math.sqrt(2) / low.sum()
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    return low.astype(np.float32), high.astype(np.float32)


def decompose(
    xp: Any, image: Any, filters: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> tuple[Any, Any]:
    """One scale of a periodic image: what is slow both ways, and what is fast across columns.

    Parameters
    ----------
    xp : module
        NumPy or CuPy.
    image : array of float32
        Shape ``(n, columns)``, both even and at least as long as a filter.
    filters : tuple of ndarray
        Low-pass and high-pass.

    Returns
    -------
    slow, across : array of float32
        Shape ``(n / 2, columns / 2)``; both are low-passed along the first axis.
    """
    low, high = filters
    slow = _halve(xp, image, low, axis=0)
    return _halve(xp, slow, low, axis=1), _halve(xp, slow, high, axis=1)


def recompose(
    xp: Any, slow: Any, across: Any, filters: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> Any:
    """The image that `decompose` takes to these two bands, and to zero in the others."""
    low, high = filters
    columns = _double(xp, slow, low, axis=1) + _double(xp, across, high, axis=1)
    return _double(xp, columns, low, axis=0)


def _part(axis: int, *bounds: int | None) -> tuple[slice, slice]:
    return (slice(*bounds), slice(None)) if axis == 0 else (slice(None), slice(*bounds))


def _halve(xp: Any, image: Any, taps: NDArray[np.float32], axis: int) -> Any:
    length = image.shape[axis]
    wrapped = xp.concatenate([image, image[_part(axis, len(taps))]], axis=axis)
    result = float(taps[0]) * wrapped[_part(axis, 0, length, 2)]
    for k in range(1, len(taps)):
        result += float(taps[k]) * wrapped[_part(axis, k, k + length, 2)]
    return result


def _double(xp: Any, band: Any, taps: NDArray[np.float32], axis: int) -> Any:
    length, reach = band.shape[axis], len(taps) // 2
    wrapped = xp.concatenate([band[_part(axis, -reach, None)], band], axis=axis)
    shape = list(band.shape)
    shape[axis] *= 2
    result = xp.zeros(shape, dtype=np.float32)
    for k in range(len(taps)):
        behind = reach - k // 2
        result[_part(axis, k % 2, None, 2)] += (
            float(taps[k]) * wrapped[_part(axis, behind, behind + length)]
        )
    return result
