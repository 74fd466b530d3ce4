"""How fine the details are that two halves of the scan agree on in a block, in all directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices
from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.analysis._resolution import RingCorrelation, half_bit, soft_circle
from apsber_bluesky.core import InputError, Limits, QualityMetric

_SOURCE = (
    "Fourier shell correlation of half scans at the 1/2-bit threshold, M. van Heel and M. Schatz, "
    "J. Struct. Biol. 151 (2005) 250"
)
_LEAST_SLICES = 8
_LEAST_SIZE = 16
_LEAST_WAVES = 10.0
_MOST_SIZE = 256
_NYQUIST = 0.5


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
    one, other = check_slices(first, "first half"), check_slices(second, "second half")
    if one.shape != other.shape or one.shape[1] < _LEAST_SIZE:
        raise InputError(
            f"half scans have shapes {one.shape} and {other.shape}; they must be equal and at "
            f"least {_LEAST_SIZE} pixels wide"
        )
    if len(one) < _LEAST_SLICES:
        raise NotApplicable(f"{len(one)} slices are no block; {_LEAST_SLICES} are needed")
    one, other = _middle(one), _middle(other)
    depth, size, _ = one.shape
    mask = np.hanning(depth + 2)[1:-1, None, None] * soft_circle(one)
    left, right = (scipy.fft.rfftn(_masked(half, mask)) for half in (one, other))
    along, down = scipy.fft.fftfreq(depth), scipy.fft.fftfreq(size)
    across = scipy.fft.rfftfreq(size)
    radius = np.sqrt(along[:, None, None] ** 2 + down[:, None] ** 2 + across**2)
    shell = np.rint(radius * size).astype(int)
    # A column of the half spectrum stands for two of the whole, except at its ends.
    twice = np.full(len(across), 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0

    def per_shell(values: NDArray[Any]) -> NDArray[np.float64]:
        summed = np.bincount(shell.ravel(), weights=(values * twice).ravel())
        return np.asarray(summed[1 : size // 2])

    cross = per_shell((left * np.conj(right)).real)
    power = per_shell(np.abs(left) ** 2) * per_shell(np.abs(right) ** 2)
    correlation = np.zeros_like(cross)
    np.divide(cross, np.sqrt(power), out=correlation, where=power > 0)
    free = per_shell(np.ones(shell.shape)) / 2 * float(np.mean(mask**2))
    # The first shells hold too few waves to say anything.
    told = free >= _LEAST_WAVES
    frequency = np.arange(1, size // 2) / size
    return RingCorrelation(frequency[told], correlation[told], half_bit(free[told]))


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
    cutoff = fourier_shell_correlation(first, second).cutoff
    value = 1 / cutoff
    notes = [f"{value * pixel_size_um:.3g} um"] if pixel_size_um else []
    if cutoff >= _NYQUIST:
        notes.append("limited by the pixel size")
    return metric(
        "resolution_3d", value, unit="px", source=_SOURCE, note="; ".join(notes), limits=limits
    )


def _middle(slices: NDArray[Any]) -> NDArray[Any]:
    size = slices.shape[1]
    kept = min(size, _MOST_SIZE)
    first = (size - kept) // 2
    return slices[:, first : first + kept, first : first + kept]


def _masked(block: NDArray[Any], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = float(np.sum(block * mask) / mask.sum())
    return np.asarray((block - mean) * mask)
