"""Cut a volume into slabs that fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.pipeline._offline_job import BLOCK_SLICES, OfflineJob
from apsber_bluesky.pipeline._offline_rows import CHUNK_BYTES
from apsber_bluesky.processing import engine_names

# What an interpreter with its libraries and compiled functions takes.
_PROCESS_BYTES = 400 << 20
# The rest is left to the page cache, other programs and what no estimate sees.
_USABLE = 0.8
# Taller slabs gain nothing, unless every slab has to decode all frames anew.
_MOST_SLICES = 128
_GIGABYTE = 1e9
_DEVICE_ENGINES = ("cupy", "tomocupy", "torch")
# What takes a processor about as long as a process takes to start.
_LEAST_WORK = 100_000_000
# Sinograms of memory that removing the stripes of one takes.
_STRIPE_SINOGRAMS = 8


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """How a volume is cut.

    Attributes
    ----------
    slabs : tuple of (int, int)
        First slice of each slab and the one after its last; all but the last slab hold a multiple
        of 16 slices.
    workers : int
        Slabs that are worked on at once.
    threads : int
        Threads of each.
    task_bytes : int
        Memory that a worker takes at most [byte].
    free_bytes : int
        Memory that was free [byte].
    by_value : bool
        Whether slabs come back as values, not through the disk.
    """

    slabs: tuple[tuple[int, int], ...]
    workers: int
    threads: int
    task_bytes: int
    free_bytes: int
    by_value: bool

    @property
    def total_bytes(self) -> int:
        """Memory that all take together at most [byte]."""
        own = _PROCESS_BYTES if self.workers > 1 or self.by_value else 0
        return own + self.workers * self.task_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "slabs": len(self.slabs),
            "slab_slices": max(stop - first for first, stop in self.slabs),
            "workers": self.workers,
            "threads": self.threads,
            "memory_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
        }


def plan_slabs(
    job: OfflineJob,
    *,
    free_bytes: int,
    by_value: bool,
    workers: int | None = None,
    slab_slices: int | None = None,
) -> SlabPlan:
    """Cut a volume into slabs.

    Slabs are of multiples of 16 slices: engines make that many at a time, in the same way wherever
    they lie, and the chunks of a volume hold as many. Fewer workers are used when memory is short.

    Parameters
    ----------
    job : OfflineJob
        What is to be reconstructed.
    free_bytes : int
        Memory that may be taken by all workers [byte].
    by_value : bool
        Whether slabs come back as values; that holds them in memory three times.
    workers : int, optional
        Processes, at most; by default one for each processor, or one alone with a thread for each
        if the engine uses a device, or processes would take longer to start than to work.
    slab_slices : int, optional
        Slices of a slab, by hand; rounded up to a multiple of 16.

    Returns
    -------
    SlabPlan
        The plan.

    Raises
    ------
    InputError
        If not even 16 slices fit.
    """
    slices = job.geometry.slices
    usable = int(free_bytes * _USABLE)
    processors = workers or len(os.sched_getaffinity(0))
    if workers is None:
        workers = 1 if _work(job) < _LEAST_WORK or _on_device(job) else processors
    if slab_slices is not None:
        if slab_slices < 1:
            raise InputError(f"slabs of {slab_slices} slices cannot be; give at least 1")
        height = math.ceil(slab_slices / BLOCK_SLICES) * BLOCK_SLICES
        return _plan(job, height, workers, free_bytes, by_value=by_value, processors=processors)
    for count, threads in _crews(min(workers, math.ceil(slices / BLOCK_SLICES)), processors):
        share = (usable - (_PROCESS_BYTES if count > 1 or by_value else 0)) // count
        height = _tallest(job, share, by_value=by_value, threads=threads)
        if height:
            height = min(height, _even_height(job, height, count))
            processors = count * threads
            return _plan(job, height, count, free_bytes, by_value=by_value, processors=processors)
    needed = task_bytes(job, min(BLOCK_SLICES, slices), by_value=by_value)
    raise InputError(
        f"reconstructing slices of {job.geometry.size} x {job.geometry.size} pixels from"
        f" {job.projections} projections needs {needed / _GIGABYTE:.1f} GB for 16 slices,"
        f" {free_bytes / _GIGABYTE:.1f} GB are free: bin the frames or free memory"
    )


def _crews(workers: int, processors: int) -> Iterator[tuple[int, int]]:
    """Numbers of workers and of their threads, those that use the most processors first."""
    for count in range(workers, 0, -1):
        yield count, max(1, processors // count)
    threads = processors // 2
    while threads:
        yield 1, threads
        threads //= 2


def _on_device(job: OfflineJob) -> bool:
    """Whether the engine uses a device, which processes would only fight for."""
    if job.iterative is not None:
        return False
    name = engine_names()[0] if job.local_engine == "auto" else job.engine
    return name in _DEVICE_ENGINES


def _work(job: OfflineJob) -> int:
    """About how much there is to do: samples of the projections, and voxels."""
    size = job.geometry.size
    each = 1 if job.iterative is None else job.iterative.most_iterations
    return each * job.geometry.slices * size * (job.projections + size)


def task_bytes(job: OfflineJob, slices: int, *, by_value: bool, threads: int = 1) -> int:
    """Memory that a worker takes for a slab [byte], an upper estimate."""
    geometry, size = job.geometry, job.geometry.size
    engine = job.engine_bytes(slices, threads)
    rows = min(slices * geometry.bin, geometry.rows)
    if geometry.tilt_deg:
        lean = abs(math.sin(math.radians(geometry.tilt_deg))) * geometry.columns
        rows = min(rows + math.ceil(lean) + 4, geometry.rows)
    frame = min(rows + 2 * job.halo_rows, geometry.rows) * geometry.columns
    item = np.dtype(job.scan.dtype).itemsize
    chunk = max(frame * 4, CHUNK_BYTES)
    # Raw, normalised, turned or binned, and widened projections; the engine's own copy.
    chunks = chunk * item // 4 + 3 * chunk + 2 * chunk * size // (geometry.columns // geometry.bin)
    times = 2 if job.preparation.flats == "interpolate" else 1
    references = frame * (2 * 4 + 1 + 8 + 8 * times)
    if job.preparation.phase is not None:
        phase = job.phase_filter(frame // geometry.columns)
        chunks += 0 if phase is None else phase.work_bytes
    if job.preparation.stripes != "none":
        sinogram = 4 * job.projections * geometry.columns
        chunks += (rows + _STRIPE_SINOGRAMS * threads) * sinogram
    block = min(slices, job.slices_at_once(threads)) * size * size * 4
    kept = slices * job.shape[1] * job.shape[2] * 4
    output = 2 * block + (3 * kept if by_value else 0)
    return int(_PROCESS_BYTES + engine + chunks + references + output)


def _tallest(job: OfflineJob, share: int, *, by_value: bool, threads: int) -> int:
    """The most slices that a worker can take, a multiple of 16."""
    slices = job.geometry.slices

    def fits(count: int) -> bool:
        return task_bytes(job, count, by_value=by_value, threads=threads) <= share

    blocks = math.ceil(slices / BLOCK_SLICES)
    low, high = 0, blocks
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * BLOCK_SLICES) else (low, middle - 1)
    return low * BLOCK_SLICES


def _even_height(job: OfflineJob, height: int, workers: int) -> int:
    """Slices of a slab such that all workers end at about the same time."""
    slices = job.geometry.slices
    most = height if job.scan.decodes_whole_frames else min(height, _MOST_SLICES)
    rounds = math.ceil(slices / (most * workers))
    even = math.ceil(slices / (rounds * workers) / BLOCK_SLICES) * BLOCK_SLICES
    return min(most, max(even, BLOCK_SLICES))


def _plan(
    job: OfflineJob,
    height: int,
    workers: int,
    free_bytes: int,
    *,
    by_value: bool,
    processors: int,
) -> SlabPlan:
    slices = job.geometry.slices
    starts = range(0, slices, height)
    slabs = tuple((first, min(first + height, slices)) for first in starts)
    used = min(workers, len(slabs))
    threads = max(1, processors // used)
    needed = task_bytes(job, min(height, slices), by_value=by_value, threads=threads)
    return SlabPlan(slabs, used, threads, needed, free_bytes, by_value)


def bytes_read(job: OfflineJob, plan: SlabPlan) -> int:
    """What all tasks together read of the projections [byte], before decompression."""
    frame = job.scan.columns * np.dtype(job.scan.dtype).itemsize
    count = job.scan.count(ImageKey.PROJECTION)
    if job.scan.decodes_whole_frames:
        return len(plan.slabs) * count * job.scan.rows * frame
    rows = sum(len(job.rows_read(job.geometry, *slab)) for slab in plan.slabs)
    return rows * count * frame
