"""Lengths, kernel and sorted points of the gridding engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from apsber_bluesky.processing._filters import ramp_filter
from apsber_bluesky.processing._lengths import cut_length, padded_length, smooth_length
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding._fourier import FourierPlan
from apsber_bluesky.processing.gridding._points import TILE, PointArrays, sorted_points
from apsber_bluesky.processing.gridding._spread import TABLE

_OVERSAMPLING = 1.25
# Beyond the exponential-of-semicircle kernel's own optimum the error of the image grows at once.
_BETA = 0.976 * math.pi
_TAPS_ROOM = 8


@dataclass(frozen=True)
class GriddingGeometry:
    """What the kernels of the gridding engine need to know of a detector row.

    A row of `columns` pixels is ramp-filtered at `padded` samples and cut to `period`. Frequency
    ``m`` of its spectrum lies ``m * size / period`` cells from the middle of a grid of
    ``size x size`` cells and is spread over ``taps x taps`` of them with the kernel
    ``exp(beta (sqrt(1 - t^2) - 1))``, ``|t| <= 1`` (Barnett, Magland and af Klinteberg, SIAM J.
    Sci. Comput. 41 (2019) C479). The grid has a margin, so that no point must be wrapped, and rows
    of a length that does not put its columns into the same lines of a cache.

    Parameters
    ----------
    columns : int
        Pixels of a detector row, which is also the size of a slice.
    filter_name : str
        Window of the ramp filter.
    taps : int
        Cells that a point reaches along each axis: 4 errs by 3e-4 of the attenuation, 5 by less
        than 1e-4.
    """

    columns: int
    filter_name: str
    taps: int

    @cached_property
    def padded(self) -> int:
        """Samples of a row while it is filtered."""
        return padded_length(self.columns)

    @cached_property
    def period(self) -> int:
        """Samples of a row that are kept."""
        return cut_length(self.columns)

    @cached_property
    def size(self) -> int:
        """Cells of the grid along each axis."""
        return grid_size(self.columns)

    @cached_property
    def stride(self) -> int:
        """Cells from one row of the stored grid to the next."""
        return _stride(self.size, self.taps)

    @cached_property
    def grid_shape(self) -> tuple[int, int, int]:
        """Shape of the stored grid of 16 slices."""
        return self.size + self.taps - 1, self.stride, LANES

    @cached_property
    def response(self) -> NDArray[np.float32]:
        """The ramp filter and the scale of its two transforms, shape ``(padded,)``."""
        return (ramp_filter(self.padded, self.filter_name) / self.padded).astype(np.float32)

    @cached_property
    def padded_plan(self) -> FourierPlan:
        """Transform of a padded row."""
        return FourierPlan.of(self.padded)

    @cached_property
    def period_plan(self) -> FourierPlan:
        """Transform of a cut row."""
        return FourierPlan.of(self.period)

    @cached_property
    def grid_plan(self) -> FourierPlan:
        """Transform along one axis of the grid."""
        return FourierPlan.of(self.size)

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """Kernel at the cells around a point, and its change to the next place of the table.

        Shape ``(TABLE, 16)``: weight of cell ``k`` for a point ``k - taps / 2 + place / TABLE``
        cells before it at ``k``, the change at ``8 + k``.
        """
        places = np.arange(TABLE + 1)[:, None] / TABLE
        distances = places + np.arange(self.taps)[None, :] - self.taps / 2
        weights = self._kernel(distances * (2 / self.taps))
        table = np.zeros((TABLE, 2 * _TAPS_ROOM), np.float32)
        table[:, : self.taps] = weights[:-1]
        table[:, _TAPS_ROOM : _TAPS_ROOM + self.taps] = np.diff(weights, axis=0)
        return table

    @cached_property
    def correction(self) -> NDArray[np.float32]:
        """What undoes the kernel along one axis of a slice, shape ``(columns,)``."""
        nodes, weights = np.polynomial.legendre.leggauss(200)
        pixel = np.arange(self.columns) - self.columns // 2
        waves = np.cos(np.pi * self.taps / self.size * nodes[None, :] * pixel[:, None])
        transform = waves @ (self._kernel(nodes) * weights) * (self.taps / 2)
        return (1 / transform).astype(np.float32)

    def turn(self, centre: float) -> NDArray[np.float32]:
        """Factor of each frequency that brings the rotation axis to 0.

        Real and imaginary part, shape ``(period, 2)``, with the scale of the FFT.
        """
        angle = 2j * np.pi * centre * scipy.fft.fftfreq(self.period)
        turned: NDArray[np.complex64] = (np.exp(angle) / self.period).astype(np.complex64)
        return turned.view(np.float32).reshape(self.period, 2)

    def points(self, angles_deg: NDArray[np.float64]) -> PointArrays:
        """Points of some projections, sorted by where they lie on the grid."""
        theta = np.deg2rad(angles_deg)
        steps = np.stack([np.cos(theta), np.sin(theta)], axis=1) * (self.size / self.period)
        return sorted_points(steps, self.period, self.size, self.stride, self.taps)

    def _kernel(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        beta = _BETA * self.taps * (1 - self.columns / (2 * self.size))
        inside = np.maximum(0, 1 - t * t)
        return np.where(inside > 0, np.exp(beta * (np.sqrt(inside) - 1)), 0)


def grid_size(columns: int) -> int:
    """Cells of the grid along each axis, whole tiles of it."""
    return TILE * smooth_length(math.ceil(_OVERSAMPLING * columns / TILE))


def grid_bytes(columns: int, taps: int) -> int:
    """Memory of the grid of 16 slices."""
    size = grid_size(columns)
    return (size + taps - 1) * _stride(size, taps) * LANES * 4


def _stride(size: int, taps: int) -> int:
    # The rows of a tile fall into different sets of a first-level cache of 64 sets.
    cells = size + taps - 1
    return cells + (TILE + taps - cells) % 64
