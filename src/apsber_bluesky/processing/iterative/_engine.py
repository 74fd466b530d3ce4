"""Iterative reconstruction in the shape of an engine, for what reconstructs slab by slab."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import Cancellation
from apsber_bluesky.processing._engine_scan import EngineScan
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative._reconstruct import (
    IterationReport,
    iterative_bytes,
    reconstruct_iteratively,
)
from apsber_bluesky.processing.iterative._settings import IterativeSettings


class IterativeEngine(EngineScan):
    """Keeps the projections as they arrive and iterates when slices are asked for.

    Projections that have not arrived are left out of the sums, so `give_up_missing` changes
    nothing but the books. Slices are reconstructed in blocks of 16 from the first one on, so the
    volume does not depend, bit by bit, on which slices are asked for together.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    settings : IterativeSettings
        Method and what it may do.
    threads : int
        Threads to work with.
    progress : callable, optional
        Told of every iteration, as in `reconstruct_iteratively`.
    cancelled : Cancellation, optional
        Asked before every iteration.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        angles_deg: ArrayLike,
        settings: IterativeSettings,
        threads: int,
        *,
        progress: Callable[[IterationReport], None] | None = None,
        cancelled: Cancellation | None = None,
    ) -> None:
        super().__init__(rows, columns, angles_deg, threads)
        self.name = settings.method
        self._settings, self._progress, self._cancelled = settings, progress, cancelled
        self._projections = np.zeros((len(self._angles), rows, columns), np.float32)

    @staticmethod
    def required_bytes(
        settings: IterativeSettings, rows: int, columns: int, projections: int, threads: int
    ) -> int:
        """Memory that the engine needs: the projections, and the work of each thread."""
        kept = projections * rows * columns * 4
        return kept + iterative_bytes(settings, rows, columns, projections, threads=threads)

    def accumulate(self, projections: NDArray[np.float32], first: int) -> None:
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
            projection was seen before. Nothing of the chunk is taken then.
        """
        with self._lock:
            self._check_chunk(projections, first)
            self._check_values(projections, first)
            self._projections[first : first + len(projections)] = projections
            self._seen[first : first + len(projections)] = True

    def finish(self, slices: slice, centre: float) -> NDArray[np.float32]:
        """Reconstruct some slices from the projections seen so far.

        Parameters
        ----------
        slices : slice
            Which slices.
        centre : float
            Column of the rotation axis [pixel].

        Returns
        -------
        ndarray of float32
            Attenuation [1/pixel], shape ``(n, size, size)``.

        Raises
        ------
        InputError
            If the centre lies outside the frame, there are no such slices, or memory would not
            suffice.
        RunCancelled
            If it was told to stop.
        """
        wanted = self._wanted(slices)
        self._check_centre(centre)
        out = np.zeros((len(wanted), self._columns, self._columns), np.float32)
        with self._lock:
            seen = self._seen.copy()
        if not seen.any():
            return out
        numbers = np.array(wanted)
        # One call for all blocks between the first and the last, so that threads share them.
        first = int(numbers.min()) // LANES * LANES
        stop = min((int(numbers.max()) // LANES + 1) * LANES, self._rows)
        measured = self._projections[:, first:stop]
        done = reconstruct_iteratively(
            measured if seen.all() else measured[seen],
            self._angles[seen],
            centre,
            settings=self._settings,
            threads=self._threads,
            progress=self._progress,
            cancelled=self._cancelled,
        )
        out[:] = done.volume[numbers - first]
        return out
