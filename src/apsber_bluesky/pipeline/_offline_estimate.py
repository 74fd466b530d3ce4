"""How long a reconstruction will take, from a small part of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey
from apsber_bluesky.pipeline._offline_job import BLOCK_SLICES, OfflineJob
from apsber_bluesky.pipeline._offline_plan import SlabPlan
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_rows import PreparedRows
from apsber_bluesky.processing import IterationReport

# To start a worker and load what it needs [s].
_START_S = 3.0
_TRIED_PROJECTIONS = 64
_TRIED_ITERATIONS = 4
_TRIED_SINOGRAMS = 2


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """What a small part of a reconstruction took.

    Attributes
    ----------
    engine : str
        Engine that was used.
    slices : int
        Slices that were tried.
    read_s, reconstruct_s, write_s : float
        For these slices on one processor: to read, prepare and filter all projections; to make
        the slices; to write them [s].
    total_s : float
        For the whole volume, with all workers of the plan [s].
    """

    engine: str
    slices: int
    read_s: float
    reconstruct_s: float
    write_s: float
    total_s: float


def estimate_time(
    job: OfflineJob,
    references: References,
    plan: SlabPlan,
    write: Callable[[NDArray[np.float32]], None],
) -> TimeEstimate:
    """Reconstruct 16 slices from some of the projections, and extrapolate.

    Parameters
    ----------
    job : OfflineJob
        The job.
    references : References
        Darks and flats of the scan.
    plan : SlabPlan
        How it is cut.
    write : callable
        Writes some slices where the volume will be written, for a trial.

    Returns
    -------
    TimeEstimate
        Good to a factor of two where the machine is as busy as now.

    Raises
    ------
    InputError, DataFileError
        As the reconstruction would.
    """
    slices = job.geometry.slices
    first = (slices // 2) // BLOCK_SLICES * BLOCK_SLICES
    stop = min(first + BLOCK_SLICES, slices)
    rows = references.rows_needed(job.rows_read(job.geometry, first, stop))
    source = PreparedRows(job, job.geometry, references.cut(rows), first, stop)
    engine = job.make_engine(stop - first, 1)
    projections = job.scan.count(ImageKey.PROJECTION)
    step = max(1, min(_TRIED_PROJECTIONS, projections // 2))
    with job.scan.opened() as opened:
        # The first chunk and slices also pay for compiling and planning.
        chunks = source.lines(opened, step)
        engine.accumulate(_as_engine_takes(job, next(chunks)[1], first, stop), 0)
        began = time.perf_counter()
        number, lines = next(chunks)
        chunk = _as_engine_takes(job, lines, first, stop)
        engine.accumulate(chunk, number)
        read_s = (time.perf_counter() - began) * projections / len(chunk)
    read_s += _try_stripes(job, source, lines)
    if job.iterative is None:
        centre = job.geometry.engine_centre_px
        engine.finish(slice(0, min(2, stop - first)), centre)
        began = time.perf_counter()
        made = job.keep(engine.finish(slice(0, stop - first), centre))
        reconstruct_s = time.perf_counter() - began
    else:
        made, reconstruct_s = _try_iterations(job, chunk)
    began = time.perf_counter()
    write(made)
    write_s = time.perf_counter() - began
    tried = stop - first
    heights = [math.ceil((end - begin) / BLOCK_SLICES) for begin, end in plan.slabs]
    # A slab reads what lies around it once, however tall it is.
    tall = [len(job.rows_read(job.geometry, *slab)) / len(rows) for slab in plan.slabs]
    work_s = sum(tall) * read_s + sum(heights) * (reconstruct_s + write_s)
    start_s = _START_S if plan.workers > 1 else 0.0
    total_s = start_s + work_s / (plan.workers * plan.threads)
    return TimeEstimate(engine.name, tried, read_s, reconstruct_s, write_s, total_s)


def _as_engine_takes(
    job: OfflineJob, lines: NDArray[np.float32], first: int, stop: int
) -> NDArray[np.float32]:
    projections = job.geometry.prepare(lines, first, stop)
    job.extend(projections)
    return projections


def _try_stripes(job: OfflineJob, source: PreparedRows, lines: NDArray[np.float32]) -> float:
    """How long removing the stripes of the tried slices will take [s]."""
    if job.preparation.stripes == "none":
        return 0.0
    # The cost depends on the size of a sinogram, and little on what it shows.
    few = lines[:, : min(_TRIED_SINOGRAMS, lines.shape[1])]
    sinograms = np.resize(few, (job.projections, *few.shape[1:]))
    source.remove_stripes(sinograms[:, :1].copy())
    began = time.perf_counter()
    source.remove_stripes(sinograms)
    took = time.perf_counter() - began
    return float(took * lines.shape[1] / few.shape[1])


def _try_iterations(
    job: OfflineJob, chunk: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Some slices after few iterations, and how long all iterations would take [s]."""
    settings = job.iterative
    assert settings is not None
    few = replace(settings, iterations=_TRIED_ITERATIONS, noise=None, tolerance=None)
    begins: list[float] = []

    def note(_: IterationReport) -> None:
        begins.append(time.perf_counter())

    engine = replace(job, iterative=few).make_engine(chunk.shape[1], 1, progress=note)
    # The cost depends on how many projections there are, not on what they show.
    for number in range(0, job.projections, len(chunk)):
        engine.accumulate(chunk[: job.projections - number], number)
    centre = job.geometry.engine_centre_px
    # The first time also pays for compiling.
    engine.finish(slice(None), centre)
    begins.clear()
    began = time.perf_counter()
    made = engine.finish(slice(None), centre)
    took = time.perf_counter() - began
    each = min((float(lapse) for lapse in np.diff(begins)), default=0.0)
    return job.keep(made), took + (settings.most_iterations - _TRIED_ITERATIONS) * each
