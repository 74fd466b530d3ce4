"""Denoising and segmentation of a run, slab by slab while it is reconstructed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, ProcessingSettings, RunFolder
from apsber_bluesky.pipeline._context import RunContext, Stage
from apsber_bluesky.pipeline._followers import VOLUME, FinishFollower, Slab, SlabFollower
from apsber_bluesky.pipeline._learned_passes import (
    DenoisePass,
    LearnedPass,
    Product,
    SegmentPass,
    VolumeAhead,
    measure_level,
)

DENOISE, SEGMENT = "denoise", "segment"

# What a follower's slabs are called on disk.
_SOURCE_PRODUCTS = {VOLUME: "volume", DENOISE: "denoised"}

OpenRunProduct = Callable[[RunFolder, Product, tuple[int, int, int], float | None], Any]
"""(folder, product, shape, voxel size [um]) -> context manager that yields a sink."""


class LearnedFollower:
    """A model that follows the reconstruction of a run; a `SlabFollower`.

    Parameters
    ----------
    name : str
        Of its stage.
    source : str
        Whose slabs it takes.
    work : LearnedPass
        The model and what it writes.
    open_product : OpenRunProduct
        Makes the places that it writes to.
    """

    def __init__(
        self, name: str, source: str, work: LearnedPass, open_product: OpenRunProduct
    ) -> None:
        self.name, self.source = name, source
        self._work, self._open_product = work, open_product
        self._context: RunContext | None = None
        self._started_s = 0.0
        self._busy_s = 0.0

    def prepare(self) -> None:
        """Load the model."""
        self._work.prepare()

    def begin(self, context: RunContext, shape: tuple[int, int, int]) -> None:
        """Load the model, and measure the level of the object if it needs it."""
        self._context, self._started_s, self._busy_s = context, time.time(), 0.0
        ahead = VolumeAhead(
            shape, context.run.scan.pixel_size_um, functools.partial(level_of, context)
        )
        with self._timed():
            self._work.begin(ahead, functools.partial(self._open_product, context.folder))
        self._slices = shape[0]

    def take(self, start: int, slab: NDArray[np.float32]) -> Sequence[Slab]:
        """Run the model on a slab."""
        with self._timed():
            slabs = self._work.take(slab)
        assert self._context is not None
        self._context.report(self.name, start + len(slab), self._slices)
        return slabs

    def finish(self, context: RunContext) -> Sequence[Slab]:
        """Run it on the last slices, and record what was done."""
        with self._timed():
            slabs = self._work.finish()
        source = context.folder.product(_SOURCE_PRODUCTS[self.source]).name
        parameters = self._work.parameters
        context.record(
            self.name,
            self._started_s,
            {**parameters, "busy_s": self._busy_s},
            inputs={
                **checksum_of(context, source),
                f"model {parameters['model']}": parameters["model_sha256"],
            },
            outputs=self._work.outputs,
        )
        self._work.enter(context.findings)
        return slabs

    def abandon(self) -> None:
        """Leave nothing half-written."""
        self._work.abandon()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._busy_s += time.monotonic() - began


def level_of(context: RunContext) -> float:
    """Level of the object, measured once for all models of a volume."""
    findings = context.findings
    if findings.level_per_pixel is None:
        if findings.central_slices is None:
            raise InputError("the object's level needs the central slices of the volume")
        findings.level_per_pixel = measure_level(findings.central_slices)
    return findings.level_per_pixel


def checksum_of(context: RunContext, product: str) -> dict[str, str]:
    """Checksum of something that the run has made before."""
    made = [record.outputs for record in context.findings.processes if product in record.outputs]
    return {product: made[-1][product]} if made else {}


def learned_followers(
    settings: ProcessingSettings, open_product: OpenRunProduct
) -> tuple[list[SlabFollower], list[Stage]]:
    """What follows the reconstruction, as the profile wants it.

    Parameters
    ----------
    settings : ProcessingSettings
        ``denoise``, ``segment`` and ``models``.
    open_product : OpenRunProduct
        Makes the places that products are written to.

    Returns
    -------
    followers : list of SlabFollower
        For `Reconstruct`; the segmenter takes denoised slices if there are some.
    stages : list of Stage
        Those that come after `Reconstruct`.
    """
    followers: list[SlabFollower] = []
    if settings.denoise is not None:
        work: LearnedPass = DenoisePass(settings.denoise, settings.models)
        followers.append(LearnedFollower(DENOISE, VOLUME, work, open_product))
    if settings.segment is not None:
        work = SegmentPass(settings.segment, settings.models)
        source = VOLUME if settings.denoise is None else DENOISE
        followers.append(LearnedFollower(SEGMENT, source, work, open_product))
    return followers, [FinishFollower(follower.name) for follower in followers]
