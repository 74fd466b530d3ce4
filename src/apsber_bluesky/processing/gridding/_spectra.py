"""Filtered spectra of a whole scan, from which slices about any axis can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._lengths import cut_length
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding._geometry import GriddingGeometry
from apsber_bluesky.processing.gridding._points import POINT_BYTES, PointArrays
from apsber_bluesky.processing.gridding._spread import spread

Each = Callable[[Callable[[Any], None], Iterable[Any]], None]

CHUNK = 64
"""Projections that are added to the grid at once: their spectra stay in the cache."""


class SpectraPlace(NamedTuple):
    """Where spectra of some projections go.

    Attributes
    ----------
    start : int
        First of the projections in the chunk that was given.
    slots : ndarray of int64
        Place of each projection's spectra, shape ``(n,)`` [spectra of 16 slices].
    spectra : ndarray of float32
        Array they go into, flat.
    block_floats : int
        Floats from each block of 16 slices to the next.
    """

    start: int
    slots: NDArray[np.int64]
    spectra: NDArray[np.float32]
    block_floats: int


class SpectraStore:
    """Keeps spectra in the order of their angles, so that those of a chunk lie close together.

    Parameters
    ----------
    geometry : GriddingGeometry
        Lengths and tables.
    angles_deg : ndarray of float64
        Angle of each projection [deg].
    blocks : int
        Blocks of 16 slices.
    """

    def __init__(
        self, geometry: GriddingGeometry, angles_deg: NDArray[np.float64], blocks: int
    ) -> None:
        self._geometry = geometry
        self._order = np.argsort(np.mod(angles_deg, 180), kind="stable")
        self._angles = angles_deg[self._order]
        self._rank = np.empty(len(angles_deg), np.int64)
        self._rank[self._order] = np.arange(len(angles_deg))
        self._floats = len(angles_deg) * geometry.period * LANES
        self._spectra = np.zeros(blocks * self._floats, np.float32)
        self._points: list[PointArrays] = []

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int) -> int:
        """Memory of the spectra and of the points."""
        samples = projections * cut_length(columns)
        return samples * (-(-rows // LANES) * LANES * 4 + POINT_BYTES)

    scale = 1.0

    def places(self, first: int, number: int) -> list[SpectraPlace]:
        """Where spectra of some projections go."""
        slots = self._rank[first : first + number]
        return [SpectraPlace(0, slots, self._spectra, self._floats)]

    def prepare(self, each: Each) -> None:
        """Sort the points, unless that was done before; `each` does a piece of work on tasks."""
        if self._points:
            return
        starts = range(0, len(self._angles), CHUNK)
        found: list[PointArrays | None] = [None] * len(starts)

        def sort(place: int) -> None:
            start = starts[place]
            found[place] = self._geometry.points(self._angles[start : start + CHUNK])

        each(sort, range(len(starts)))
        self._points = [points for points in found if points is not None]

    def fill(
        self,
        block: int,
        weights: NDArray[np.float64],
        turn: NDArray[np.float32],
        grid: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Add the spectra of 16 slices, each projection with its weight, to an empty grid."""
        geometry = self._geometry
        grid[:] = 0
        ordered = weights[self._order].astype(np.float32)
        for number, points in enumerate(self._points):
            start = number * CHUNK
            spread(
                geometry.taps,
                self._spectra,
                block * self._floats + start * geometry.period * LANES,
                geometry.period,
                ordered[start : start + CHUNK],
                turn,
                geometry.table.reshape(-1),
                points,
                grid,
                geometry.stride,
            )
        return grid
