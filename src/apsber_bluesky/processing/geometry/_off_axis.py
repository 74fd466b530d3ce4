"""A rotation axis near the edge of the frame: a full turn shows an object of twice the width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._weights import check_angles

_LEAST_TURN_DEG = 355.0
_LEAST_OVERLAP = 8
_MOST_PAIRS = 48
_LEAST_MATCH = 0.3


@dataclass(frozen=True, slots=True)
class OverlapEstimate:
    """Where the rotation axis of an off-axis scan lies.

    Attributes
    ----------
    centre_px : float
        Column of the rotation axis [pixel].
    overlap_px : float
        Columns that a projection and its opposite both show; negative where the axis lies near
        the first column, positive near the last [pixel].
    match : float
        Correlation coefficient of opposite projections in the overlap.
    """

    centre_px: float
    overlap_px: float
    match: float


@dataclass(frozen=True, slots=True)
class OffAxisFrame:
    """The wide frame of an off-axis scan of a full turn.

    A projection and the one half a turn later show the two sides of the object. They are not
    joined pixel by pixel, which would need them at exactly opposite angles and the axis on half
    a pixel: each is laid into a frame of twice the reach with weights that add up to 2 for every
    ray and its reverse, blended over the overlap, and back-projection, which is linear, joins
    them. Any angles of a full turn will do, and nothing is interpolated.

    Attributes
    ----------
    columns : int
        Width of the wide frame [pixel].
    first : int
        Its column that the recorded column 0 comes to.
    centre_px : float
        Column of the rotation axis in the wide frame [pixel].
    weights : ndarray of float32
        Weight of each recorded column.
    """

    columns: int
    first: int
    centre_px: float
    weights: NDArray[np.float32]

    @classmethod
    def around(cls, columns: int, centre_px: float) -> Self:
        """Lay out the wide frame.

        Parameters
        ----------
        columns : int
            Width of a recorded frame [pixel].
        centre_px : float
            Column of the rotation axis in it [pixel].

        Raises
        ------
        InputError
            If the axis is not in the frame, or too close to its edge to blend the two sides.
        """
        near = min(centre_px, columns - 1 - centre_px)
        if near < _LEAST_OVERLAP / 2:
            raise InputError(
                f"a rotation centre at column {centre_px:g} of {columns} leaves no overlap to"
                f" blend; it must be {_LEAST_OVERLAP / 2:g} columns or more from the edge"
            )
        reach = max(centre_px, columns - 1 - centre_px)
        wide = max(math.floor(2 * reach) + 1, columns)
        right = centre_px > (columns - 1) / 2
        first = 0 if right else wide - columns
        side = 1.0 if right else -1.0
        # Positive towards the side that only this projection shows.
        away = (centre_px - np.arange(columns)) * side
        weights = 1 + np.sin(np.clip(away / near, -1, 1) * (np.pi / 2))
        return cls(wide, first, centre_px + first, weights.astype(np.float32))

    def __call__(self, projections: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay projections into the wide frame.

        Parameters
        ----------
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.

        Returns
        -------
        ndarray of float32
            Shape ``(n, rows, wide columns)``.
        """
        count, rows, columns = projections.shape
        wide = np.zeros((count, rows, self.columns), np.float32)
        np.multiply(projections, self.weights, out=wide[..., self.first : self.first + columns])
        return wide


def check_full_turn(angles_deg: ArrayLike) -> None:
    """Refuse angles that do not show the object from both sides.

    Raises
    ------
    InputError
        If they cover less than a full turn.
    """
    angles = np.sort(check_angles(angles_deg))
    span = float(angles[-1] - angles[0])
    reached = span * len(angles) / max(len(angles) - 1, 1)
    if reached < _LEAST_TURN_DEG:
        raise InputError(
            f"angles over {reached:.4g} degrees cannot be stitched; an off-axis scan covers 360"
        )


