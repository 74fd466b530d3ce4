"""How fine the details are that two halves of the scan agree on."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from apsber_bluesky.analysis._fourier_correlation import (
    RingCorrelation,
    check_halves,
    correlate,
    resolution_metric,
    soft_circle,
)
from apsber_bluesky.core import Limits, QualityMetric

_SOURCE = (
    "Fourier ring correlation of half scans at the 1/2-bit threshold, M. van Heel and M. Schatz, "
    "J. Struct. Biol. 151 (2005) 250"
)


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
    one, other = check_halves(first, second)
    found, _ = correlate(zip(one, other, strict=True), soft_circle(one))
    return found


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
    return resolution_metric(
        "resolution",
        fourier_ring_correlation(first, second),
        source=_SOURCE,
        pixel_size_um=pixel_size_um,
        limits=limits,
    )
