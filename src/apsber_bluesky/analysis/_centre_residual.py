"""Whether opposite projections agree about the rotation centre that was used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_stack
from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.analysis._shifts import mirrored, shift, slope_spectra
from apsber_bluesky.core import InputError, Limits, QualityMetric

_SOURCE = (
    "shift between a projection and its mirrored opposite by cross-correlation, halved; the "
    "angle that is missing to half a turn is bridged by the motion on both of its sides"
)
_WIDEST_GAP_STEPS = 2.5
_MOST_PAIRS = 8
_MOST_BANDS = 4
_LEAST_COLUMNS = 8


def centre_residual(
    sinograms: ArrayLike,
    angles_deg: ArrayLike,
    centre: float,
    *,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Distance of the rotation axis that opposite projections show from the one that was used.

    This is measured directly on pairs of projections and independently of how the centre was
    found. A scan of half a turn has no exact opposites: its last projection lies one step before
    180 degrees. The way the object moves within that step is taken from the two projections
    before it and from the first two, mirrored. Bands of rows and pairs of projections are
    measured on their own; the value is the magnitude of their median.

    Parameters
    ----------
    sinograms : array_like
        Line integrals of some rows, shape ``(n, k, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis that was used [pixel].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``centre_residual`` [px]; NaN if no two projections are opposite. The search reaches 10 px.

    Raises
    ------
    InputError
        If shapes do not fit or a value is not finite.
    """
    stack = check_stack(sinograms, "sinograms").astype(np.float64)
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape != (len(stack),) or not np.isfinite(angles).all():
        raise InputError(
            f"{len(stack)} projections, but angles of shape {angles.shape}; give one finite angle "
            "for each"
        )
    if not math.isfinite(centre):
        raise InputError(f"centre is {centre}; give the column of the rotation axis")
    order = np.argsort(angles, kind="stable")
    value, note = _residual(stack[order], angles[order], centre)
    return metric("centre_residual", value, unit="px", source=_SOURCE, note=note, limits=limits)


def _residual(
    stack: NDArray[np.float64], angles: NDArray[np.float64], centre: float
) -> tuple[float, str]:
    pairs = _opposite_pairs(angles)
    columns = stack.shape[2]
    if not pairs or columns < _LEAST_COLUMNS:
        return math.nan, "no two projections are opposite to each other"
    bands = np.array_split(np.arange(stack.shape[1]), min(_MOST_BANDS, stack.shape[1]))
    expected = 2 * centre - (columns - 1)
    spectra = slope_spectra(stack)
    found = [
        (_mirror_shift(spectra[:, rows], angles, pair, expected) - expected) / 2
        for pair in pairs
        for rows in bands
    ]
    shifts = np.array([value for value in found if math.isfinite(value)])
    if not len(shifts):
        return math.nan, "the projections are empty"
    middle = float(np.median(shifts))
    spread = float(np.percentile(shifts, 84) - np.percentile(shifts, 16)) / 2
    return abs(middle), (
        f"axis seen at {centre + middle:.2f}, used {centre:.2f}; {len(shifts)} measurements "
        f"scatter by {spread:.2f} px"
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Projection `late`, taken `gap_deg` before the opposite of projection `early`."""

    early: int
    late: int
    gap_deg: float


def _opposite_pairs(angles: NDArray[np.float64]) -> list[_Pair]:
    if len(angles) < 4:
        return []
    steps = np.diff(angles)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    gaps = angles[:, None] + 180 - angles[None, :]
    near = np.argmin(np.abs(gaps), axis=1)
    own = gaps[np.arange(len(angles)), near]
    good = np.flatnonzero(np.abs(own) <= _WIDEST_GAP_STEPS * step)
    if not len(good):
        return []
    # Exact opposites, where there are any, need no bridge.
    exact = good[np.abs(own[good]) <= np.abs(own[good]).min() + 1e-6 * max(step, 1e-9)]
    chosen = exact if len(exact) >= 2 else good
    picked = np.unique(np.linspace(0, len(chosen) - 1, _MOST_PAIRS).round().astype(int))
    return [_Pair(int(i), int(near[i]), float(own[i])) for i in chosen[picked]]


def _mirror_shift(
    spectra: NDArray[np.complex128], angles: NDArray[np.float64], pair: _Pair, expected: float
) -> float:
    """Displacement of the mirrored early projection against the opposite of it [pixel]."""
    turned = mirrored(spectra[[pair.early, min(pair.early + 1, len(angles) - 1)]])
    late = spectra[[max(pair.late - 1, 0), pair.late]]
    rates = []
    if abs(pair.gap_deg) > 1e-9:
        for views, first, second in (
            (late, max(pair.late - 1, 0), pair.late),
            (turned, pair.early, min(pair.early + 1, len(angles) - 1)),
        ):
            apart = angles[second] - angles[first]
            if apart > 0:
                rates.append(shift(views[0], views[1], 0.0) / apart)
    motion = pair.gap_deg * float(np.mean(rates)) if rates else 0.0
    return shift(late[1], turned[0], expected + motion) - motion
