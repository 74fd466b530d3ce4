"""How much each projection counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError

_SAME_DEG = 1e-6
# A gap wider than this many typical gaps is a missing wedge, not coarse sampling.
_WEDGE = 5.0


def check_angles(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """Take angles as float64 [deg], or refuse them."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim != 1 or angles.size == 0:
        raise InputError(f"angles have shape {angles.shape}; give one per projection")
    wrong = np.flatnonzero(~np.isfinite(angles))
    if len(wrong):
        raise InputError(f"angle {wrong[0]} is {angles[wrong[0]]}; give finite angles in degrees")
    return angles


def angular_weights(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """Quadrature weights of projections for filtered back-projection.

    A projection stands for half the gap to each of its neighbours modulo 180 degrees; projections
    of the same angle share. The weights add up to pi, so a scan of 360 degrees or of one that
    measures a part twice keeps the attenuation right. A missing wedge is not given to its two
    edge projections, which would draw streaks, but to all.

    Parameters
    ----------
    angles_deg : array_like
        Angle of each projection, shape ``(n,)``, in any order [deg].

    Returns
    -------
    ndarray of float64
        Weight of each projection, shape ``(n,)`` [rad].

    Raises
    ------
    InputError
        If there is no angle or one is not finite.
    """
    angles = check_angles(angles_deg)
    period = round(180 / _SAME_DEG)
    # Whole numbers of a micro-degree, so that 180 - 1e-12 and 0 are the same direction.
    ticks = np.mod(np.rint(angles / _SAME_DEG), period)
    distinct, place, shared = np.unique(ticks, return_inverse=True, return_counts=True)
    gaps = np.diff(distinct, append=distinct[0] + period)
    gaps = np.where(gaps > _WEDGE * np.median(gaps), np.median(gaps), gaps)
    each = (gaps + np.roll(gaps, 1)) / 2
    weights = (each / shared)[place]
    return np.asarray(weights * (np.pi / weights.sum()), dtype=np.float64)
