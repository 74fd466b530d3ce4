"""Where the rotation axis is in the picture, as a plan learns it from whoever does the sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class AxisEstimate:
    """The rotation axis in the picture.

    Attributes
    ----------
    column_px : float
        Where it crosses the middle row [pixel].
    roll_deg : float
        How far it leans, towards higher columns in higher rows [deg].
    column_error_px, roll_error_deg : float
        Standard errors, from what is left between the opposite projections.
    match : float
        Correlation of one projection with the mirror image of the other, 1 for equal ones.
    """

    column_px: float
    roll_deg: float
    column_error_px: float
    roll_error_deg: float
    match: float


@runtime_checkable
class AxisFinder(Protocol):
    """Finds the axis in two opposite projections of a run; the session provides it."""

    def find(self, run_uid: str, first: int, *, num_darks: int, num_flats: int) -> AxisEstimate:
        """Compare projections `first` and ``first + 1`` of a run, half a turn apart.

        Parameters
        ----------
        run_uid : str
            The run, which may still be open.
        first : int
            Index of the first of the two in stream ``primary``.
        num_darks, num_flats : int
            Darks and flats of the run; both are on disk, as the projections are.

        Raises
        ------
        InputError
            If the projections do not match anywhere.
        """
        ...
