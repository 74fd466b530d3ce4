"""What every engine keeps of its scan: angles, weights, which projections came; and its checks."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._weights import angular_weights, check_angles


class EngineScan:
    """Base of the engines: the books of one scan, without the arithmetic.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    threads : int
        Threads to work with.
    """

    def __init__(self, rows: int, columns: int, angles_deg: ArrayLike, threads: int) -> None:
        self._rows, self._columns, self._threads = rows, columns, threads
        self._angles = check_angles(angles_deg)
        self._weights = angular_weights(self._angles)
        self._seen = np.zeros(len(self._angles), dtype=np.bool_)
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(slices, size, size)`` of the volume."""
        return self._rows, self._columns, self._columns

    @property
    def accumulated(self) -> int:
        """Projections seen so far."""
        return int(np.count_nonzero(self._seen))

    @property
    def missing(self) -> list[int]:
        """Numbers of the projections not seen so far."""
        return [int(number) for number in np.flatnonzero(~self._seen)]

    def hold_centre(self, centre: float) -> None:
        """Promise that `finish` will be asked for this rotation centre alone.

        Engines that gain nothing from it only check the centre.

        Parameters
        ----------
        centre : float
            Column of the rotation axis [pixel].

        Raises
        ------
        InputError
            If the centre lies outside the frame.
        """
        self._check_centre(centre)

    def give_up_missing(self) -> list[int]:
        """Share the weight of the projections not seen among their neighbours.

        To be called when no more projections will come and some were lost; without it the
        missing ones count as empty and the attenuation comes out too low.

        Returns
        -------
        list of int
            Numbers of the projections given up.

        Raises
        ------
        InputError
            If no projection was seen at all.
        """
        with self._lock:
            if not self._seen.any():
                raise InputError("no projection has arrived; there is nothing to reconstruct from")
            weights = np.zeros(len(self._angles))
            weights[self._seen] = angular_weights(self._angles[self._seen])
            self._weights = weights
            self._weights_changed()
            return self.missing

    def _weights_changed(self) -> None:
        """Told after `give_up_missing` has changed the weights; the lock is held."""

    def _check_chunk(self, projections: NDArray[np.float32], first: int) -> None:
        """Refuse projections that do not fit the scan or that came before."""
        expected = (self._rows, self._columns)
        if projections.ndim != 3 or projections.shape[1:] != expected:
            raise InputError(
                f"projections have shape {projections.shape}; this engine takes (n, rows, "
                f"columns) = (n, {self._rows}, {self._columns})"
            )
        stop = first + len(projections)
        if first < 0 or stop > len(self._angles):
            raise InputError(
                f"projections {first} to {stop - 1} do not fit a scan of {len(self._angles)} "
                f"(0 to {len(self._angles) - 1})"
            )
        again = first + np.flatnonzero(self._seen[first:stop])
        if len(again):
            raise InputError(f"projection {again[0]} was accumulated before; give each once")

    def _check_values(self, projections: NDArray[np.float32], first: int) -> None:
        """Refuse NaN and infinite line integrals."""
        for number, projection in enumerate(projections, first):
            if not np.isfinite(projection).all():
                raise InputError(
                    f"projection {number} holds NaN or infinite line integrals; normalise it first"
                )

    def _check_centre(self, centre: float) -> None:
        """Refuse a rotation axis that is not in the frame."""
        if not 0 <= centre <= self._columns - 1:
            raise InputError(
                f"centre {centre} lies outside the frame of {self._columns} columns; "
                f"give a column between 0 and {self._columns - 1}"
            )

    def _wanted(self, slices: slice) -> range:
        """Numbers of the slices asked for."""
        wanted = range(self._rows)[slices]
        if not len(wanted):
            raise InputError(f"no slices in {slices}; the volume has {self._rows}")
        return wanted

    def _field_radius(self, centre: float) -> float:
        """Pixels farther from the axis leave the field of view at some angle."""
        return min(centre, self._columns - 1 - centre) + 0.5

    def _each(self, work: Callable[[Any], None], tasks: Iterable[Any]) -> None:
        """Do the work on every task, by as many threads as there are; this one is one of them."""
        waiting = list(tasks)
        helpers = min(self._threads, len(waiting)) - 1
        # The interpreter lock makes each thread take the next one, and none twice.
        shared = iter(waiting)

        def take() -> None:
            for task in shared:
                work(task)

        others = [self._helpers.submit(take) for _ in range(helpers)]
        try:
            take()
        finally:
            # What has not begun by now finds nothing left to do.
            begun = [other for other in others if not other.cancel()]
            wait(begun)
        for other in begun:
            other.result()

    @functools.cached_property
    def _helpers(self) -> ThreadPoolExecutor:
        """Threads that stay while the engine does: to start some for each chunk takes longer."""
        return ThreadPoolExecutor(max(self._threads - 1, 1), thread_name_prefix="engine")
