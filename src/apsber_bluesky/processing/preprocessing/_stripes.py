"""Stripes of a sinogram, which become rings of a slice."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._arrays import array_namespace
from apsber_bluesky.processing.preprocessing._wavelets import decompose, recompose, wavelet_filters

_GROUPS = 64
_BYTE = 256


def remove_stripes_by_sorting(projections: NDArray[np.float32], *, size: int = 15) -> None:
    """Remove stripes by comparing what equal ranks of neighbouring columns show; in place.

    A detector column that answers a little too much or too little, also if that depends on the
    brightness, shows the same distribution of values as its neighbours, only shifted. Each column
    of a sinogram is sorted, values of equal rank are smoothed across columns by a median, and each
    value is moved by what the smoothing did to its rank (N. T. Vo, R. C. Atwood and
    M. Drakopoulos, Optics Express 26 (2018) 28396, algorithm 3). Unlike there, not each rank is
    smoothed, but the means of up to 64 groups of ranks, and the shift is interpolated between
    them: this leaves fine structure alone and costs a tenth.

    Parameters
    ----------
    projections : ndarray of float32
        All line integrals of some rows, shape ``(n, rows, columns)``; on a GPU if it is a CuPy
        array.
    size : int
        Columns that the median looks at, odd; more than twice the width of the widest stripe.

    Raises
    ------
    InputError
        If `projections` is not float32 of that shape, or the size is not odd and at least 3.
    """
    _check(projections)
    if size < 3 or size % 2 == 0:
        raise InputError(f"size is {size}; give an odd number of columns, at least 3")
    xp = array_namespace(projections)
    if projections.size == 0:
        return
    starts, group, weight = _groups(projections.shape[0])
    if xp is not np:
        _sort_on_arrays(xp, projections, size, (starts, group, weight))
        return
    from apsber_bluesky.processing.preprocessing import _stripes_kernels as kernels

    count, rows, width = projections.shape
    columns = np.empty((width, count), np.float32)
    order = np.empty((width, count), np.int32)
    work = np.empty((4, max(count, _BYTE)), np.int32)
    means, steps = (np.empty((len(starts) - 1, width), np.float32) for _ in range(2))
    for row in range(rows):
        sinogram = projections[:, row]
        kernels.transpose(sinogram, columns)
        kernels.rank_columns(columns, starts, order, means, work)
        kernels.smoothing_step(means, size, steps)
        kernels.add_by_rank(columns, order, steps, group, weight)
        kernels.transpose(columns, sinogram)


def remove_stripes_by_wavelet(
    projections: NDArray[np.float32], *, sigma: float = 1.0, levels: int = 3
) -> None:
    """Remove stripes by damping what does not change with the angle; in place.

    The sinogram is decomposed into wavelets. Of the bands that change fast across columns and
    slowly along angles, the lowest frequencies along angles are damped by a Gaussian notch
    (B. Muench, P. Trtik, F. Marone and M. Stampanoni, Optics Express 17 (2009) 8567).

    Parameters
    ----------
    projections : ndarray of float32
        All line integrals of some rows, shape ``(n, rows, columns)``, in the order of their
        angles; on a GPU if it is a CuPy array.
    sigma : float
        Width of the notch [cycles per length of the sinogram]; wider removes shorter stripes, and
        more of the object.
    levels : int
        Scales of the decomposition: stripes of up to about ``2**levels`` columns are removed.

    Raises
    ------
    InputError
        If `projections` is not float32 of that shape, or `sigma` or `levels` is not positive.
    """
    _check(projections)
    if not 0 < sigma < np.inf:
        raise InputError(f"sigma is {sigma}; give a positive number")
    if levels < 1:
        raise InputError(f"levels is {levels}; give at least 1")
    if projections.size == 0:
        return
    xp = array_namespace(projections)
    for row in range(projections.shape[1]):
        _damp(xp, projections[:, row], sigma, levels)


def _check(projections: NDArray[np.float32]) -> None:
    if projections.ndim != 3 or projections.dtype != np.float32:
        raise InputError(
            f"projections are {projections.dtype} {projections.shape}; give float32 (n, rows, "
            "columns)"
        )


def _groups(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where each group of ranks begins, and between which two groups each rank lies."""
    number = max(min(_GROUPS, count // 4), 1)
    starts = np.arange(number + 1, dtype=np.int64) * count // number
    middles = (starts[:-1] + starts[1:] - 1) / 2
    ranks = np.arange(count)
    place = np.interp(ranks, middles, np.arange(number))
    group = place.astype(np.int64)
    return starts, group, (place - group).astype(np.float32)


def _sort_on_arrays(xp: Any, projections: Any, size: int, groups: tuple[Any, ...]) -> None:
    """The same with the functions of an array library, for arrays on a GPU."""
    starts, group, weight = groups
    count, rows, width = projections.shape
    share = np.zeros((len(starts) - 1, count), np.float32)
    for number, (first, stop) in enumerate(itertools.pairwise(starts)):
        share[number, first:stop] = 1 / (stop - first)
    share, weight = xp.asarray(share), xp.asarray(weight)[:, None]
    group = xp.asarray(group)
    following = xp.minimum(group + 1, len(starts) - 2)
    half = size // 2
    for row in range(rows):
        sinogram = projections[:, row]
        order = xp.argsort(sinogram, axis=0, kind="stable")
        means = share @ xp.take_along_axis(sinogram, order, axis=0)
        padded = xp.pad(means, ((0, 0), (half, half)), mode="edge")
        windows = xp.stack([padded[:, k : k + width] for k in range(size)])
        steps = xp.sort(windows, axis=0)[half] - means
        by_rank = steps[group] + weight * (steps[following] - steps[group])
        ranks = xp.argsort(order, axis=0)
        sinogram += xp.take_along_axis(by_rank, ranks, axis=0)


def _damp(xp: Any, sinogram: Any, sigma: float, levels: int) -> None:
    """Subtract from one sinogram ``(n, columns)`` its damped stripes."""
    filters = wavelet_filters()
    taps = len(filters[0])
    count, width = sinogram.shape
    unit = 2**levels
    # Every scale must be even and no shorter than a filter; the sides must not see each other.
    least = unit * math.ceil(taps / 2)
    margins = [(0, _to_multiple(max(count, least), unit) - count)]
    margins += [(taps, _to_multiple(max(width + 2 * taps, least), unit) - width - taps)]
    slow = xp.pad(sinogram, margins, mode="edge")
    bands = []
    for _ in range(levels):
        slow, across = decompose(xp, slow, filters)
        waves = xp.fft.rfft(across, axis=0)
        frequency = xp.arange(waves.shape[0], dtype=np.float32)
        notch = xp.exp(-(frequency**2) / np.float32(2 * sigma**2))
        stripes = xp.fft.irfft(waves * notch[:, None], n=across.shape[0], axis=0)
        bands.append(stripes.astype(np.float32))
    # The transform is linear: only what is taken away has to be put together again.
    removed = xp.zeros_like(slow)
    for stripes in reversed(bands):
        removed = recompose(xp, removed, stripes, filters)
    sinogram -= removed[:count, taps : taps + width]


def _to_multiple(size: int, unit: int) -> int:
    return -(-size // unit) * unit
