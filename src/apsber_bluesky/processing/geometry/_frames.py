"""From frames as they were recorded to projections as an engine takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.geometry._off_axis import OffAxisFrame
from apsber_bluesky.processing.geometry._resample import bin_images, rows_for_turn, turn_images

# Beyond this the axis leaves the frame long before its ends.
_MOST_TILT_DEG = 30.0


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Turn, bin and widen the projections of some slices.

    Every slice depends on the recorded rows alone, so slabs that are made apart fit together bit
    by bit.

    Attributes
    ----------
    rows, columns : int
        Size of a recorded frame [pixel].
    centre_px : float
        Column of the rotation axis in the recorded frame, after `tilt_deg` is made good and
        before binning [pixel].
    first_row, last_row : int
        Rows of the levelled frame to reconstruct, the last not included; those at the end that
        fill no bin are left out.
    bin : int
        Edge of the blocks of pixels that are averaged.
    tilt_deg : float
        How far the rotation axis leans in the frame, see `turn_images` [deg].
    off_axis : bool
        Whether this is a scan of a full turn with the axis near the edge.

    Raises
    ------
    InputError
        If a value does not fit the frame.
    """

    rows: int
    columns: int
    centre_px: float
    first_row: int
    last_row: int
    bin: int = 1
    tilt_deg: float = 0.0
    off_axis: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.centre_px <= self.columns - 1:
            raise InputError(
                f"centre {self.centre_px:g} lies outside the frame of {self.columns} columns; "
                f"give a column between 0 and {self.columns - 1}"
            )
        if not 0 <= self.first_row < self.last_row <= self.rows:
            raise InputError(
                f"slices {self.first_row}:{self.last_row} are not within the {self.rows} rows of"
                " a frame; give the first row and the one after the last"
            )
        if not 1 <= self.bin <= min(self.last_row - self.first_row, self.columns // 2):
            raise InputError(
                f"blocks of {self.bin} x {self.bin} pixels do not fit"
                f" {self.last_row - self.first_row} rows of {self.columns} columns; bin less"
            )
        if not (math.isfinite(self.tilt_deg) and abs(self.tilt_deg) <= _MOST_TILT_DEG):
            raise InputError(
                f"a tilt of {self.tilt_deg} deg is too large; give {_MOST_TILT_DEG:g} at most"
            )

    def about(self, centre_px: float) -> Self:
        """The same with another centre."""
        return replace(self, centre_px=centre_px)

    @property
    def slices(self) -> int:
        """Slices of the volume."""
        return (self.last_row - self.first_row) // self.bin

    @property
    def binned_columns(self) -> int:
        """Width of a binned frame [pixel]."""
        return self.columns // self.bin

    @property
    def binned_centre_px(self) -> float:
        """Column of the axis in a binned frame [pixel]."""
        return (self.centre_px + 0.5) / self.bin - 0.5

    @property
    def wide(self) -> OffAxisFrame | None:
        """The wide frame of an off-axis scan."""
        if not self.off_axis:
            return None
        return OffAxisFrame.around(self.binned_columns, self.binned_centre_px)

    @property
    def size(self) -> int:
        """Width of the projections that the engine takes, and edge of its slices [pixel]."""
        wide = self.wide
        return self.binned_columns if wide is None else wide.columns

    @property
    def engine_centre_px(self) -> float:
        """Column of the axis in the projections that the engine takes [pixel]."""
        wide = self.wide
        return self.binned_centre_px if wide is None else wide.centre_px

    def levelled_rows(self, first: int, stop: int) -> range:
        """Rows of the levelled frame that slices `first` to `stop` are made of."""
        return range(self.first_row + first * self.bin, self.first_row + stop * self.bin)

    def recorded_rows(self, first: int, stop: int) -> range:
        """Rows of the recorded frame that slices `first` to `stop` are made of."""
        rows = self.levelled_rows(first, stop)
        return rows_for_turn(rows, self.columns, self.rows, self.tilt_deg)

    def prepare(
        self, projections: NDArray[np.float32], first: int, stop: int
    ) -> NDArray[np.float32]:
        """Make projections of some slices as an engine takes them.

        Parameters
        ----------
        projections : ndarray of float32
            Line integrals of the `recorded_rows`, shape ``(n, m, columns)``.
        first, stop : int
            Slices, the last not included.

        Returns
        -------
        ndarray of float32
            Shape ``(n, stop - first, size)``.
        """
        images = turn_images(
            projections,
            self.tilt_deg,
            first_row=self.recorded_rows(first, stop).start,
            all_rows=self.rows,
            rows=self.levelled_rows(first, stop),
        )
        images = bin_images(images, self.bin)
        wide = self.wide
        return images if wide is None else wide(images)
