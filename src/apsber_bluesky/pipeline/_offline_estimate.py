"""How long a reconstruction will take, from a small part of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey
from apsber_bluesky.pipeline._offline_job import OfflineJob, References
from apsber_bluesky.pipeline._offline_plan import SlabPlan
from apsber_bluesky.pipeline._offline_slab import BLOCK_SLICES, PreparedRows
from apsber_bluesky.processing import create_engine

# To start a worker and load what it needs [s].
_START_S = 3.0
_TRIED_PROJECTIONS = 64


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
        For these slices on one processor: to read, normalise and filter all projections; to make
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
    rows = references.rows_needed(job.geometry.recorded_rows(first, stop))
    source = PreparedRows(job, job.geometry, references.cut(rows), first, stop)
    engine = create_engine(
        job.engine,
        rows=stop - first,
        columns=job.geometry.size,
        angles_deg=job.angles_deg,
        filter_name=job.filter_name,
        threads=1,
    )
    projections = job.scan.count(ImageKey.PROJECTION)
    step = max(1, min(_TRIED_PROJECTIONS, projections // 2))
    with job.scan.opened() as opened:
        # The first chunk and slices also pay for compiling and planning.
        chunks = source.chunks(opened, step)
        engine.accumulate(next(chunks)[1], 0)
        began = time.perf_counter()
        number, chunk = next(chunks)
        engine.accumulate(chunk, number)
        read_s = (time.perf_counter() - began) * projections / len(chunk)
    centre = job.geometry.engine_centre_px
    engine.finish(slice(0, min(2, stop - first)), centre)
    began = time.perf_counter()
    made = job.keep(engine.finish(slice(0, stop - first), centre))
    reconstruct_s = time.perf_counter() - began
    began = time.perf_counter()
    write(made)
    write_s = time.perf_counter() - began
    tried = stop - first
    heights = [math.ceil((end - begin) / BLOCK_SLICES) for begin, end in plan.slabs]
    rounds = sum(heights) / (plan.workers * plan.threads)
    start_s = _START_S if plan.workers > 1 else 0.0
    total_s = start_s + rounds * (read_s + reconstruct_s + write_s)
    return TimeEstimate(engine.name, tried, read_s, reconstruct_s, write_s, total_s)
