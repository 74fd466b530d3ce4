"""How strong the stripes of the sinograms are, which become rings in the slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from apsber_bluesky.analysis._arrays import check_stack
from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

_SOURCE = (
    "stripes of the sinogram that stay when it is averaged over the angle (C. Raven, Rev. Sci. "
    "Instrum. 69 (1998) 2978), as a part of the line integrals; noise is taken away by half scans"
)
# Quadratic least squares over nine columns: A. Savitzky and M. Golay, Anal. Chem. 36 (1964) 1627.
_SMOOTH = np.array([-21, 14, 39, 54, 59, 54, 39, 14, -21]) / 231
# What is left of a stripe that is one column wide and independent of its neighbours.
_LEFT_OVER = float(np.sqrt(1 - _SMOOTH[4]))
_MOST_ROWS = 4
_MOST_ANGLES = 360
_LEAST_ANGLES = 8


def ring_score(
    sinograms: ArrayLike,
    angles_deg: ArrayLike,
    centre: float,
    *,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Root mean square of the stripes that make rings, as a part of the object's shadow.

    Each column is compared with a parabola through the 9 around it, and the median of that over
    the angle is its stripe: details of the object cross a column at few angles. What is round about
    the axis, as a tube, stays too, but alike on both sides of it; so the stripe on one side is
    taken against that on the other. The product of the stripes that even and odd projections show
    has no noise on average.

    Parameters
    ----------
    sinograms : array_like
        Line integrals of some rows, shape ``(n, k, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis [pixel].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``ring_score`` [1].

    Raises
    ------
    NotApplicable
        If there are fewer than 8 projections, or they are empty.
    InputError
        If shapes do not fit or a value is not finite.
    """
    stack = check_stack(sinograms, "sinograms")
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape != (len(stack),):
        raise InputError(f"{len(stack)} projections, but angles of shape {angles.shape}")
    if len(stack) < _LEAST_ANGLES:
        raise NotApplicable(f"{len(stack)} projections are too few to see stripes")
    rows = np.unique(np.linspace(0, stack.shape[1] - 1, _MOST_ROWS).round().astype(int))
    order = np.argsort(angles, kind="stable")
    order = order[:: -(-len(order) // _MOST_ANGLES)]
    lines = stack[np.ix_(order, rows)].astype(np.float32)
    depth = float(np.percentile(lines.mean(axis=0), 95))
    if depth <= 0:
        raise NotApplicable("the projections show no object")
    lines -= ndimage.convolve1d(lines, _SMOOTH, axis=2, mode="nearest")
    even, odd = (_against_mirrored(np.median(half, axis=0), centre) for half in _halves(lines))
    power = float(np.mean(even * odd)) if even.size else 0.0
    worst = np.sqrt(np.maximum(np.max(even * odd, initial=0.0), 0.0)) / depth
    return metric(
        "ring_score",
        float(np.sqrt(max(power, 0.0))) / depth,
        unit="1",
        source=_SOURCE,
        note=f"strongest stripe {worst:.2g}",
        limits=limits,
    )


def _halves(lines: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return lines[0::2], lines[1::2]


def _against_mirrored(stripes: NDArray[np.float32], centre: float) -> NDArray[np.float64]:
    """Stripes of each column less those at the same distance on the other side of the axis."""
    columns = np.arange(stripes.shape[1])
    mirrored = 2 * centre - columns
    right = columns[(mirrored >= 0) & (mirrored <= len(columns) - 1) & (columns > centre)]
    below = np.floor(mirrored[right]).astype(int)
    part = float(mirrored[0] - np.floor(mirrored[0]))
    above = np.minimum(below + 1, len(columns) - 1)
    left = (1 - part) * stripes[:, below] + part * stripes[:, above]
    # Interpolated stripes are weaker by a known factor.
    scale = _LEFT_OVER * np.sqrt(1 + (1 - part) ** 2 + part**2)
    return np.asarray((stripes[:, right].astype(np.float64) - left) / scale)
