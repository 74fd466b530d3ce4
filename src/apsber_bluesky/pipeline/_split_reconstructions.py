"""Reconstruct a scan in parts: every K-th projection on its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, ImageKey, InputError
from apsber_bluesky.pipeline._offline_job import BLOCK_SLICES, OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_scan import Scan
from apsber_bluesky.pipeline._offline_slab import SlabTask, reconstruct_slab
from apsber_bluesky.processing import Projector

# From fewer, a slice is nothing but streaks.
_LEAST_PROJECTIONS = 8


class DivisibleScan(Scan, Protocol):
    """A scan that projections can be left out of (``storage.ScanFile`` is one)."""

    def without(self, numbers: Collection[int]) -> Self:
        """The same scan without some projections, given as messages call them."""
        ...


def split_job(job: OfflineJob, splits: int) -> list[OfflineJob]:
    """Divide the projections of a job among several, which see the same from angles in between.

    Parameters
    ----------
    job : OfflineJob
        The job; its scan can leave out projections, as ``storage.ScanFile`` can.
    splits : int
        How many parts.

    Returns
    -------
    list of OfflineJob
        Each has every `splits`-th projection, counted by angle.

    Raises
    ------
    InputError
        If there are fewer than 2 parts or a part would have fewer than 8 projections, or the
        method is iterative: parts must average to the whole.
    """
    if job.iterative is not None:
        raise InputError(
            f"parts of a scan average to the whole only in filtered back-projection, not with"
            f" {job.iterative.method}; use --method fbp"
        )
    count = job.projections
    if splits < 2 or count // splits < _LEAST_PROJECTIONS:
        raise InputError(
            f"{count} projections cannot be split into {splits} parts; give from 2 to"
            f" {max(count // _LEAST_PROJECTIONS, 2)}, so that each has {_LEAST_PROJECTIONS}"
        )
    scan = cast("DivisibleScan", job.scan)
    numbers = scan.numbers(ImageKey.PROJECTION)[np.argsort(job.angles_deg, kind="stable")]
    return [
        replace(job, scan=scan.without(np.delete(numbers, np.s_[part::splits]).tolist()))
        for part in range(splits)
    ]


def reconstruct_parts(
    jobs: list[OfflineJob],
    references: References,
    first: int,
    stop: int,
    *,
    threads: int = 1,
    cancelled: Cancellation | None = None,
) -> NDArray[np.float32]:
    """The same slices from each part of a scan.

    Parameters
    ----------
    jobs : list of OfflineJob
        The parts, see `split_job`.
    references : References
        Darks and flats of the scan. All parts share them, and so the noise of their means.
    first, stop : int
        Slices, the last not included.
    threads : int
        Threads to work with.
    cancelled : Cancellation, optional
        Asked between chunks of projections.

    Returns
    -------
    ndarray of float32, shape (parts, stop - first, rows, columns)
        Attenuation [1/pixel].

    Raises
    ------
    ApsberError
        As `reconstruct_slab`.
    """
    parts = np.empty((len(jobs), stop - first, *jobs[0].shape[1:]), np.float32)
    for part, job in zip(parts, jobs, strict=True):
        rows = references.rows_needed(job.rows_read(job.geometry, first, stop))
        task = SlabTask(job, references.cut(rows), first, stop, threads)
        part[...] = reconstruct_slab(task, cancelled).values
    return parts


def see_with_parts(
    jobs: list[OfflineJob], estimate: NDArray[np.float32], *, threads: int = 1
) -> NDArray[np.float32]:
    """What each part of a scan would show of an object, without noise.

    Parameters
    ----------
    jobs : list of OfflineJob
        The parts, see `split_job`.
    estimate : ndarray of float32, shape (slices, size, size)
        The object: whole slices [1/pixel].
    threads : int
        Threads to work with.

    Returns
    -------
    ndarray of float32, shape (parts, slices, size, size)
        Its reconstructions from the angles of each part [1/pixel].

    Raises
    ------
    InputError
        If the scan is an off-axis one, whose projections show half of the object each.
    """
    geometry = jobs[0].geometry
    if geometry.off_axis:
        raise InputError("off-axis scans cannot be filled in; train without a model to start with")
    seen = np.empty((len(jobs), *estimate.shape), np.float32)
    for part, job in zip(seen, jobs, strict=True):
        projector = Projector(geometry.size, job.angles_deg, geometry.engine_centre_px)
        lines = projector.project(estimate, threads=threads)
        job.extend(lines)
        engine = job.make_engine(len(estimate), threads)
        engine.accumulate(lines, 0)
        part[...] = engine.finish(slice(0, len(estimate)), geometry.engine_centre_px)
    return seen


def spread_blocks(slices: int, blocks: int) -> list[tuple[int, int]]:
    """Blocks of 16 slices, spread evenly over a volume; the first slice and the one after the last.

    Raises
    ------
    InputError
        If no block is wanted.
    """
    if blocks < 1:
        raise InputError(f"{blocks} blocks of slices cannot be; give at least 1")
    whole = -(-slices // BLOCK_SLICES)
    count = min(blocks, whole)
    # In the middle of equal parts: of one block alone, the middle of the volume is taken.
    chosen = [((2 * number + 1) * whole) // (2 * count) for number in range(count)]
    starts = (min(number * BLOCK_SLICES, max(slices - BLOCK_SLICES, 0)) for number in chosen)
    return [(start, min(start + BLOCK_SLICES, slices)) for start in starts]
