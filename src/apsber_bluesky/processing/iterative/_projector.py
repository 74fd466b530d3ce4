"""The projector pair: line integrals of a volume, and the exact transpose of taking them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._lengths import cut_length
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing._weights import check_angles
from apsber_bluesky.processing.gridding import (
    CHUNK,
    GROUP,
    POINT_BYTES,
    GriddingGeometry,
    PointArrays,
    grid_bytes,
    grid_size,
    spread,
    transform_columns,
)
from apsber_bluesky.processing.iterative._interpolate import interpolate
from apsber_bluesky.processing.iterative._projector_stages import (
    image_to_rows,
    lines_to_spectra,
    rows_to_grid,
    rows_to_image,
    spectra_to_lines,
)

_TAPS = 5
_Array = NDArray[np.float32]


class ProjectorMemory:
    """Working memory of one thread: a Fourier grid, some of its columns and a chunk of spectra."""

    def __init__(self, geometry: GriddingGeometry) -> None:
        self.grid = np.empty(math.prod(geometry.grid_shape), np.float32)
        self.columns = np.empty((GROUP + 1) * LANES * geometry.size, np.float32)
        self.samples = np.empty(CHUNK * LANES * geometry.period, np.float32)
        self.spare = np.empty(LANES * geometry.period, np.float32)


class Projector:
    """Parallel-beam projections of a volume, and their transpose, by non-uniform FFT.

    The projection at angle ``theta`` of an image with values ``f`` at pixels ``(x, y)`` from the
    axis is ``sum f D(column - centre - x cos(theta) - y sin(theta))``; ``D`` is the periodic sinc
    of a detector row and of the 1/8 of it that is added, so every pixel counts once in every
    projection, and frequencies up to the detector's own Nyquist frequency are kept. It is
    computed by the central slice theorem: the Fourier transform of the image is interpolated
    along a line for each angle, with the kernel and oversampling of the gridding engine, 16
    slices at a time. `back_project` is the exact transpose of `project`: the same weights are
    used the other way round.

    Parameters
    ----------
    columns : int
        Pixels of a detector row; slices are ``columns x columns``.
    angles_deg : array_like
        Angle of each projection, in any order, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis [pixel].

    Raises
    ------
    InputError
        If an angle is not finite, there is none, or the centre lies outside the frame.
    """

    def __init__(self, columns: int, angles_deg: ArrayLike, centre: float) -> None:
        self.angles_deg = check_angles(angles_deg)
        if columns < 2:
            raise InputError(f"detector rows of {columns} columns cannot be; give at least 2")
        if not 0 <= centre <= columns - 1:
            raise InputError(
                f"centre {centre} lies outside the frame of {columns} columns; "
                f"give a column between 0 and {columns - 1}"
            )
        self.columns, self.centre = columns, float(centre)
        self.radius = min(centre, columns - 1 - centre) + 0.5
        self.geometry = GriddingGeometry(columns, "ramp", _TAPS)
        # Projections of like angles lie close together on the grid, and so in the cache.
        self.order = np.argsort(np.mod(self.angles_deg, 180), kind="stable")
        self._turn = self.geometry.turn(centre).reshape(-1)
        self._table = self.geometry.table.reshape(-1)

    @staticmethod
    def required_bytes(columns: int, projections: int, threads: int) -> int:
        """Memory of the sorted points, and of the work of each thread."""
        period, size = cut_length(columns), grid_size(columns)
        work = (GROUP + 1) * LANES * size + (CHUNK + 1) * LANES * period
        each = grid_bytes(columns, _TAPS) + work * 4
        return projections * period * POINT_BYTES + threads * each

    @cached_property
    def points(self) -> list[PointArrays]:
        """Sorted points of each chunk of projections."""
        angles = self.angles_deg[self.order]
        return [
            self.geometry.points(angles[start : start + CHUNK])
            for start in range(0, len(angles), CHUNK)
        ]

    def prepare(self) -> None:
        """Sort the points now, before several threads need them."""
        _ = self.points

    def memory(self) -> ProjectorMemory:
        """Working memory for one thread."""
        return ProjectorMemory(self.geometry)

    def forward(self, image: _Array, lines: _Array, memory: ProjectorMemory) -> None:
        """Project 16 slices.

        Parameters
        ----------
        image : ndarray of float32
            Slices, shape ``(columns, columns, 16)``, contiguous; beyond the field of view they
            are taken as 0.
        lines : ndarray of float32
            Where the projections go in the order `order`, shape ``(n, columns, 16)``, contiguous.
        memory : ProjectorMemory
            Working memory.
        """
        geometry, reach = self.geometry, math.floor(self.radius)
        size, stride, plan = geometry.size, geometry.stride, geometry.grid_plan.parts
        flat, grid, half = image.reshape(-1), memory.grid, self.columns // 2
        image_to_rows(
            flat, size, stride, plan, geometry.correction, self.radius, grid, memory.columns
        )
        # An even number of rows has none at +half; nothing was written there.
        first, last = -min(reach, half), min(reach, self.columns - 1 - half)
        rows_to_grid(grid, geometry.taps - 1, size, stride, plan, first, last, memory.columns)
        for number, points in enumerate(self.points):
            part = lines[number * CHUNK : (number + 1) * CHUNK]
            interpolate(
                geometry.taps, memory.grid, stride, self._turn, self._table, points,
                geometry.period, memory.samples,
            )  # fmt: skip
            spectra_to_lines(
                memory.samples, len(part), geometry.period_plan.parts, self.columns,
                part.reshape(-1), memory.spare,
            )  # fmt: skip

    def adjoint(self, lines: _Array, image: _Array, memory: ProjectorMemory) -> None:
        """Transpose of `forward`: spread projections of 16 slices over the images.

        Parameters
        ----------
        lines : ndarray of float32
            Projections in the order `order`, shape ``(n, columns, 16)``, contiguous.
        image : ndarray of float32
            Where the slices go, shape ``(columns, columns, 16)``, contiguous; 0 beyond the field
            of view.
        memory : ProjectorMemory
            Working memory.
        """
        geometry, reach = self.geometry, min(math.floor(self.radius), self.columns // 2)
        size, stride, plan = geometry.size, geometry.stride, geometry.grid_plan.parts
        memory.grid[:] = 0
        ones = np.ones(CHUNK, np.float32)
        for number, points in enumerate(self.points):
            part = lines[number * CHUNK : (number + 1) * CHUNK]
            lines_to_spectra(
                part.reshape(-1), len(part), geometry.period_plan.parts, self.columns,
                memory.samples, memory.spare,
            )  # fmt: skip
            spread(
                geometry.taps, memory.samples, 0, geometry.period, ones, self._turn, self._table,
                points, memory.grid, stride,
            )  # fmt: skip
        transform_columns(
            memory.grid, geometry.taps - 1, size, stride, plan, reach, memory.grid, memory.columns
        )
        rows_to_image(
            memory.grid, size, stride, plan, geometry.correction, self.radius, image.reshape(-1),
            memory.columns,
        )  # fmt: skip

    def project(self, volume: _Array, *, threads: int = 1) -> _Array:
        """Line integrals of a volume.

        Parameters
        ----------
        volume : ndarray of float32
            Attenuation [1/pixel], shape ``(slices, columns, columns)``.
        threads : int
            Threads to work with; the result does not depend on it.

        Returns
        -------
        ndarray of float32
            Line integrals, shape ``(n, slices, columns)``.
        """
        expected = (self.columns, self.columns)
        if volume.ndim != 3 or volume.shape[1:] != expected:
            raise InputError(f"the volume has shape {volume.shape}; give (slices, *{expected})")
        out = np.empty((len(self.order), len(volume), self.columns), np.float32)

        def work(first: int, memory: ProjectorMemory) -> None:
            image = images_to_lanes(volume[first : first + LANES])
            lines = np.empty((len(self.order), self.columns, LANES), np.float32)
            self.forward(image, lines, memory)
            self.lines_from_lanes(lines, out, first)

        self._blocks(work, len(volume), threads)
        return out

    def back_project(self, projections: _Array, *, threads: int = 1) -> _Array:
        """Transpose of `project`: the sum over all projections, unfiltered.

        Parameters
        ----------
        projections : ndarray of float32
            Shape ``(n, slices, columns)``.
        threads : int
            Threads to work with; the result does not depend on it.

        Returns
        -------
        ndarray of float32
            Shape ``(slices, columns, columns)``.
        """
        self.check(projections)
        slices = projections.shape[1]
        out = np.empty((slices, self.columns, self.columns), np.float32)

        def work(first: int, memory: ProjectorMemory) -> None:
            lines = self.lines_to_lanes(projections, first)
            image = np.empty((self.columns, self.columns, LANES), np.float32)
            self.adjoint(lines, image, memory)
            images_from_lanes(image, out, first)

        self._blocks(work, slices, threads)
        return out

    def check(self, projections: _Array) -> None:
        """Refuse projections that are not those of this projector."""
        count, columns = len(self.order), self.columns
        if (
            projections.ndim != 3
            or projections.shape[::2] != (count, columns)
            or not projections.shape[1]
        ):
            raise InputError(
                f"projections have shape {projections.shape}; for these angles give "
                f"(n, rows, columns) = ({count}, rows, {columns})"
            )

    def lines_to_lanes(self, projections: _Array, first: int) -> _Array:
        """Detector rows of 16 slices as `adjoint` takes them; rows that are not there are 0."""
        part = projections[:, first : first + LANES]
        lines = np.zeros((len(self.order), self.columns, LANES), np.float32)
        # In parts, or the whole of it would be copied once more.
        for number, source in enumerate(self.order):
            lines[number, :, : part.shape[1]] = part[source].T
        return lines

    def lines_from_lanes(self, lines: _Array, projections: _Array, first: int) -> None:
        """Write what `forward` gave as detector rows."""
        part = projections[:, first : first + LANES]
        for number, target in enumerate(self.order):
            part[target] = lines[number, :, : part.shape[1]].T

    def clear_outside(self, image: _Array) -> None:
        """Set pixels of 16 slices to 0 that leave the field of view at some angle."""
        place = np.arange(self.columns) - self.columns // 2
        image[place[:, None] ** 2 + place[None, :] ** 2 > self.radius**2] = 0

    def _blocks(
        self, work: Callable[[int, ProjectorMemory], None], slices: int, threads: int
    ) -> None:
        self.prepare()
        starts = list(range(0, slices, LANES))
        count = min(threads, len(starts))

        def share(number: int) -> None:
            memory = self.memory()
            for first in starts[number::count]:
                work(first, memory)

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(share, range(count)))


def images_to_lanes(volume: _Array) -> _Array:
    """Up to 16 slices with the slices innermost; slices that are not there are 0."""
    image = np.zeros((*volume.shape[1:], LANES), np.float32)
    for number, part in enumerate(volume):
        image[..., number] = part
    return image


def images_from_lanes(image: _Array, volume: _Array, first: int) -> None:
    """Write 16 slices into a volume, those of them that it has."""
    for number, part in enumerate(volume[first : first + LANES]):
        part[:] = image[..., number]
