"""The Fourier grid of a whole volume, to which projections are added as they arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._lengths import cut_length
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding._geometry import GriddingGeometry, grid_bytes
from apsber_bluesky.processing.gridding._spectra import CHUNK, Each, SpectraPlace
from apsber_bluesky.processing.gridding._spread import spread

# A chunk is added before it is complete once the chunk that is so many later has begun.
_LATE = 4
# Chunks whose spectra are kept in a scan that loses nothing: the first, the last, the present one.
_KEPT = 3
_ROUNDING = 1e-9


class ResidentGrid:
    """Adds spectra to the grid of every slice, chunk by chunk in the order of the scan.

    The order of the chunks is that of the scan, however they arrive, so that the sums do not
    depend on it. The spectra of a chunk are dropped once it and its neighbours are complete;
    those of a chunk that lacks a projection are kept, since their weights change if it is given
    up. A projection that comes more than four chunks late is added when it comes.

    Parameters
    ----------
    geometry : GriddingGeometry
        Lengths and tables.
    angles_deg : ndarray of float64
        Angle of each projection [deg].
    blocks : int
        Blocks of 16 slices.
    centre : float
        Column of the rotation axis [pixel].
    each : callable
        Does a piece of work on every task, perhaps by threads.
    """

    def __init__(
        self,
        geometry: GriddingGeometry,
        angles_deg: NDArray[np.float64],
        blocks: int,
        centre: float,
        each: Each,
    ) -> None:
        self.centre = centre
        self._geometry, self._angles, self._each = geometry, angles_deg, each
        self._turn = geometry.turn(centre).reshape(-1)
        self._table = geometry.table.reshape(-1)
        self._blocks = range(blocks)
        self._cells = geometry.grid_shape[0] * geometry.grid_shape[1] * LANES
        self._grids = np.zeros((blocks, self._cells), np.float32)
        self._floats = CHUNK * geometry.period * LANES
        self._staged: dict[int, NDArray[np.float32]] = {}
        self._next = 0
        self._added = np.zeros(len(angles_deg))
        self.scale = 1.0

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, taps: int) -> int:
        """Memory of the grids and of the chunks that are kept when nothing is lost."""
        blocks = -(-rows // LANES)
        chunks = min(_KEPT, -(-projections // CHUNK))
        staged = chunks * CHUNK * cut_length(columns) * LANES * 4
        return blocks * (grid_bytes(columns, taps) + staged)

    def places(self, first: int, number: int) -> list[SpectraPlace]:
        """Where spectra of some projections go."""
        places = []
        for chunk in range(first // CHUNK, (first + number - 1) // CHUNK + 1):
            if chunk not in self._staged:
                self._staged[chunk] = np.zeros(len(self._blocks) * self._floats, np.float32)
            begin, end = max(first, chunk * CHUNK), min(first + number, (chunk + 1) * CHUNK)
            slots = np.arange(begin, end) - chunk * CHUNK
            places.append(SpectraPlace(begin - first, slots, self._staged[chunk], self._floats))
        return places

    def settle(self, seen: NDArray[np.bool_], weights: NDArray[np.float64]) -> None:
        """Add what is due of the projections seen; drop the spectra that are not needed more."""
        chunks = -(-len(self._angles) // CHUNK)
        newest = max(self._staged, default=0)
        while self._next < chunks and (
            self._complete(self._next, seen) or newest >= self._next + _LATE
        ):
            self._next += 1
        wanted = np.where(seen & (self._added == 0), weights / self.scale, 0)
        for chunk in sorted(self._staged):
            if chunk < self._next:
                self._add(chunk, wanted)
        for chunk in sorted(self._staged):
            # The first and the last chunk are neighbours in a scan of half a turn, and stay.
            near = range(chunk - 1, chunk + 2)
            if 0 < chunk < chunks - 1 and all(
                k < self._next and self._complete(k, seen) for k in near
            ):
                del self._staged[chunk]

    def give_up(self, seen: NDArray[np.bool_], weights: NDArray[np.float64]) -> None:
        """Go over to other weights; no more projections will come.

        Exact where the spectra are still kept, which is where projections are missing; of the
        others the sum of the weights is made right.
        """
        kept = np.isin(np.arange(len(self._angles)) // CHUNK, list(self._staged))
        dropped = (self._added > 0) & ~kept
        if dropped.any():
            ratio = weights[dropped].sum() / self._added[dropped].sum()
            self.scale = ratio if abs(ratio - 1) > _ROUNDING else 1.0
        self._next = -(-len(self._angles) // CHUNK)
        change = np.where(seen & kept, weights / self.scale - self._added, 0)
        change[np.abs(change) < _ROUNDING * weights] = 0
        for chunk in sorted(self._staged):
            self._add(chunk, change)

    def fill(
        self,
        block: int,
        seen: NDArray[np.bool_],
        weights: NDArray[np.float64],
        grid: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The grid of 16 slices with all projections seen, not to be changed; perhaps in `grid`."""
        pending = np.where(seen & (self._added == 0), weights / self.scale, 0)
        resident: NDArray[np.float32] = self._grids[block]
        if not pending.any():
            return resident
        grid[:] = resident
        for chunk in sorted(self._staged):
            self._spread(chunk, block, pending, self._points(chunk), grid)
        return grid

    def _complete(self, chunk: int, seen: NDArray[np.bool_]) -> bool:
        return bool(seen[max(chunk, 0) * CHUNK : (chunk + 1) * CHUNK].all())

    def _points(self, chunk: int) -> Any:
        return self._geometry.points(self._angles[chunk * CHUNK : (chunk + 1) * CHUNK])

    def _add(self, chunk: int, weights: NDArray[np.float64]) -> None:
        own = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        if not weights[own].any():
            return
        points = self._points(chunk)
        self._each(
            lambda block: self._spread(chunk, block, weights, points, self._grids[block]),
            self._blocks,
        )
        self._added[own] += weights[own]

    def _spread(
        self,
        chunk: int,
        block: int,
        weights: NDArray[np.float64],
        points: Any,
        grid: NDArray[np.float32],
    ) -> None:
        geometry = self._geometry
        spread(
            geometry.taps,
            self._staged[chunk],
            block * self._floats,
            geometry.period,
            weights[chunk * CHUNK : (chunk + 1) * CHUNK].astype(np.float32),
            self._turn,
            self._table,
            points,
            grid,
            geometry.stride,
        )
