"""The rotation centre as the reconstruction itself shows it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError, ReconstructionEngine
from apsber_bluesky.processing._engines import create_engine
from apsber_bluesky.processing._weights import check_angles
from apsber_bluesky.processing.centre._find import CentreEstimate

_MOST_ROWS = 16
# A width that is binned no further; smaller slices show too few edges.
_LEAST_COLUMNS = 192
_TURN_DEG = 360.0
_COARSE, _FINE = 9, 7
# The curve of a real minimum rises by more than this part on both sides.
_LEAST_RISE = 0.002


def refine_centre(
    sinogram_rows: ArrayLike,
    angles_deg: ArrayLike,
    centre: float,
    *,
    reach_px: float = 4.0,
    engine: str = "auto",
    filter_name: str = "ramp",
    threads: int | None = None,
) -> CentreEstimate:
    """Refine a rotation centre by small reconstructions about it.

    About a wrong centre edges open into tuning forks, and slices turn negative beside them; the
    attenuation below zero is least about the true centre (T. Donath, F. Beckmann and A. Schreyer,
    Journal of the Optical Society of America A 23 (2006) 1048). Some rows, binned twice where
    they are wide, are reconstructed about nine centres and then, closer, about seven; a parabola
    through the three best gives the result. Projections of more than half a turn are halved,
    since those of a full turn blur about a wrong centre without turning negative.

    Parameters
    ----------
    sinogram_rows : array_like
        Line integrals of some detector rows, shape ``(n, rows, columns)`` or ``(n, columns)``; up
        to 16 are used.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Where to look [pixel], for instance what `find_centre` found.
    reach_px : float
        How far on each side [pixel].
    engine, filter_name, threads
        As for `create_engine`.

    Returns
    -------
    CentreEstimate
        The centre that a reconstruction will really use, in columns of the detector. If the
        slices tell no centre from its neighbours, or the best lies at the edge of the range, it
        is the one given, and its uncertainty the reach.

    Raises
    ------
    InputError
        If shapes do not fit, or the range leaves the frame.
    """
    sinogram = np.asarray(sinogram_rows, dtype=np.float32)
    angles = check_angles(angles_deg)
    if sinogram.ndim == 2:
        sinogram = sinogram[:, None, :]
    if sinogram.ndim != 3 or 0 in sinogram.shape or len(sinogram) != len(angles):
        raise InputError(
            f"sinogram rows have shape {sinogram.shape} for {len(angles)} angles; give "
            "(n, rows, columns)"
        )
    columns = sinogram.shape[2]
    if not 0 < reach_px < math.inf or not 0 <= centre - reach_px <= centre + reach_px < columns:
        raise InputError(
            f"centre {centre} with a reach of {reach_px} pixels leaves the frame of {columns} "
            "columns"
        )
    middle = (sinogram.shape[1] - min(sinogram.shape[1], _MOST_ROWS)) // 2
    rows, factor = sinogram[:, middle : middle + _MOST_ROWS], 1
    if columns >= 2 * _LEAST_COLUMNS:
        rows, factor = _binned(rows), 2
    parts = []
    for half in _halves(angles):
        part = create_engine(
            engine,
            rows=rows.shape[1],
            columns=rows.shape[2],
            angles_deg=angles[half],
            filter_name=filter_name,
            threads=threads,
        )
        part.accumulate(np.ascontiguousarray(rows[half]), 0)
        parts.append(part)
    found = _least_negative(_Negativity(parts, factor, centre, reach_px), centre, reach_px)
    if found is None:
        return CentreEstimate(centre, "given; refinement was undecided", reach_px)
    best, step = found
    return CentreEstimate(best, "least negative attenuation", step)


class _Negativity:
    """Attenuation below zero, as a function of the centre in columns of the detector."""

    def __init__(
        self, parts: list[ReconstructionEngine], factor: int, centre: float, reach: float
    ) -> None:
        self._parts, self._factor = parts, factor
        size = parts[0].shape[2]
        axis = np.arange(size) - size // 2
        # The same pixels for all centres, within the field of view of each.
        room = min(
            min(self._column(place), size - 1 - self._column(place))
            for place in (centre - reach, centre + reach)
        )
        self._field = axis[:, None] ** 2 + axis[None, :] ** 2 <= max(0.95 * room, 2.0) ** 2

    def _column(self, centre: float) -> float:
        return (centre + 0.5) / self._factor - 0.5

    def __call__(self, centre: float) -> float:
        below, above = 0.0, 0.0
        for part in self._parts:
            size = part.shape[2]
            column = min(max(self._column(centre), 0.0), size - 1.0)
            seen = part.finish(slice(None), column)[:, self._field]
            below -= float(np.minimum(seen, 0).sum(dtype=np.float64))
            above += float(np.maximum(seen, 0).sum(dtype=np.float64))
        return below / above if above > 0 else math.inf


def _least_negative(
    negativity: _Negativity, centre: float, reach: float
) -> tuple[float, float] | None:
    """The centre with the least, and the step it was found with; None if no minimum stands out."""
    coarse = 2 * reach / (_COARSE - 1)
    trials = centre - reach + coarse * np.arange(_COARSE)
    scores = np.array([negativity(float(trial)) for trial in trials])
    best = int(np.argmin(scores))
    if best in (0, _COARSE - 1) or not np.isfinite(scores).all():
        return None
    if min(scores[best - 1], scores[best + 1]) < scores[best] * (1 + _LEAST_RISE):
        return None
    fine = 2 * coarse / (_FINE - 1)
    closer = trials[best] - coarse + fine * np.arange(_FINE)
    scores = np.array([negativity(float(trial)) for trial in closer])
    best = int(np.clip(np.argmin(scores), 1, _FINE - 2))
    left, here, right = scores[best - 1 : best + 2]
    bend = left - 2 * here + right
    if bend <= 0:
        return None
    return float(closer[best] + fine * np.clip((left - right) / (2 * bend), -1, 1)), fine


def _binned(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 columns, and of 2 rows where there are."""
    even = rows[:, :, : rows.shape[2] // 2 * 2]
    narrow = (even[:, :, 0::2] + even[:, :, 1::2]) / 2
    if narrow.shape[1] > 1:
        pairs = narrow[:, : narrow.shape[1] // 2 * 2]
        narrow = (pairs[:, 0::2] + pairs[:, 1::2]) / 2
    return np.ascontiguousarray(narrow)


def _halves(angles: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Projections of each half turn, of those that hold enough."""
    if np.ptp(angles) <= 0.75 * _TURN_DEG:
        return [np.arange(len(angles))]
    half = np.floor(np.mod(angles - angles.min(), _TURN_DEG) / (_TURN_DEG / 2)).astype(int)
    return [np.flatnonzero(half == number) for number in (0, 1)]
