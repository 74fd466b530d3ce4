"""Denoise and segment a volume that is already on disk."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    Cancellation,
    DenoiseSettings,
    ProcessRecord,
    RunCancelled,
    SegmentSettings,
    StageProgress,
)
from apsber_bluesky.pipeline._accumulation import central_rows
from apsber_bluesky.pipeline._followers import Slab
from apsber_bluesky.pipeline._learned_passes import (
    DenoisePass,
    LearnedPass,
    OpenProduct,
    SegmentPass,
    VolumeAhead,
    measure_level,
)

SLAB_SLICES = 16


class StoredVolume(Protocol):
    """A volume on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""
        ...

    def __getitem__(self, key: slice, /) -> Any:
        """Some slices."""
        ...


def offline_passes(
    denoise: DenoiseSettings | None, segment: SegmentSettings | None, models: Path | None
) -> dict[str, LearnedPass]:
    """The models that are asked for, by the name of their step, loaded and in their order.

    Raises
    ------
    ConfigurationError
        If there is no such model, or no torch.
    InputError
        If a model's file does not fit its card.
    """
    passes: dict[str, LearnedPass] = {}
    if denoise is not None:
        passes["denoise"] = DenoisePass(denoise, models)
    if segment is not None:
        passes["segment"] = SegmentPass(segment, models)
    for work in passes.values():
        work.prepare()
    return passes


def apply_models(
    volume: StoredVolume,
    passes: dict[str, LearnedPass],
    open_product: OpenProduct,
    *,
    name: str,
    checksum: str,
    per_pixel: float,
    voxel_size_um: float | None,
    progress: StageProgress,
    cancelled: Cancellation,
    processes: Sequence[ProcessRecord] = (),
) -> list[ProcessRecord]:
    """Send a volume through models, each of which takes what the one before it made.

    Results are those of a run whose slabs were taken as they were reconstructed.

    Parameters
    ----------
    volume : StoredVolume
        The volume; a few slices are in memory at a time.
    passes : dict of str to LearnedPass
        The models, by the name of their step; see `offline_passes`.
    open_product : OpenProduct
        Makes the places that products are written to.
    name, checksum : str
        File name of the volume and its checksum, for the record.
    per_pixel : float
        Attenuation [1/pixel] of a stored value of 1.
    voxel_size_um : float or None
        Edge of a voxel [um].
    progress : StageProgress
        Told how many slices are done.
    cancelled : Cancellation
        Asked between slabs.
    processes : sequence of ProcessRecord
        How the volume came about.

    Returns
    -------
    list of ProcessRecord
        The chain, with a record for each model.

    Raises
    ------
    InputError
        If a model does not fit the volume.
    StorageError
        If the disk refuses.
    RunCancelled
        If it was told to stop; nothing half-made is left.
    """
    source = _PerPixel(volume, per_pixel)
    slices, rows, columns = volume.shape
    measure = functools.lru_cache(lambda: measure_level(source[central_rows(slices)]))
    ahead = VolumeAhead((slices, rows, columns), voxel_size_um, measure)
    started_s = time.time()
    chain = [*processes]
    try:
        for work in passes.values():
            work.begin(ahead, open_product)
        for start in range(0, slices, SLAB_SLICES):
            stop = min(start + SLAB_SLICES, slices)
            slabs: list[Slab] = [(start, source[slice(start, stop)])]
            for step, work in passes.items():
                if cancelled.is_set():
                    raise RunCancelled(f"cancelled during {step}")
                slabs = [own for _, slab in slabs for own in work.take(slab)]
                progress.stage("", step, stop, slices)
        made = {name: checksum}
        rest: list[Slab] = []
        for step, work in passes.items():
            rest = [own for _, slab in rest for own in work.take(slab)]
            record = _record(step, work, made, len(chain) + 1, started_s)
            work.processes = [*chain, record]
            rest += work.finish()
            made = work.outputs
            chain.append(replace(record, outputs=made, finished_s=time.time()))
    except BaseException:
        for work in passes.values():
            work.abandon()
        raise
    return chain


class _PerPixel:
    """Slices of a stored volume as attenuation per pixel."""

    def __init__(self, volume: StoredVolume, factor: float) -> None:
        self._volume, self._factor = volume, np.float32(factor)

    def __getitem__(self, where: slice) -> NDArray[np.float32]:
        values = np.asarray(self._volume[where], np.float32)
        return values if self._factor == 1 else values * self._factor


def _record(
    step: str, work: LearnedPass, inputs: dict[str, str], index: int, started_s: float
) -> ProcessRecord:
    parameters = work.parameters
    model = {f"model {parameters['model']}": parameters["model_sha256"]}
    return ProcessRecord(
        name=step,
        sequence_index=index,
        parameters=parameters,
        inputs={**inputs, **model},
        started_s=started_s,
    )
