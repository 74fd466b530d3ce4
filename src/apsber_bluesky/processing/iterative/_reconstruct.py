"""Iterative reconstruction, for few or noisy projections."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import Cancellation, InputError
from apsber_bluesky.processing._free_memory import free_memory
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative import _cgls, _sirt, _tv
from apsber_bluesky.processing.iterative._block import Block
from apsber_bluesky.processing.iterative._projector import (
    Projector,
    ProjectorMemory,
    images_from_lanes,
    images_to_lanes,
)
from apsber_bluesky.processing.iterative._settings import IterativeSettings

_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class IterationReport:
    """What is told of an iteration that begins.

    Attributes
    ----------
    first_slice : int
        First of the up to 16 slices that are reconstructed together.
    iteration : int
        Number of the iteration, from 1.
    residuals : ndarray of float64
        Root mean square of the residual that each slice starts it from, shape ``(slices,)``; NaN
        for a slice that has stopped.
    """

    first_slice: int
    iteration: int
    residuals: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IterativeReconstruction:
    """What comes of `reconstruct_iteratively`.

    Attributes
    ----------
    volume : ndarray of float32
        Attenuation [1/pixel], shape ``(rows, columns, columns)``, as `reconstruct` gives it.
    residuals : ndarray of float64
        Root mean square of the residual of each slice before each iteration, shape
        ``(iterations, rows)``; NaN after a slice has stopped.
    """

    volume: NDArray[np.float32]
    residuals: NDArray[np.float64]

    @property
    def iterations(self) -> NDArray[np.int64]:
        """Iterations of each slice, shape ``(rows,)``."""
        return np.asarray(np.isfinite(self.residuals).sum(axis=0), dtype=np.int64)


def reconstruct_iteratively(
    projections: NDArray[np.float32],
    angles_deg: ArrayLike,
    centre: float,
    *,
    settings: IterativeSettings | None = None,
    initial: NDArray[np.float32] | None = None,
    threads: int | None = None,
    progress: Callable[[IterationReport], None] | None = None,
    cancelled: Cancellation | None = None,
) -> IterativeReconstruction:
    """Reconstruct a volume by making its own projections more and more like the measured ones.

    The object must lie in the field of view: pixels that leave it at some angle stay 0. Slices
    are reconstructed 16 at a time, each block by one thread; the result does not depend on their
    number.

    Parameters
    ----------
    projections : ndarray of float32
        Line integrals, shape ``(n, rows, columns)``.
    angles_deg : array_like
        Angle of each projection, in any order and range, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis [pixel].
    settings : IterativeSettings, optional
        Method and what it may do; by default SIRT.
    initial : ndarray of float32, optional
        Volume to start from; by default 0 everywhere.
    threads : int, optional
        Threads to work with; by default one per processor, or fewer if memory is short.
    progress : callable, optional
        Called at the beginning of each iteration of each 16 slices, one call at a time, from the
        thread that does the work.
    cancelled : Cancellation, optional
        Asked before each iteration.

    Returns
    -------
    IterativeReconstruction
        The volume and how the residual fell.

    Raises
    ------
    InputError
        If an argument is wrong, a value is NaN or infinite, or memory would not suffice.
    RunCancelled
        If it was told to stop.
    """
    settings = settings or IterativeSettings()
    if projections.ndim != 3:
        raise InputError(f"projections have shape {projections.shape}; give (n, rows, columns)")
    _, rows, columns = projections.shape
    projector = Projector(columns, angles_deg, centre)
    projector.check(projections)
    _check_values(projections)
    _check_initial(initial, (rows, columns, columns))
    count = _affordable(settings, rows, columns, len(projections), threads)
    job = _Job(projector, projections, settings, initial, progress, cancelled)
    job.run(count)
    most = max((len(residuals) for residuals in job.residuals.values()), default=0)
    residuals = np.full((most, rows), np.nan)
    for first, found in job.residuals.items():
        stop = min(first + LANES, rows)
        for number, values in enumerate(found):
            residuals[number, first:stop] = values[: stop - first]
    return IterativeReconstruction(job.volume, residuals)


def iterative_bytes(
    settings: IterativeSettings, rows: int, columns: int, projections: int, *, threads: int = 1
) -> int:
    """Memory that an iterative reconstruction will need, without its input and output.

    Parameters
    ----------
    settings : IterativeSettings
        Method.
    rows, columns : int
        Size of a projection [pixel].
    projections : int
        Number of projections.
    threads : int
        Threads to work with, each of which reconstructs 16 slices at a time.

    Returns
    -------
    int
        Estimate [byte].
    """
    at_once = min(threads, -(-rows // LANES))
    _, images, lines = _methods(settings)
    held = (1 + images) * columns + (1 + lines) * projections
    each = int(held * columns * LANES * 4)
    return Projector.required_bytes(columns, projections, at_once) + at_once * each


def _methods(settings: IterativeSettings) -> tuple[Callable[[Block], None], float, float]:
    """The method, and the images and sets of projections that it holds."""
    if settings.method == "tv":
        return _tv.tv, _tv.IMAGES, _tv.LINES
    if settings.method == "sirt":
        return _sirt.sirt, _sirt.IMAGES, _sirt.LINES
    if settings.forbids_negative:
        images, lines = _cgls.BOUNDED_IMAGES, _cgls.BOUNDED_LINES
        return _cgls.bounded_cgls, images, lines
    return _cgls.cgls, _cgls.IMAGES, _cgls.LINES


def _affordable(
    settings: IterativeSettings, rows: int, columns: int, projections: int, threads: int | None
) -> int:
    """Threads for which there are blocks and memory."""
    wanted = len(os.sched_getaffinity(0)) if threads is None else threads
    if wanted < 1:
        raise InputError(f"threads is {threads}; give at least 1")
    free = free_memory() - rows * columns * columns * 4
    for count in range(min(wanted, -(-rows // LANES)), 0, -1):
        needed = iterative_bytes(settings, rows, columns, projections, threads=count)
        if needed <= free:
            return count
    raise InputError(
        f"iterating on {rows} slices of {columns} x {columns} pixels and {projections} projections "
        f"needs {needed / _GIGABYTE:.1f} GB, {max(free, 0) / _GIGABYTE:.1f} GB are free: use fewer "
        "rows at a time, bin the frames or free memory"
    )


def _check_values(projections: NDArray[np.float32]) -> None:
    for number, projection in enumerate(projections):
        if not np.isfinite(projection).all():
            raise InputError(
                f"projection {number} holds NaN or infinite line integrals; normalise it first"
            )


def _check_initial(initial: NDArray[np.float32] | None, expected: tuple[int, int, int]) -> None:
    if initial is None:
        return
    if initial.shape != expected:
        raise InputError(f"the initial volume has shape {initial.shape}; give {expected}")
    if not np.isfinite(initial).all():
        raise InputError("the initial volume holds NaN or infinite values")


class _Job:
    """One reconstruction, block after block."""

    def __init__(
        self,
        projector: Projector,
        projections: NDArray[np.float32],
        settings: IterativeSettings,
        initial: NDArray[np.float32] | None,
        progress: Callable[[IterationReport], None] | None,
        cancelled: Cancellation | None,
    ) -> None:
        self._projector, self._projections, self._settings = projector, projections, settings
        self._initial, self._progress, self._cancelled = initial, progress, cancelled
        self._rows = projections.shape[1]
        self.volume = np.empty((self._rows, projector.columns, projector.columns), np.float32)
        self.residuals: dict[int, list[NDArray[np.float64]]] = {}
        self._lock = threading.Lock()
        self._gain = 0.0

    def run(self, threads: int) -> None:
        """Reconstruct all blocks with so many threads."""
        self._projector.prepare()
        memory = self._projector.memory()
        if self._settings.method == "tv":
            self._gain = _tv.squared_norm(self._projector, memory)
        starts = range(0, self._rows, LANES)

        def share(number: int) -> None:
            own = memory if number == 0 else self._projector.memory()
            for first in starts[number::threads]:
                self._reconstruct(first, own)

        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(share, number) for number in range(threads)]:
                done.result()

    def _reconstruct(self, first: int, memory: ProjectorMemory) -> None:
        projector, columns = self._projector, self._projector.columns
        stop = min(first + LANES, self._rows)
        if self._initial is None:
            image = np.zeros((columns, columns, LANES), np.float32)
        else:
            image = images_to_lanes(self._initial[first:stop])
            projector.clear_outside(image)

        def report(iteration: int, residuals: NDArray[np.float64]) -> None:
            if self._progress is not None:
                told = IterationReport(first, iteration, residuals[: stop - first].copy())
                with self._lock:
                    self._progress(told)

        block = Block(
            projector=projector,
            memory=memory,
            settings=self._settings,
            lines=projector.lines_to_lanes(self._projections, first),
            image=image,
            active=np.arange(LANES) < stop - first,
            started=self._initial is not None,
            gain=self._gain,
            report=report,
            cancelled=self._cancelled,
        )
        method, _, _ = _methods(self._settings)
        method(block)
        images_from_lanes(block.image, self.volume, first)
        self.residuals[first] = block.residuals
