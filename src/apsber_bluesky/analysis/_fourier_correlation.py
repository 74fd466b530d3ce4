"""Two halves of the data, correlated ring by ring or shell by shell in Fourier space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices, distance_from_axis, field_of_view
from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

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


def check_halves(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """The slices of two halves of the data, shape ``(k, size, size)`` each.

    Raises
    ------
    InputError
        If the shapes differ, the slices are smaller than 16 pixels or hold NaN.
    """
    one, other = check_slices(first, "first half"), check_slices(second, "second half")
    if one.shape != other.shape or one.shape[1] < _LEAST_SIZE:
        raise InputError(
            f"half scans have shapes {one.shape} and {other.shape}; they must be equal and at "
            f"least {_LEAST_SIZE} pixels wide"
        )
    return one, other


def correlate(
    blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]], mask: NDArray[np.float64]
) -> tuple[RingCorrelation, NDArray[np.float64]]:
    """Correlate masked blocks ring by ring; all blocks add to each ring.

    Parameters
    ----------
    blocks : iterable of two ndarray
        The same images or blocks of both halves, of the mask's shape.
    mask : ndarray of float64
        Mask; its last two axes are equally long, and rings as wide as their frequency step.

    Returns
    -------
    RingCorrelation
        Correlation and threshold up to the Nyquist frequency.
    free : ndarray of float64
        Independent waves in each ring.
    """
    size = mask.shape[-1]
    across = scipy.fft.rfftfreq(size)
    squared = across**2
    for axis, length in enumerate(mask.shape[:-1]):
        along = scipy.fft.fftfreq(length) ** 2
        squared = squared + along.reshape(-1, *(1,) * (mask.ndim - 1 - axis))
    ring = np.rint(np.sqrt(squared) * size).astype(int)
    # A column of the half spectrum stands for two of the whole, except at its ends.
    twice = np.full(len(across), 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0

    def per_ring(values: NDArray[Any]) -> NDArray[np.float64]:
        summed = np.bincount(ring.ravel(), weights=(values * twice).ravel())
        return np.asarray(summed[1 : size // 2])

    cross, one_power, other_power = np.zeros((3, size // 2 - 1))
    count = 0
    for first, second in blocks:
        left, right = (scipy.fft.rfftn(_masked(half, mask)) for half in (first, second))
        cross += per_ring((left * np.conj(right)).real)
        one_power += per_ring(np.abs(left) ** 2)
        other_power += per_ring(np.abs(right) ** 2)
        count += 1
    power = one_power * other_power
    correlation = np.zeros_like(cross)
    np.divide(cross, np.sqrt(power), out=correlation, where=power > 0)
    # A real image has half of its Fourier pixels free, a masked one as many as the mask's area.
    free = per_ring(np.ones(ring.shape)) / 2 * float(np.mean(mask**2)) * count
    frequency = np.arange(1, size // 2) / size
    return RingCorrelation(frequency, correlation, _half_bit(free)), free


def soft_circle(slices: NDArray[Any]) -> NDArray[np.float64]:
    """Mask of a slice, shape ``(size, size)``, that falls to 0 within the field of view."""
    distance = distance_from_axis(slices.shape[1])
    seen = field_of_view(slices)
    radius = float(distance[seen].max()) if seen.any() else slices.shape[1] / 2
    part = (distance / radius - _MASK_INNER) / (_MASK_OUTER - _MASK_INNER)
    return np.asarray(np.cos(np.pi / 2 * np.clip(part, 0, 1)) ** 2)


def resolution_metric(
    name: str,
    found: RingCorrelation,
    *,
    source: str,
    pixel_size_um: float | None,
    limits: Mapping[str, Limits] | None,
) -> QualityMetric:
    """One period of the finest wave that both halves share, as a quality number [px]."""
    value = 1 / found.cutoff
    notes = [f"{value * pixel_size_um:.3g} um"] if pixel_size_um else []
    if found.cutoff >= _NYQUIST:
        notes.append("limited by the pixel size")
    return metric(name, value, unit="px", source=source, note="; ".join(notes), limits=limits)


def _half_bit(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 1/2-bit threshold of rings or shells with so many independent Fourier pixels."""
    root = np.sqrt(np.maximum(free, 1.0))
    return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))


def _masked(block: NDArray[Any], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = float(np.sum(block * mask) / mask.sum())
    return np.asarray((block - mean) * mask)
