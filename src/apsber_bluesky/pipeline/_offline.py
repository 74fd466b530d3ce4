"""Reconstruct a scan that is already on disk, slab by slab."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    Cancellation,
    ImageKey,
    InputError,
    ProcessRecord,
    StageProgress,
    format_ranges,
)
from apsber_bluesky.pipeline._executors import (
    InThisProcess,
    local_processes,
    stop_of_this_worker,
)
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_plan import SlabPlan
from apsber_bluesky.pipeline._offline_records import offline_records
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_slab import (
    Deposit,
    SlabResult,
    SlabTask,
    reconstruct_slab,
)
from apsber_bluesky.pipeline._offline_tasks import run_tasks

_STAGE = "reconstruct"


class OfflineSink(Protocol):
    """Where the volume goes; inside its context it keeps all or nothing.

    Attributes
    ----------
    processes : sequence of ProcessRecord
        Set before the end: how the volume came about.
    """

    processes: Any

    @property
    def deposit(self) -> Any:
        """Where tasks may write slices themselves; None if only this process can."""
        ...

    def write(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel]."""
        ...


@dataclass(frozen=True, slots=True)
class OfflineReport:
    """What a reconstruction did.

    Attributes
    ----------
    engine : str
        Engine that was used.
    centre_px : float
        Column of the rotation axis that was used, in the recorded frames [pixel].
    bad_pixels : int
        Pixels that were replaced.
    saturated_pixels : int
        Saturated pixels of the projections that were used all the same.
    saturated_projections : list of int
        Those that have some.
    seconds : float
        How long it took [s].
    """

    engine: str
    centre_px: float
    bad_pixels: int
    saturated_pixels: int
    saturated_projections: list[int]
    seconds: float

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        if not self.saturated_pixels:
            return []
        which = format_ranges(self.saturated_projections, 10)
        text = f"{self.saturated_pixels} pixels are saturated in projections {which}"
        return [f"{text}; attenuation is too low there"]


OpenExecutor = Callable[[], AbstractContextManager[Executor]]


def reconstruct_offline(
    job: OfflineJob,
    references: References,
    plan: SlabPlan,
    sink: OfflineSink,
    *,
    progress: StageProgress,
    cancelled: Cancellation,
    open_executor: OpenExecutor | None = None,
    processes: list[ProcessRecord] | None = None,
) -> OfflineReport:
    """Reconstruct a scan.

    Slabs are independent tasks, and every slice depends on the frames alone: the volume is the
    same, bit by bit, however it is cut and wherever the tasks run.

    Parameters
    ----------
    job : OfflineJob
        What to reconstruct.
    references : References
        Its darks and flats.
    plan : SlabPlan
        How it is cut.
    sink : OfflineSink
        Where the volume goes, open.
    progress : StageProgress
        Told how many slices are done.
    cancelled : Cancellation
        Asked a few times a second.
    open_executor : callable, optional
        Makes the executor that tasks run on; by default processes of this machine, or this
        process if there is but one task at a time.
    processes : list of ProcessRecord, optional
        What was done before, such as finding the centre; the steps of this function are added.

    Returns
    -------
    OfflineReport
        What was done.

    Raises
    ------
    ServiceError
        If a task failed too often.
    RunCancelled
        If it was told to stop.
    ApsberError
        If input is wrong or cannot be read, or the volume cannot be written.
    """
    began, started_s = time.monotonic(), time.time()
    deposit = None if plan.by_value or open_executor is not None else sink.deposit
    tasks = _tasks(job, references, plan, deposit)
    results = _run(job, plan, tasks, open_executor, cancelled)
    done, found = 0, []
    for result in results:
        if result.values is None:
            _took(sink, result)
        else:
            sink.write(result.first, result.values)
        found.append(_without_values(result))
        done += result.stop - result.first
        progress.stage("", _STAGE, done, job.geometry.slices)
    found.sort(key=lambda result: result.first)
    engine = _one_engine(found)
    report = _report(job, references, found, engine, time.monotonic() - began)
    chain = [*(processes or [])]
    chain += offline_records(job, references, found, engine, started_s, len(chain) + 1)
    sink.processes = chain
    return report


def _tasks(
    job: OfflineJob, references: References, plan: SlabPlan, deposit: Deposit | None
) -> list[SlabTask]:
    tasks = []
    for first, stop in plan.slabs:
        rows = references.rows_needed(job.rows_read(job.geometry, first, stop))
        cut = references.cut(rows)
        tasks.append(SlabTask(job, cut, first, stop, plan.threads, deposit))
    return tasks


def _run(
    job: OfflineJob,
    plan: SlabPlan,
    tasks: list[SlabTask],
    open_executor: OpenExecutor | None,
    cancelled: Cancellation,
) -> Iterator[SlabResult]:
    at_once, work = plan.workers, slab_in_worker
    if open_executor is not None:
        # One more than can be worked on, so that no worker waits for the next.
        at_once += 1
    elif plan.workers > 1:
        open_executor = functools.partial(local_processes, plan.workers, cancelled)
    else:
        open_executor = _here
        work = functools.partial(reconstruct_slab, cancelled=cancelled)
    return run_tasks(open_executor, work, tasks, at_once=at_once, cancelled=cancelled)


@contextmanager
def _here() -> Iterator[Executor]:
    yield InThisProcess()


def slab_in_worker(task: SlabTask) -> SlabResult:
    """`reconstruct_slab`, as a worker process does it."""
    return reconstruct_slab(task, stop_of_this_worker())


def _took(sink: Any, result: SlabResult) -> None:
    sink.took(result.first, result.stop)


def _without_values(result: SlabResult) -> SlabResult:
    return replace(result, values=None)


def _one_engine(results: list[SlabResult]) -> str:
    engines = sorted({result.engine for result in results})
    if len(engines) > 1:
        raise InputError(
            f"workers chose different engines ({', '.join(engines)}), which do not agree in every"
            " bit; name one with --engine"
        )
    return engines[0]


def _report(
    job: OfflineJob,
    references: References,
    results: list[SlabResult],
    engine: str,
    seconds: float,
) -> OfflineReport:
    saturated = np.sum([result.saturated for result in results], axis=0)
    numbers = job.scan.numbers(ImageKey.PROJECTION)[saturated > 0]
    return OfflineReport(
        engine=engine,
        centre_px=job.geometry.centre_px,
        bad_pixels=int(np.count_nonzero(references.bad)),
        saturated_pixels=int(saturated.sum()),
        saturated_projections=numbers.tolist(),
        seconds=seconds,
    )
