"""How fine the details are that two halves of the scan agree on in a block, in all directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._fourier_correlation import (
    RingCorrelation,
    check_halves,
    correlate,
    resolution_metric,
    soft_circle,
)
from apsber_bluesky.analysis._limits import NotApplicable
from apsber_bluesky.core import Limits, QualityMetric

_SOURCE = (
    "Fourier shell correlation of half scans at the 1/2-bit threshold, M. van Heel and M. Schatz, "
    "J. Struct. Biol. 151 (2005) 250"
)
_LEAST_SLICES = 8
_LEAST_WAVES = 10.0
_MOST_SIZE = 256


def fourier_shell_correlation(first: ArrayLike, second: ArrayLike) -> RingCorrelation:
    """Correlate two reconstructions of a block shell by shell in Fourier space.

    The block is the middle of the slices, at most 256 pixels wide. It is masked by a soft circle
    in the slices and a Hann window along the axis, after its mean was taken away; shells are as
    wide as one frequency step in the slices.

    Parameters
    ----------
    first, second : array_like
        The slices, shape ``(k, size, size)``, from independent halves of the data.

    Returns
    -------
    RingCorrelation
        Correlation and threshold of each shell up to the Nyquist frequency.

    Raises
    ------
    NotApplicable
        If there are fewer than 8 slices.
    InputError
        If the shapes differ, the slices are smaller than 16 pixels or hold NaN.
    """
    one, other = check_halves(first, second)
    if len(one) < _LEAST_SLICES:
        raise NotApplicable(f"{len(one)} slices are no block; {_LEAST_SLICES} are needed")
    one, other = _middle(one), _middle(other)
    mask = np.hanning(len(one) + 2)[1:-1, None, None] * soft_circle(one)
    found, free = correlate([(one, other)], mask)
    # The first shells hold too few waves to say anything.
    told = free >= _LEAST_WAVES
    return RingCorrelation(found.frequency[told], found.correlation[told], found.threshold[told])


def resolution_3d(
    first: ArrayLike,
    second: ArrayLike,
    *,
    pixel_size_um: float | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Resolution in all directions, by Fourier shell correlation of a block of two half scans.

    Parameters
    ----------
    first, second : array_like
        The same slices, shape ``(k, size, size)``, from the even and from the odd projections.
    pixel_size_um : float, optional
        Pixel size at the sample [um], to give the resolution as a length too.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``resolution_3d``, one period of the finest wave that both halves share [px].

    Raises
    ------
    NotApplicable
        If there are fewer than 8 slices.
    InputError
        If the shapes differ, the slices are smaller than 16 pixels or hold NaN.
    """
    return resolution_metric(
        "resolution_3d",
        fourier_shell_correlation(first, second),
        source=_SOURCE,
        pixel_size_um=pixel_size_um,
        limits=limits,
    )


def _middle(slices: NDArray[Any]) -> NDArray[Any]:
    size = slices.shape[1]
    kept = min(size, _MOST_SIZE)
    first = (size - kept) // 2
    return slices[:, first : first + kept, first : first + kept]
