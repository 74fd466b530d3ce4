"""Three orthogonal slices of a volume, kept up to date as projections arrive."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._weights import angular_weights, check_angles
from apsber_bluesky.processing.ortho._planes import (
    BATCH,
    PlaneProjector,
    Planes,
    batch_bytes,
    plane_bytes,
)


@dataclass(frozen=True, slots=True)
class OrthoSnapshot:
    """The slices at one moment.

    Attributes
    ----------
    xy, xz, yz : ndarray of float32
        Attenuation [1/pixel] at ``z``, ``y`` and ``x`` of `position`, shapes
        ``(columns, columns)``, ``(rows, columns)`` and ``(rows, columns)``.
    position : tuple of int
        ``(z, y, x)`` in the volume.
    centre : float
        Rotation centre that they were made with [pixel].
    used : int
        Projections that are in them.
    """

    xy: NDArray[np.float32]
    xz: NDArray[np.float32]
    yz: NDArray[np.float32]
    position: tuple[int, int, int]
    centre: float
    used: int


class OrthoSlices:
    """Slices of a scan whose angles are known, in whatever order its projections come.

    Each projection is filtered and back-projected into the three planes when it arrives and is
    not kept. What is shown of a part of a scan is scaled up, as a missing wedge is by
    `angular_weights`: the mean is right, directions not seen yet are blurred. The geometry is that
    of `create_engine`; pixels that leave the field of view at some angle are 0.

    `add` and `restart` are for one thread, `snapshot` for any. Equal projections in equal order
    give equal bits, however they are cut into chunks and however many threads work.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)``, in any order and range [deg].
    centre : float
        Column of the rotation axis [pixel].
    position : tuple of int, optional
        Where the slices lie, ``(z, y, x)``; by default in the middle of the volume.
    filter_name : {"ramp", "shepp", "hann", "parzen"}
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
        angles_deg: ArrayLike,
        *,
        centre: float,
        position: tuple[int, int, int] | None = None,
        filter_name: str = "ramp",
        threads: int = 1,
    ) -> None:
        self._angles = check_angles(angles_deg)
        self._weights = angular_weights(self._angles)
        self._filter_name, self._threads = filter_name, threads
        self._projector = PlaneProjector(rows, columns, centre, position, filter_name, threads)
        self._lock = threading.Lock()
        self._begin()

    @staticmethod
    def required_bytes(rows: int, columns: int, threads: int = 1) -> int:
        """Memory of the slices, of the rows that are worked on, and of a snapshot."""
        return 2 * plane_bytes(rows, columns) + batch_bytes(columns, threads)

    @property
    def used(self) -> int:
        """Projections added so far."""
        return int(np.count_nonzero(self._seen))

    def restart(self, centre: float) -> None:
        """Begin anew with another centre; projections added before are not in the slices.

        They may be given again.

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

    def add(self, projections: NDArray[np.float32], first: int) -> None:
        """Take line integrals of projections ``first`` to ``first + n``.

        Parameters
        ----------
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.
        first : int
            Number of the first of them in the scan.

        Raises
        ------
        InputError
            If the shape or a number does not fit the scan, a value is NaN or infinite, or a
            projection was added before. Nothing of the chunk is taken then.
        """
        self._projector.check(projections)
        stop = first + len(projections)
        if first < 0 or stop > len(self._angles):
            raise InputError(
                f"projections {first} to {stop - 1} do not fit a scan of {len(self._angles)} "
                f"(0 to {len(self._angles) - 1})"
            )
        again = first + np.flatnonzero(self._seen[first:stop])
        if len(again):
            raise InputError(f"projection {again[0]} was added before; give each once")
        for start in range(first, stop, BATCH):
            part = slice(start, min(start + BATCH, stop))
            own = projections[start - first : part.stop - first]
            with self._lock:
                self._projector.add(self._planes, own, self._angles[part], self._weights[part])
                self._seen[part] = True

    def snapshot(self) -> OrthoSnapshot:
        """The slices of all projections so far; zeros before the first."""
        with self._lock:
            weight = float(self._weights[self._seen].sum())
            scale = np.float32(np.pi / weight if weight else 0)
            xy, xz, yz = (plane * scale for plane in self._planes)
            projector = self._projector
            return OrthoSnapshot(xy, xz, yz, projector.position, projector.centre, self.used)

    def _begin(self) -> None:
        self._planes: Planes = self._projector.empty()
        self._seen = np.zeros(len(self._angles), dtype=np.bool_)
