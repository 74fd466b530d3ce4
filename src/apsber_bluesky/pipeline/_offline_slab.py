"""One slab of a volume as a task of its own, in this process or in any other."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, ReconstructionEngine, RunCancelled
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_rows import PreparedRows


class Deposit(Protocol):
    """Where a task may write its slices itself."""

    def put(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write slices [1/pixel]."""
        ...


@dataclass(frozen=True, slots=True)
class SlabTask:
    """Some slices of a job.

    Attributes
    ----------
    job : OfflineJob
        The job.
    references : References
        Of the rows that the slices need.
    first, stop : int
        Slices, the last not included.
    threads : int
        Threads to work with; the result does not depend on it.
    deposit : Deposit or None
        Where to write the slices; None gives them back.
    """

    job: OfflineJob
    references: References
    first: int
    stop: int
    threads: int = 1
    deposit: Deposit | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"slab of slices {self.first} to {self.stop - 1}"


@dataclass(frozen=True, slots=True)
class SlabResult:
    """What came of a `SlabTask`.

    Attributes
    ----------
    first, stop : int
        Slices.
    values : ndarray of float32 or None
        Attenuation [1/pixel], if it was not deposited.
    engine : str
        Engine that was used.
    checksum : str
        `array_checksum` of the pixels of the projections' rows as the file has them.
    rows : tuple of int
        Those rows, the last not included.
    saturated : ndarray of int64
        Saturated pixels in each projection.
    prepared : dict
        What was done to the projections, and how often.
    seconds : float
        How long it took [s].
    """

    first: int
    stop: int
    values: NDArray[np.float32] | None
    engine: str
    checksum: str
    rows: tuple[int, int]
    saturated: NDArray[np.int64]
    prepared: dict[str, Any]
    seconds: float


def reconstruct_slab(task: SlabTask, cancelled: Cancellation | None = None) -> SlabResult:
    """Read, normalise and reconstruct some slices.

    Parameters
    ----------
    task : SlabTask
        What to do.
    cancelled : Cancellation, optional
        Asked between chunks and iterations.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    InputError
        If a projection holds NaN, nothing but zeros or mostly saturated pixels, or memory would
        not suffice.
    RunCancelled
        If it was told to stop.
    """
    started, job = time.monotonic(), task.job
    source = PreparedRows(
        job,
        job.geometry,
        task.references,
        task.first,
        task.stop,
        threads=task.threads,
        check=functools.partial(_check, cancelled, task),
    )
    engine = job.make_engine(task.stop - task.first, task.threads, cancelled)
    with job.scan.opened() as opened:
        for first, projections in source.chunks(opened):
            job.extend(projections)
            engine.accumulate(projections, first)
    values = _finish(task, engine, cancelled)
    return SlabResult(
        task.first,
        task.stop,
        values,
        engine.name,
        source.checksum,
        (task.references.rows.start, task.references.rows.stop),
        source.saturated,
        source.parameters,
        time.monotonic() - started,
    )


def _finish(
    task: SlabTask, engine: ReconstructionEngine, cancelled: Cancellation | None
) -> NDArray[np.float32] | None:
    job, count = task.job, task.stop - task.first
    kept = None if task.deposit is not None else np.empty((count, *job.shape[1:]), np.float32)
    step = job.slices_at_once(task.threads)
    for start in range(0, count, step):
        _check(cancelled, task)
        stop = min(start + step, count)
        block = job.keep(engine.finish(slice(start, stop), job.geometry.engine_centre_px))
        if kept is not None:
            kept[start:stop] = block
        elif task.deposit is not None:
            task.deposit.put(task.first + start, block)
    return kept


def _check(cancelled: Cancellation | None, task: SlabTask) -> None:
    if cancelled is not None and cancelled.is_set():
        raise RunCancelled(f"cancelled during the {task.name}")
