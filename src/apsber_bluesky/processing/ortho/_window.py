"""Three orthogonal slices of the last half turn of an endless scan."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._weights import check_angles
from apsber_bluesky.processing.ortho._planes import (
    BATCH,
    PlaneProjector,
    Planes,
    batch_bytes,
    plane_bytes,
)
from apsber_bluesky.processing.ortho._slices import OrthoSnapshot

_SAME_DEG = 1e-6
_SECTORS = 36


@dataclass(slots=True)
class _Sum:
    """Planes and how many projections are in them."""

    planes: Planes
    used: float = 0

    def plus(self, other: _Sum) -> _Sum:
        """Add to `other`, whose planes are overwritten."""
        for mine, theirs in zip(self.planes, other.planes, strict=True):
            theirs += mine
        other.used += self.used
        return other


class SlidingOrthoSlices:
    """Slices of the last 180 degrees, for a scan that turns on and on in one direction.

    The window moves in sectors, which are sums of projections, not the projections themselves:
    memory is that of so many planes, whatever the number of projections. Within a sector the
    oldest one fades out as the newest one fills, so that the newest projection always counts.

    What leaves is never subtracted, so rounding does not build up however long the scan is: when
    all sectors of one window have come, their sums from each one to the last are formed once, and
    then the window is always one of these plus the sectors since (the queue of two stacks that
    keeps running aggregates: K. Tangwongsan et al., Proc. VLDB Endow. 8 (2015) 702).

    Projections count alike: the rotation is uniform, but for frames that were left out. `add` and
    `restart` are for one thread, `snapshot` for any. Equal projections give equal bits, however
    they are cut into chunks and however many threads work.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    centre : float
        Column of the rotation axis [pixel].
    position : tuple of int, optional
        Where the slices lie, ``(z, y, x)``; by default in the middle of the volume.
    filter_name : {"ramp", "shepp", "hann", "parzen"}
        Window of the ramp filter.
    window_deg : float
        How far the slices look back; a multiple of 180 [deg].
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
        *,
        centre: float,
        position: tuple[int, int, int] | None = None,
        filter_name: str = "ramp",
        window_deg: float = 180.0,
        threads: int = 1,
    ) -> None:
        if not window_deg > 0 or window_deg % 180:
            raise InputError(f"a window of {window_deg} deg is no multiple of 180 deg")
        self._sectors = _SECTORS * round(window_deg / 180)
        self._width = window_deg / self._sectors
        self._filter_name, self._threads = filter_name, threads
        self._projector = PlaneProjector(rows, columns, centre, position, filter_name, threads)
        self._lock = threading.Lock()
        self._newest = self._none()
        self._begin()

    @staticmethod
    def required_bytes(rows: int, columns: int, window_deg: float = 180.0, threads: int = 1) -> int:
        """Memory of all sectors, of the rows that are worked on, and of a snapshot."""
        planes = _SECTORS * math.ceil(window_deg / 180) + 5
        return planes * plane_bytes(rows, columns) + batch_bytes(columns, threads)

    def restart(self, centre: float) -> None:
        """Begin anew with another centre and an empty window.

        Raises
        ------
        InputError
            If the centre lies outside the frame.
        """
        old = self._projector
        projector = PlaneProjector(
            old.rows, old.columns, centre, old.position, self._filter_name, self._threads
        )
        with self._lock:
            self._projector = projector
            self._begin()

    def add(self, projections: NDArray[np.float32], angles_deg: ArrayLike) -> None:
        """Take the next line integrals.

        Parameters
        ----------
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.
        angles_deg : array_like
            Angle of each, shape ``(n,)``; going on in one direction, beyond 360 [deg].

        Raises
        ------
        InputError
            If the shape does not fit, a value is NaN or infinite, or the rotation turned back.
            Nothing of the chunk is taken then.
        """
        self._projector.check(projections)
        if not len(projections):
            return
        angles = check_angles(angles_deg)
        if len(angles) != len(projections):
            raise InputError(f"{len(projections)} projections, but {len(angles)} angles")
        for place, sector in self._cut(angles):
            for start in range(place.start, place.stop, BATCH):
                part = slice(start, min(start + BATCH, place.stop))
                weights = np.ones(part.stop - part.start)
                with self._lock:
                    self._move_to(sector)
                    self._projector.add(
                        self._newest.planes, projections[part], angles[part], weights
                    )
                    self._newest.used += len(weights)
        self._last_deg = float(angles[-1])

    def snapshot(self) -> OrthoSnapshot:
        """The slices of the window; zeros before the first projection."""
        with self._lock:
            total = self._window()
            projector = self._projector
        scale = np.float32(np.pi / total.used if total.used else 0)
        for plane in total.planes:
            plane *= scale
        return OrthoSnapshot(*total.planes, projector.position, projector.centre, round(total.used))

    def _begin(self) -> None:
        self._first_deg: float | None = None
        self._last_deg = 0.0
        self._direction = 0.0
        self._sector = 0
        self._newest = self._none()
        # Sums from each old sector to the last old one; and the sectors since then, with their sum.
        self._tails: list[_Sum] = []
        self._recent: list[_Sum] = []
        self._recent_sum = self._none()

    def _none(self) -> _Sum:
        return _Sum(self._projector.empty())

    def _cut(self, angles: NDArray[np.float64]) -> list[tuple[range, int]]:
        """Consecutive projections of one sector, and its number."""
        first = float(angles[0]) if self._first_deg is None else self._first_deg
        before = float(angles[0]) if self._first_deg is None else self._last_deg
        steps = np.diff(angles, prepend=before)
        moves = steps[np.abs(steps) > _SAME_DEG]
        direction = self._direction or (float(np.sign(moves[0])) if len(moves) else 0.0)
        back = np.flatnonzero(moves * direction < 0)
        if len(back):
            raise InputError(
                f"the rotation turned back by {abs(moves[back[0]]):g} deg; a sliding window is for "
                "scans that turn on in one direction"
            )
        self._first_deg, self._direction = first, direction
        turned = (angles - first) * direction
        sectors = np.floor(turned / self._width + _SAME_DEG).astype(np.int64)
        edges = [0, *(np.flatnonzero(np.diff(sectors)) + 1).tolist(), len(angles)]
        return [(range(a, b), int(sectors[a])) for a, b in itertools.pairwise(edges)]

    def _move_to(self, sector: int) -> None:
        """Close the newest sector, and any that nothing came of, up to this one."""
        # More empty ones than a window has change nothing.
        for _ in range(min(sector - self._sector, self._sectors + 1)):
            closed, self._newest = self._newest, self._none()
            self._recent.append(closed)
            self._recent_sum = closed.plus(self._recent_sum)
            if len(self._tails) + len(self._recent) > self._sectors:
                self._drop_oldest()
        self._sector = sector

    def _drop_oldest(self) -> None:
        if not self._tails:
            self._turn_over()
        self._tails.pop()

    def _turn_over(self) -> None:
        """Make the recent sectors the old ones, as sums from each to the last."""
        tails = self._recent[::-1]
        for later, earlier in itertools.pairwise(tails):
            later.plus(earlier)
        self._tails, self._recent, self._recent_sum = tails, [], self._none()

    def _window(self) -> _Sum:
        """Everything in the window; the oldest sector as far as the newest has not replaced it."""
        full = len(self._tails) + len(self._recent) == self._sectors
        if full and not self._tails:
            self._turn_over()
        total = self._newest.plus(self._recent_sum.plus(self._none()))
        if full:
            whole = self._tails[-1]
            rest = self._tails[-2] if len(self._tails) > 1 else self._none()
            oldest = whole.used - rest.used
            gone = min(1.0, self._newest.used / oldest) if oldest else 1.0
            for target, with_it, without in zip(
                total.planes, whole.planes, rest.planes, strict=True
            ):
                target += np.float32(1 - gone) * with_it
                target += np.float32(gone) * without
            total.used += (1 - gone) * whole.used + gone * rest.used
        return total
