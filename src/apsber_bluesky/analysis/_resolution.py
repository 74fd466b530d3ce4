"""How fine the details are that two halves of the scan agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices, distance_from_axis, field_of_view
from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

_SOURCE = (
    "Fourier ring correlation of half scans at the 1/2-bit threshold, M. van Heel and M. Schatz, "
    "J. Struct. Biol. 151 (2005) 250"
)
# The mask falls from 1 to 0 between these parts of the field of view's radius. A steeper one
# smears strong slow waves over many rings, where both halves then seem to agree.
_MASK_INNER, _MASK_OUTER = 0.25, 0.95
_LEAST_SIZE = 16
_NYQUIST = 0.5


@dataclass(frozen=True, slots=True)
class RingCorrelation:
    """Fourier ring correlation of two stacks of slices.

    Attributes
    ----------
    frequency : ndarray of float64
        Rings, shape ``(m,)`` [cycles/pixel].
    correlation : ndarray of float64
        Correlation of the two stacks in each ring.
    threshold : ndarray of float64
        The 1/2-bit threshold of each ring.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def cutoff(self) -> float:
        """Frequency of the first crossing that is not a single ring's [cycles/pixel].

        It is 0.5 where the correlation stays above the threshold.
        """
        margin = self.correlation - self.threshold
        below = margin < 0
        lasting = np.flatnonzero(below & np.append(below[1:], True))
        if not len(lasting):
            return _NYQUIST
        ring = int(lasting[0])
        if ring == 0:
            return float(self.frequency[0])
        before, after = margin[ring - 1], margin[ring]
        part = before / (before - after) if before > 0 else 0.0
        step = self.frequency[ring] - self.frequency[ring - 1]
        return float(self.frequency[ring - 1] + part * step)


def fourier_ring_correlation(first: ArrayLike, second: ArrayLike) -> RingCorrelation:
    """Correlate two reconstructions of the same slices ring by ring in Fourier space.

    Both are masked by a circle with a soft edge inside their field of view, after their mean
    there was taken away; rings are one frequency step wide, and all slices add to each ring.

    Parameters
    ----------
    first, second : array_like
        The slices, shape ``(k, size, size)``, from independent halves of the data.

    Returns
    -------
    RingCorrelation
        Correlation and threshold up to the Nyquist frequency.

    Raises
    ------
    InputError
        If the shapes differ, the slices are smaller than 16 pixels or hold NaN.
    """
    one, other = check_slices(first, "first half"), check_slices(second, "second half")
    size = one.shape[1]
    if one.shape != other.shape or size < _LEAST_SIZE:
        raise InputError(
            f"half scans have shapes {one.shape} and {other.shape}; they must be equal and at "
            f"least {_LEAST_SIZE} pixels wide"
        )
    mask = soft_circle(one)
    left, right = (scipy.fft.rfft2(_masked(half, mask)) for half in (one, other))
    down, across = scipy.fft.fftfreq(size), scipy.fft.rfftfreq(size)
    ring = np.rint(np.hypot(down[:, None], across[None, :]) * size).astype(int)
    # A column of the half spectrum stands for two of the whole, except at its ends.
    twice = np.full(len(across), 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0

    def per_ring(values: NDArray[Any]) -> NDArray[np.float64]:
        summed = np.bincount(ring.ravel(), weights=(values * twice).ravel())
        return np.asarray(summed[1 : size // 2])

    cross = per_ring(np.sum((left * np.conj(right)).real, axis=0))
    power = per_ring(np.sum(np.abs(left) ** 2, axis=0)) * per_ring(
        np.sum(np.abs(right) ** 2, axis=0)
    )
    correlation = np.zeros_like(cross)
    np.divide(cross, np.sqrt(power), out=correlation, where=power > 0)
    # A real image has half of its Fourier pixels free, a masked one as many as the mask's area.
    free = per_ring(np.ones(ring.shape)) / 2 * float(np.mean(mask**2)) * len(one)
    frequency = np.arange(1, size // 2) / size
    return RingCorrelation(frequency, correlation, half_bit(free))


def resolution(
    first: ArrayLike,
    second: ArrayLike,
    *,
    pixel_size_um: float | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Resolution by Fourier ring correlation of two half scans.

    Each half has half of the projections, so the whole scan is somewhat better than this number.
    Rings and stripes are in both halves and flatter it.

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
        ``resolution``, one period of the finest wave that both halves share [px].

    Raises
    ------
    InputError
        If the shapes differ, the slices are smaller than 16 pixels or hold NaN.
    """
    cutoff = fourier_ring_correlation(first, second).cutoff
    value = 1 / cutoff
    notes = [f"{value * pixel_size_um:.3g} um"] if pixel_size_um else []
    if cutoff >= _NYQUIST:
        notes.append("limited by the pixel size")
    return metric(
        "resolution", value, unit="px", source=_SOURCE, note="; ".join(notes), limits=limits
    )


def half_bit(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 1/2-bit threshold of rings or shells with so many independent Fourier pixels."""
    root = np.sqrt(np.maximum(free, 1.0))
    return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))


def soft_circle(slices: NDArray[Any]) -> NDArray[np.float64]:
    """Mask of a slice, shape ``(size, size)``, that falls to 0 within the field of view."""
    distance = distance_from_axis(slices.shape[1])
    seen = field_of_view(slices)
    radius = float(distance[seen].max()) if seen.any() else slices.shape[1] / 2
    part = (distance / radius - _MASK_INNER) / (_MASK_OUTER - _MASK_INNER)
    return np.asarray(np.cos(np.pi / 2 * np.clip(part, 0, 1)) ** 2)


def _masked(slices: NDArray[Any], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.sum(slices * mask, axis=(1, 2), keepdims=True) / mask.sum()
    return np.asarray((slices - mean) * mask)
