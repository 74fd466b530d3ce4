"""``apsber estimate``: what a reconstruction will take, before it is begun."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import JsonOption, Output, duration
from apsber_bluesky.cli._scan_job import (
    PreparedJob,
    ScanOptions,
    amount,
    planned,
    prepare,
    say_plan,
)
from apsber_bluesky.cli._scan_models import ScanModels, model_settings
from apsber_bluesky.cli._scan_options import (
    AnglesOption,
    BinOption,
    CentreOption,
    DenoiseOption,
    DeviceOption,
    DistanceOption,
    EnergyOption,
    EngineOption,
    ExtendEdgesOption,
    FileArgument,
    FlatsOption,
    IterationsOption,
    JobsOption,
    LeaveOutOption,
    MethodOption,
    ModelsOption,
    NoiseOption,
    NonNegativeOption,
    PhaseOption,
    PixelSizeOption,
    RegularisationOption,
    RoiOption,
    SegmentOption,
    SlabSlicesOption,
    SlicesOption,
    StitchOption,
    StripesOption,
    TiltOption,
    ZingersOption,
)
from apsber_bluesky.core import InputError, explain_disk_errors


def estimate(
    file: FileArgument,
    engine: EngineOption = "auto",
    centre: CentreOption = "auto",
    slices: SlicesOption = ":",
    bin_: BinOption = 1,
    roi: RoiOption = None,
    tilt: TiltOption = 0.0,
    stitch: StitchOption = None,
    method: MethodOption = "fbp",
    iterations: IterationsOption = None,
    non_negative: NonNegativeOption = None,
    regularisation: RegularisationOption = None,
    noise: NoiseOption = None,
    stripes: StripesOption = "none",
    zingers: ZingersOption = None,
    phase: PhaseOption = None,
    energy_keV: EnergyOption = None,
    distance_mm: DistanceOption = None,
    flats: FlatsOption = "average",
    extend_edges: ExtendEdgesOption = False,
    angles: AnglesOption = None,
    leave_out: LeaveOutOption = None,
    pixel_size: PixelSizeOption = None,
    jobs: JobsOption = None,
    slab_slices: SlabSlicesOption = None,
    denoise: DenoiseOption = None,
    segment: SegmentOption = None,
    models: ModelsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how much memory and time a reconstruction will take; some slices are tried."""
    from apsber_bluesky.pipeline import estimate_time

    output = Output(as_json=as_json)
    options = ScanOptions(
        file=file, engine=engine, centre=centre, slices=slices, bin=bin_, roi=roi, tilt=tilt,
        stitch=stitch, method=method, iterations=iterations, non_negative=non_negative,
        regularisation=regularisation, noise=noise, stripes=stripes, zingers=zingers, phase=phase,
        energy_keV=energy_keV, distance_mm=distance_mm, flats=flats, extend_edges=extend_edges,
        angles=angles, leave_out=leave_out, pixel_size=pixel_size, jobs=jobs,
        slab_slices=slab_slices, denoise=denoise, segment=segment, models=models, device=device,
    )  # fmt: skip
    cancelled = threading.Event()
    trial = _Trial(options)
    with handle_interrupts():
        # The width of an off-axis volume follows from its centre; any other size does not.
        prepared = prepare(options, cancelled, centre=stitch == "auto")
        with planned(options, prepared.job, own_files=True) as place:
            value = say_plan(output, prepared, place.plan)
            with output.progress_console.status("trying 16 slices"):
                needed = estimate_time(prepared.job, prepared.references, place.plan, trial.write)
    output.say(
        f"time      about {duration(needed.total_s)} with {needed.engine}"
        f" ({needed.slices} slices: {needed.read_s:.2f} s to read and filter,"
        f" {needed.reconstruct_s:.2f} s to make, {needed.write_s:.2f} s to write here as OME-Zarr)"
    )
    value |= {
        "engine": needed.engine,
        "seconds": round(needed.total_s, 3),
        "read_seconds": round(needed.read_s, 3),
        "make_seconds": round(needed.reconstruct_s, 3),
        "write_seconds": round(needed.write_s, 3),
    }
    if denoise is not None or segment is not None:
        with output.progress_console.status("trying the models"):
            value |= _say_models(output, options, prepared, trial)
    output.result(value)


def _say_models(
    output: Output, options: ScanOptions, prepared: PreparedJob, trial: _Trial
) -> dict[str, Any]:
    """Tell what the models take; gives the same as plain values."""
    from apsber_bluesky.pipeline import models_bytes

    shape = prepared.job.shape
    seconds = shape[0] * trial.model_seconds(prepared.voxel_size_um)
    needed = models_bytes(shape, model_settings(options))
    output.say(f"models    about {duration(seconds)} more, up to {amount(needed)}")
    return {"models_seconds": round(seconds, 3), "models_bytes": needed}


class _Trial:
    """Writes some slices into the current folder, for a trial; nothing of them stays."""

    def __init__(self, options: ScanOptions) -> None:
        self._options = options
        self._slices: NDArray[np.float32] | None = None

    def write(self, slices: NDArray[np.float32]) -> None:
        """Write slices [1/pixel]."""
        self._slices = slices
        with _folder() as name:
            self._write(Path(name) / "trial.zarr", slices, None)

    def model_seconds(self, voxel_size_um: float | None) -> float:
        """Time that the models take for a slice of those that were written [s]."""
        if self._slices is None:
            raise InputError("no slices were made to try the models on")
        with _folder() as name:
            path = Path(name) / "trial.zarr"
            checksum = self._write(path, self._slices, voxel_size_um)
            models = ScanModels.of(self._options, path, overwrite=False)
            began = time.perf_counter()
            models.apply(checksum, (), _Silent(), threading.Event())
            return (time.perf_counter() - began) / len(self._slices)

    def _write(self, path: Path, slices: NDArray[np.float32], voxel_size_um: float | None) -> str:
        from apsber_bluesky.storage import VolumeWriter

        depth, rows, columns = slices.shape
        with VolumeWriter(path, (depth, rows, columns), voxel_size_um=voxel_size_um) as writer:
            writer.write(0, slices)
        return writer.checksum


class _Silent:
    """Wants to know nothing of the progress."""

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        """So much of a stage is done."""

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        """Something happened."""


def _folder() -> tempfile.TemporaryDirectory[str]:
    with explain_disk_errors(Path.cwd(), "try to write"):
        return tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".apsber-estimate-")
