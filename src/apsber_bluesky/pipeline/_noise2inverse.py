"""Examples for a denoiser from the scan that it is for (Noise2Inverse)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, InputError, RunCancelled
from apsber_bluesky.pipeline._offline_job import BLOCK_SLICES, OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._split_reconstructions import (
    reconstruct_parts,
    see_with_parts,
    split_job,
    spread_blocks,
)
from apsber_bluesky.processing import free_memory

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import ExampleFolder

# So much of the rows of each slice is kept to measure on, from the middle on: there is an object.
_HELD_OUT = 8
# Parts, inputs and what is made of them on the way to the disk.
_COPIES = 4
_USABLE = 0.8
_GIGABYTE = 1e9

_Slices = NDArray[np.float32]
Denoise = Callable[[_Slices, float], _Slices]
"""(slices [1/pixel], level [1/pixel]) -> the same slices with less noise."""
Progress = Callable[[int, int], None]
"""(done, total)."""


def nobody(done: int, total: int) -> None:
    """Want to know nothing."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How a scan is made into examples.

    Attributes
    ----------
    splits : int
        Parts that its projections are split into.
    blocks : int
        Blocks of 16 slices that are taken, spread over the volume.
    slices : int
        Neighbouring slices that go into the network, odd.
    patch : int
        Rows and columns of a patch [pixel]; no example is smaller.
    threads : int
        Threads to work with.
    """

    splits: int = 4
    blocks: int = 8
    slices: int = 5
    patch: int = 96
    threads: int = 1


@dataclass(frozen=True, slots=True)
class SplitExamples:
    """Examples from parts of a scan.

    Attributes
    ----------
    training : ExampleFolder
        To be learned from; a variant for each part, which is its target, and what goes in is the
        mean of the others.
    held_out : ExampleFolder
        The same of other rows, to measure on.
    independence : float or None
        See `processing.learned.independence`; of the slices in the middle.
    """

    training: ExampleFolder
    held_out: ExampleFolder
    independence: float | None


def make_split_examples(
    job: OfflineJob,
    references: References,
    folder: Path,
    plan: SplitPlan,
    *,
    origin: str,
    made_with: dict[str, Any],
    denoise: Denoise | None = None,
    cancelled: Cancellation,
    progress: Progress = nobody,
) -> SplitExamples:
    """Reconstruct parts of a scan, and make examples of them.

    A. A. Hendriksen, D. M. Pelt and K. J. Batenburg, IEEE Trans. Comput. Imaging 6 (2020) 1320,
    arXiv:2001.11801, strategy X:1: what goes in shares no projection with what should come out, so
    that a network can learn everything about the target but its noise. Neighbouring slices go in,
    too: they come from the same projections as the slice between them, so noise that neighbouring
    rows of the detector share does no harm. What all projections share, stripes and the noise of
    the flats, is learned as if it were the object.

    Parts have few angles, and show streaks which are no noise: the network would learn to foretell
    those of the target. If there is a way to denoise already, what it makes of the slices is
    projected; of each part the reconstruction of these projections is taken off, and the estimate
    itself added back. Then only what the estimate misses is seen from few angles.

    Parameters
    ----------
    job : OfflineJob
        How the scan is reconstructed; its geometry has the rotation centre.
    references : References
        Darks and flats.
    folder : Path
        Where the examples go, in ``examples`` and ``held-out``.
    plan : SplitPlan
        How many, how large.
    origin : str
        What the scan is called.
    made_with : dict
        What the examples follow from, for the model's card.
    denoise : callable, optional
        A denoiser that is there already.
    cancelled : Cancellation
        Asked now and then.
    progress : callable
        Told how many blocks are done, of how many.

    Raises
    ------
    InputError
        If there are too few projections, rows or slices, no object stands out, a slice holds NaN,
        or memory does not suffice.
    RunCancelled
        If it was told to stop.
    """
    from apsber_bluesky.processing.learned import independence, object_level

    job = replace(job, region=None)
    _check(job, plan)
    jobs = split_job(job, plan.splits)
    places = spread_blocks(job.geometry.slices, plan.blocks)
    # The one in the middle goes first, for the level.
    places.sort(key=lambda place: abs(place[0] + place[1] - job.geometry.slices))
    training, held_out = start_examples(folder, origin, [], made_with)
    level, independent = 0.0, None
    for done, (first, stop) in enumerate(places):
        if cancelled.is_set():
            raise RunCancelled("cancelled while making examples")
        progress(done, len(places))
        parts = reconstruct_parts(
            jobs, references, first, stop, threads=plan.threads, cancelled=cancelled
        )
        level = level or object_level(parts.mean(axis=0))
        inputs, targets = _pairs(jobs, parts, denoise, level, plan.threads)
        if not done:
            independent = independence(targets)
        ends = (first == 0, stop == job.geometry.slices)
        for values in (inputs, targets):
            values /= np.float32(level)
        inputs, targets = (mirror_ends(each, plan.slices // 2, ends) for each in (inputs, targets))
        _add(training, held_out, inputs, targets, plan.patch)
    progress(len(places), len(places))
    return SplitExamples(training, held_out, independent)


def start_examples(
    folder: Path, origin: str, classes: list[str], made_with: dict[str, Any]
) -> tuple[ExampleFolder, ExampleFolder]:
    """Folders for examples and for those held out, empty; none of another training is touched.

    Raises
    ------
    InputError
        If there are examples that follow from something else.
    """
    from apsber_bluesky.processing.learned import ExampleFolder

    folders = []
    for name in ("examples", "held-out"):
        # A checkpoint beside examples of something else would be continued with these.
        ExampleFolder.open_or_create(folder / name, origin, classes, made_with)
        folders.append(ExampleFolder.create(folder / name, origin, classes, made_with))
    return folders[0], folders[1]


def mirror_ends(values: _Slices, count: int, ends: tuple[bool, bool]) -> _Slices:
    """Slices beyond the ends of a volume, as those who apply a network see them.

    Parameters
    ----------
    values : ndarray, shape (..., slices, rows, columns)
        Slices.
    count : int
        How many to add.
    ends : tuple of bool
        Whether the first and the last slice are ends of the volume.
    """
    pads = [(0, 0)] * values.ndim
    pads[-3] = (count * ends[0], count * ends[1])
    return np.pad(values, pads, mode="reflect" if values.shape[-3] > 1 else "edge")


def _check(job: OfflineJob, plan: SplitPlan) -> None:
    slices, height, width = job.shape
    if min(height // 2, width) < plan.patch:
        raise InputError(
            f"slices of {height} x {width} pixels are too small for patches of {plan.patch};"
            f" give --patch {max(min(height // 2, width) // 16 * 16, 32)} or less"
        )
    needed = _COPIES * plan.splits * min(slices, BLOCK_SLICES) * height * width * 4
    free = int(_USABLE * free_memory())
    if needed > free:
        raise InputError(
            f"{plan.splits} parts of slices of {height} x {width} pixels need"
            f" {needed / _GIGABYTE:.1f} GB, {free / _GIGABYTE:.1f} GB can be had; split less,"
            " or bin the frames"
        )


def _pairs(
    jobs: list[OfflineJob], parts: _Slices, denoise: Denoise | None, level: float, threads: int
) -> tuple[_Slices, _Slices]:
    """What goes in and what should come out, for each part."""
    from apsber_bluesky.processing.learned import average_the_others

    if denoise is not None:
        estimate = denoise(parts.mean(axis=0), level)
        parts -= see_with_parts(jobs, estimate, threads=threads)
        parts += estimate
    return average_the_others(parts), parts


def _add(
    training: ExampleFolder,
    held_out: ExampleFolder,
    inputs: _Slices,
    targets: _Slices,
    patch: int,
) -> None:
    height = inputs.shape[2]
    first = height // 2
    stop = first + max(height // _HELD_OUT, patch)
    for folder, rows in (
        (training, slice(0, first)),
        (held_out, slice(first, stop)),
        (training, slice(stop, height)),
    ):
        if rows.stop - rows.start >= patch:
            folder.add(inputs[:, :, rows], targets=targets[:, :, rows])
