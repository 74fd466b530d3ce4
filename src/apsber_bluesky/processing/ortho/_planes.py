"""Where three planes of a volume see a projection, and how it is added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._filters import check_filter, ramp_filter

Planes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""The slices ``xy``, ``xz`` and ``yz`` of a volume (z, y, x)."""

# Samples of a filtered row per pixel: a straight line between them is then good to 1e-2 of the
# peak at edges, and to 1e-3 elsewhere.
_FINE = 2
# Rows that are transformed at once, so that they stay in the cache.
_BLOCK_ROWS = 64
BATCH = 8
"""Projections to add at once; more gain nothing."""


@dataclass(frozen=True, slots=True)
class _View:
    """How the rows of one plane see a projection.

    Pixel ``i`` of row ``r`` lies ``(start[r] + i * step) . (cos, sin)`` samples from the axis.
    """

    start: NDArray[np.float64]
    step: NDArray[np.float64]
    spans: NDArray[np.int64]


class PlaneProjector:
    """Ramp-filter projections and back-project them into three planes.

    Rows are zero-padded to twice their length, filtered, and sampled twice as finely, with the
    spectrum of the straight line between samples made good; so the planes are those of exact
    filtered back-projection but for about 1e-2 of the peak at sharp edges (W. H. Press et al.,
    Numerical Recipes, 2007, section 13.9, on the spectrum of an interpolation).

    Each projection is added on its own, one after the other, so the sums do not depend, bit by
    bit, on how many come at once or on the number of threads.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    centre : float
        Column of the rotation axis [pixel].
    position : tuple of int or None
        Where the planes lie in the volume, ``(z, y, x)``; by default in its middle.
    filter_name : str
        Window of the ramp filter.
    threads : int
        Threads to work with.

    Raises
    ------
    InputError
        If a value does not fit.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        centre: float,
        position: tuple[int, int, int] | None,
        filter_name: str,
        threads: int,
    ) -> None:
        _check(rows, columns, centre, threads)
        check_filter(filter_name)
        self.rows, self.columns, self.centre = rows, columns, centre
        self.position = _check_position(position, rows, columns)
        self._threads = threads
        self._padded = int(scipy.fft.next_fast_len(2 * columns, real=True))
        self._padded += self._padded % 2
        self._filter = _fine_filter(self._padded, filter_name)
        self._views = self._make_views()

    def empty(self) -> Planes:
        """Three planes of zeros."""
        rows, columns = self.rows, self.columns
        shapes = (columns, columns), (rows, columns), (rows, columns)
        xy, xz, yz = (np.zeros(shape, np.float32) for shape in shapes)
        return xy, xz, yz

    def check(self, projections: NDArray[np.float32]) -> None:
        """Refuse projections of another size, and values that are no numbers.

        Raises
        ------
        InputError
            If so.
        """
        if projections.ndim != 3 or projections.shape[1:] != (self.rows, self.columns):
            raise InputError(
                f"projections have shape {projections.shape}; give (n, rows, columns) = (n, "
                f"{self.rows}, {self.columns})"
            )
        for number, projection in enumerate(projections):
            if not np.isfinite(projection).all():
                raise InputError(
                    f"projection {number} of the chunk holds NaN or infinite line integrals; "
                    "normalise it first"
                )

    def add(
        self,
        planes: Planes,
        projections: NDArray[np.float32],
        angles_deg: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> None:
        """Add projections to planes.

        Parameters
        ----------
        planes : tuple of ndarray
            As `empty` made them.
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.
        angles_deg, weights : ndarray
            Angle [deg] and weight [rad] of each.
        """
        # numba takes longer to import than all the rest of the package.
        from apsber_bluesky.processing.ortho._kernels import back_project

        theta = np.deg2rad(angles_deg)
        cosines, sines = np.cos(theta), np.sin(theta)
        factors = weights.astype(np.float32)
        places = [self._places(view, cosines, sines) for view in self._views]
        middle = np.empty((len(projections), 1, _FINE * self.columns + 2), np.float32)
        z = self.position[0]

        def upright(rows: range) -> None:
            lines = self._filtered(projections[:, rows.start : rows.stop])
            if z in rows:
                middle[:, 0] = lines[:, z - rows.start]
            for plane, view, (starts, steps) in zip(
                planes[1:], self._views[1:], places[1:], strict=True
            ):
                part = slice(rows.start, rows.stop)
                spans = view.spans[part]
                own = np.ascontiguousarray(starts[:, part])
                back_project(lines, own, steps, factors, spans, plane[part])

        def level(rows: range) -> None:
            (starts, steps), part = places[0], slice(rows.start, rows.stop)
            spans = self._views[0].spans[part]
            own = np.ascontiguousarray(starts[:, part])
            back_project(middle, own, steps, factors, spans, planes[0][part])

        self._each(upright, _blocks(self.rows))
        self._each(level, _blocks(self.columns))

    def _places(
        self, view: _View, cosines: NDArray[np.float64], sines: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Place of pixel 0 of each row in each projection's filtered row, and the step."""
        start, step = view.start, view.step
        starts = cosines[:, None] * start[None, :, 0] + sines[:, None] * start[None, :, 1]
        # A filtered row begins one sample before the first pixel.
        return starts + (_FINE * self.centre + 1), cosines * step[0] + sines * step[1]

    def _filtered(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter rows of projections: samples from one before the first pixel to one behind."""
        count, height, _ = rows.shape
        length = _FINE * self._padded
        lines = np.empty((count, height, _FINE * self.columns + 2), np.float32)
        # One projection at a time, so that its bits do not depend on its neighbours.
        for line, row in zip(lines, rows, strict=True):
            spectrum = scipy.fft.rfft(row, self._padded, axis=-1)
            spectrum *= self._filter
            fine = scipy.fft.irfft(spectrum, length, axis=-1, overwrite_x=True)
            line[:, 0] = fine[:, -1]
            line[:, 1:] = fine[:, : _FINE * self.columns + 1]
        return lines

    def _make_views(self) -> tuple[_View, _View, _View]:
        half, radius = self.columns // 2, min(self.centre, self.columns - 1 - self.centre) + 0.5
        across = np.arange(self.columns) - half
        _, y, x = (place - half for place in self.position)
        # The first column of `start` goes with the cosine (x), the second with the sine (y).
        level = np.stack([np.full(self.columns, -half), across], axis=1)
        upright = np.ones((self.rows, 1))
        views = (
            (level, (1, 0), across),
            (upright * (-half, y), (1, 0), np.full(self.rows, y)),
            (upright * (x, -half), (0, 1), np.full(self.rows, x)),
        )
        first, second, third = (
            _View(
                _FINE * start.astype(np.float64),
                _FINE * np.array(step, dtype=np.float64),
                _spans(offsets, radius, self.columns),
            )
            for start, step, offsets in views
        )
        return first, second, third

    def _each(self, work: Callable[[Any], None], tasks: Iterable[Any]) -> None:
        if self._threads == 1:
            for task in tasks:
                work(task)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(work, tasks):
                pass


def plane_bytes(rows: int, columns: int) -> int:
    """Size of three planes."""
    return 4 * columns * (columns + 2 * rows)


def batch_bytes(columns: int, threads: int) -> int:
    """Size of the filtered rows of a batch, and of a transform."""
    lines = BATCH * _BLOCK_ROWS * (_FINE * columns + 2) * 4
    # The padded rows have twice the columns: as a spectrum, and as fine samples.
    transform = _BLOCK_ROWS * 2 * columns * 4 * (1 + _FINE)
    return threads * (lines + transform)


def _check(rows: int, columns: int, centre: float, threads: int) -> None:
    if rows < 1 or columns < 2:
        raise InputError(
            f"projections of {rows} rows x {columns} columns cannot be reconstructed; at least "
            "1 x 2 are needed"
        )
    if not 0 <= centre <= columns - 1:
        raise InputError(
            f"centre {centre} lies outside the frame of {columns} columns; give a column between "
            f"0 and {columns - 1}"
        )
    if threads < 1:
        raise InputError(f"threads is {threads}; give at least 1")


def _check_position(
    position: tuple[int, int, int] | None, rows: int, columns: int
) -> tuple[int, int, int]:
    if position is None:
        return rows // 2, columns // 2, columns // 2
    for name, place, size in zip("zyx", position, (rows, columns, columns), strict=True):
        if not 0 <= place < size:
            raise InputError(
                f"slice {name} = {place} lies outside the volume; give 0 to {size - 1}"
            )
    return position


def _fine_filter(padded: int, filter_name: str) -> NDArray[np.float32]:
    """Ramp filter for rows that come out twice as fine, against the blur of straight lines."""
    half = padded // 2 + 1
    blur = np.sinc(np.arange(half) / (_FINE * padded)) ** 2
    response = _FINE * ramp_filter(padded, filter_name)[:half] / blur
    # In the longer row this frequency is one of a pair.
    response[-1] /= 2
    return np.asarray(response, dtype=np.float32)


def _spans(offsets: NDArray[np.int64], radius: float, columns: int) -> NDArray[np.int64]:
    """Pixels of each row that are in the field of view at every angle."""
    half = columns // 2
    squares = np.arange(half + 1) ** 2
    reach = np.searchsorted(squares, radius**2 - offsets**2, side="right")
    spans = np.stack([half + 1 - reach, np.minimum(half + reach, columns)], axis=1)
    spans[reach == 0] = 0
    return spans.astype(np.int64)


def _blocks(rows: int) -> list[range]:
    return [range(n, min(n + _BLOCK_ROWS, rows)) for n in range(0, rows, _BLOCK_ROWS)]