def overlap_centre(columns: int, overlap_px: float) -> float:
    """Column of the rotation axis that an overlap means.

    Parameters
    ----------
    columns : int
        Width of a frame [pixel].
    overlap_px : float
        Columns seen twice; negative where the axis lies near the first column [pixel].

    Raises
    ------
    InputError
        If the overlap is too small, or the frame is not as wide.
    """
    if not _LEAST_OVERLAP <= abs(overlap_px) <= columns:
        raise InputError(
            f"an overlap of {overlap_px:g} columns does not fit frames of {columns}; give"
            f" {_LEAST_OVERLAP} to {columns}, negative if the axis is near column 0"
        )
    near = (abs(overlap_px) - 1) / 2
    return columns - 1 - near if overlap_px > 0 else near


def find_overlap(sinogram_rows: ArrayLike, angles_deg: ArrayLike) -> OverlapEstimate:
    """Find the rotation axis of an off-axis scan of a full turn.

    The slopes of projections are correlated with those of the projections half a turn later,
    mirrored about each possible centre, within the columns that both show; the best is refined
    by a parabola.

    Parameters
    ----------
    sinogram_rows : array_like
        Line integrals of some detector rows, shape ``(n, rows, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].

    Returns
    -------
    OverlapEstimate
        Axis and overlap.

    Raises
    ------
    InputError
        If the angles cover no full turn, or no centre makes opposite projections match.
    """
    check_full_turn(angles_deg)
    angles = check_angles(angles_deg)
    slopes = ndimage.gaussian_filter1d(np.asarray(sinogram_rows, np.float64), 1.5, axis=-1, order=1)
    first, second = _opposites(angles)
    one, other = slopes[first], -slopes[second]
    columns = slopes.shape[2]
    least = max(_LEAST_OVERLAP, columns // 64)
    sums = np.arange(least - 1, 2 * columns - least)
    matches = np.array([_match(one, other, int(total)) for total in sums])
    low, high = np.maximum(0, sums - columns + 1), np.minimum(columns - 1, sums)
    # A few columns match by chance more easily than many.
    scores = matches * (1 - 1 / np.sqrt((high - low + 1) * slopes.shape[1] / 4))
    best = int(np.argmax(scores))
    match = float(matches[best])
    if not match >= _LEAST_MATCH:
        raise InputError(
            f"opposite projections match at no overlap (best correlation {match:.2f}); give the"
            " overlap by hand"
        )
    centre = (sums[best] + _vertex(matches, best)) / 2
    right = centre > (columns - 1) / 2
    overlap = 2 * (columns - 1 - centre) + 1 if right else -(2 * centre + 1)
    return OverlapEstimate(float(centre), float(overlap), match)


def _opposites(angles: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of projections that are most nearly half a turn apart, spread over the scan."""
    apart = np.abs((angles[None, :] - angles[:, None]) % 360 - 180)
    partner = np.argmin(apart, axis=1)
    miss = apart[np.arange(len(partner)), partner]
    good = np.flatnonzero(miss <= miss.min() + 1e-3)
    chosen = good[np.linspace(0, len(good) - 1, min(len(good), _MOST_PAIRS)).astype(int)]
    return chosen, partner[chosen]


def _match(one: NDArray[np.float64], other: NDArray[np.float64], column_sum: int) -> float:
    """Correlate ``one[u]`` with ``other[column_sum - u]``."""
    columns = one.shape[-1]
    low, high = max(0, column_sum - columns + 1), min(columns - 1, column_sum)
    here = one[..., low : high + 1]
    there = other[..., low : high + 1][..., ::-1]
    size = math.sqrt(float(np.sum(here**2)) * float(np.sum(there**2)))
    return float(np.sum(here * there)) / size if size > 0 else 0.0


def _vertex(values: NDArray[np.float64], at: int) -> float:
    """Where the parabola through three values has its top, from the middle one."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0
