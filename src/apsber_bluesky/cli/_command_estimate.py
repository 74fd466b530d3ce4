"""``apsber estimate``: what a reconstruction will take, before it is begun."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import JsonOption, Output
from apsber_bluesky.cli._scan_job import ScanOptions, planned, prepare, say_plan
from apsber_bluesky.cli._scan_options import (
    AnglesOption,
    BinOption,
    CentreOption,
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
    NoiseOption,
    NonNegativeOption,
    PhaseOption,
    PixelSizeOption,
    RegularisationOption,
    RoiOption,
    SlabSlicesOption,
    SlicesOption,
    StitchOption,
    StripesOption,
    TiltOption,
    ZingersOption,
)
from apsber_bluesky.core import explain_disk_errors


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
        slab_slices=slab_slices,
    )  # fmt: skip
    cancelled = threading.Event()
    with handle_interrupts():
        # The width of an off-axis volume follows from its centre; any other size does not.
        prepared = prepare(options, cancelled, centre=stitch == "auto")
        with planned(options, prepared.job, own_files=True) as place:
            value = say_plan(output, prepared, place.plan)
            with output.progress_console.status("trying 16 slices"):
                time = estimate_time(prepared.job, prepared.references, place.plan, _write)
    output.say(
        f"time      about {_duration(time.total_s)} with {time.engine}"
        f" ({time.slices} slices: {time.read_s:.2f} s to read and filter,"
        f" {time.reconstruct_s:.2f} s to make, {time.write_s:.2f} s to write here as OME-Zarr)"
    )
    value |= {
        "engine": time.engine,
        "seconds": round(time.total_s, 3),
        "read_seconds": round(time.read_s, 3),
        "make_seconds": round(time.reconstruct_s, 3),
        "write_seconds": round(time.write_s, 3),
    }
    output.result(value)


def _write(slices: NDArray[np.float32]) -> None:
    """Write some slices into the current folder, for a trial; nothing of them stays."""
    from apsber_bluesky.storage import VolumeWriter

    with explain_disk_errors(Path.cwd(), "try to write"):
        folder = tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".apsber-estimate-")
    with folder, VolumeWriter(Path(folder.name) / "trial.zarr", _shape(slices)) as writer:
        writer.write(0, slices)


def _shape(slices: NDArray[np.float32]) -> tuple[int, int, int]:
    depth, rows, columns = slices.shape
    return depth, rows, columns


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
