"""``apsber reconstruct``: from a scan on disk to a volume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._interrupt import cancellable
from apsber_bluesky.cli._output import JsonOption, Output
from apsber_bluesky.cli._scan_job import PreparedJob, ScanOptions, planned, prepare, say_plan
from apsber_bluesky.cli._scan_models import ScanModels
from apsber_bluesky.cli._scan_options import (
    AnglesOption,
    BinOption,
    CentreOption,
    ClusterOption,
    DenoiseOption,
    DeviceOption,
    DistanceOption,
    EnergyOption,
    EngineOption,
    ExecutorOption,
    ExtendEdgesOption,
    FileArgument,
    FilterOption,
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
    parse_centres,
)
from apsber_bluesky.core import Cancellation, InputError, StorageError

if TYPE_CHECKING:
    from apsber_bluesky.storage import AnyVolumeWriter

OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Volume to write: .zarr, .h5, .nxs, .tif, or without a suffix a folder of TIFF files.",
    ),
]


def reconstruct(
    file: FileArgument,
    output_file: OutputOption = None,
    engine: EngineOption = "auto",
    centre: CentreOption = "auto",
    slices: SlicesOption = ":",
    try_centres: Annotated[
        str | None,
        typer.Option(
            help="Reconstruct one slice about each centre from A to B, into pictures that say"
            " about which.",
            metavar="A:B:STEP",
        ),
    ] = None,
    bin_: BinOption = 1,
    roi: RoiOption = None,
    tilt: TiltOption = 0.0,
    stitch: StitchOption = None,
    filter_: FilterOption = "ramp",
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
    cluster: ClusterOption = None,
    executor: ExecutorOption = None,
    slab_slices: SlabSlicesOption = None,
    denoise: DenoiseOption = None,
    segment: SegmentOption = None,
    models: ModelsOption = None,
    device: DeviceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Reconstruct a scan that is on disk, in as little memory as there is."""
    output = Output(as_json=as_json)
    options = ScanOptions(
        file=file, engine=engine, centre=centre, slices=slices, bin=bin_, roi=roi, tilt=tilt,
        stitch=stitch, filter=filter_, method=method, iterations=iterations,
        non_negative=non_negative, regularisation=regularisation, noise=noise,
        stripes=stripes, zingers=zingers, phase=phase, energy_keV=energy_keV,
        distance_mm=distance_mm, flats=flats, extend_edges=extend_edges, angles=angles,
        leave_out=leave_out, pixel_size=pixel_size, jobs=jobs, cluster=cluster, executor=executor,
        slab_slices=slab_slices, denoise=denoise, segment=segment, models=models, device=device,
    )  # fmt: skip
    with cancellable() as cancelled:
        if try_centres is not None:
            if denoise is not None or segment is not None:
                raise InputError("--denoise and --segment are for volumes, not for --try-centres")
            folder = output_file or Path(f"{file.stem or 'scan'}_centres")
            _try(output, options, parse_centres(try_centres), folder, cancelled, overwrite)
        else:
            path = output_file or Path(f"{file.stem or 'scan'}_rec.zarr")
            _reconstruct(output, options, path, cancelled, overwrite)


def _reconstruct(
    output: Output, options: ScanOptions, path: Path, cancelled: Cancellation, overwrite: bool
) -> None:
    from apsber_bluesky.pipeline import reconstruct_offline
    from apsber_bluesky.storage import check_volume_path, create_volume

    check_volume_path(path, overwrite=overwrite)
    began = time.monotonic()
    models = ScanModels.of(options, path, overwrite=overwrite)
    with output.progress_console.status("reading darks and flats, finding the rotation centre"):
        prepared = prepare(options, cancelled)
    _say_centre(output, prepared)
    job = prepared.job
    with (
        create_volume(
            path,
            job.shape,
            voxel_size_um=prepared.voxel_size_um,
            origin_px=_origin(prepared),
            raw_file=str(prepared.scan.path),
            overwrite=overwrite,
        ) as sink,
        planned(options, job, own_files=sink.deposit is not None) as place,
    ):
        value = say_plan(output, prepared, place.plan)
        display = RunDisplay(output.progress_console)
        with display.live():
            report = reconstruct_offline(
                job,
                prepared.references,
                place.plan,
                sink,
                progress=_Progress(display),
                cancelled=cancelled,
                open_executor=place.open_executor,
                processes=prepared.records,
            )
    seconds = time.monotonic() - began
    for warning in report.warnings:
        output.say(f"warning   {warning}")
    output.say(f"engine    {report.engine}, rotation centre {report.centre_px:.3f} px")
    output.say(f"written   {path} [{sink.unit}] in {seconds:.1f} s")
    value |= _apply(output, models, sink, cancelled)
    value |= {
        "output": str(path.absolute()),
        "unit": sink.unit,
        "checksum": sink.checksum,
        "engine": report.engine,
        "centre_px": report.centre_px,
        "bad_pixels": report.bad_pixels,
        "saturated_pixels": report.saturated_pixels,
        "warnings": report.warnings,
        "seconds": round(seconds, 3),
        "reconstruct_seconds": round(report.seconds, 3),
    }
    output.result(value)


def _apply(
    output: Output, models: ScanModels, sink: AnyVolumeWriter, cancelled: Cancellation
) -> dict[str, Any]:
    """Send the volume through the models that were asked for; what is told of them."""
    if not models.passes:
        return {}
    began, display = time.monotonic(), RunDisplay(output.progress_console)
    with display.live():
        products = models.apply(sink.checksum, sink.processes, _Progress(display), cancelled)
    seconds = time.monotonic() - began
    for name, path in products.items():
        output.say(f"{name:9s} {path}")
    output.say(f"models    {', '.join(models.passes)} in {seconds:.1f} s")
    return {"products": products, "models_seconds": round(seconds, 3)}


def _say_centre(output: Output, prepared: PreparedJob) -> None:
    for record in prepared.records:
        parameters = record.parameters
        output.say(f"centre    {parameters['centre_px']:.3f} px, {parameters['method']}")


def _origin(prepared: PreparedJob) -> tuple[float, float, float]:
    """Place of the first voxel: z from the first detector row, y and x from the axis [voxel]."""
    job = prepared.job
    middle = job.geometry.size // 2
    x0, _, y0, _ = job.region or (0, 0, 0, 0)
    return job.geometry.first_row / job.geometry.bin, y0 - middle, x0 - middle


class _Progress:
    """Passes on to the bars what a reconstruction tells."""

    def __init__(self, display: RunDisplay) -> None:
        self._display = display

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        self._display({"type": "stage", "stage": stage, "done": done, "total": total})

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        """Nothing else is told."""


def _try(
    output: Output,
    options: ScanOptions,
    centres: list[float],
    folder: Path,
    cancelled: Cancellation,
    overwrite: bool,
) -> None:
    from apsber_bluesky.analysis import draw_centre_slice, grey_range
    from apsber_bluesky.core import atomic_directory, explain_disk_errors
    from apsber_bluesky.pipeline import try_centres

    _check_folder(folder, overwrite=overwrite)
    with output.progress_console.status("reading darks and flats"):
        prepared = prepare(options, cancelled, centre=False)
    number = prepared.job.geometry.slices // 2
    row = prepared.job.geometry.levelled_rows(number, number + 1).start
    display, progress, tried = RunDisplay(output.progress_console), 0, []
    grey: tuple[float, float] | None = None
    with (
        explain_disk_errors(folder, "draw slices"),
        atomic_directory(folder) as partial,
        display.live(),
    ):
        for centre, image in try_centres(
            prepared.job, prepared.references, number, centres, cancelled
        ):
            # One grey scale for all, or they could not be compared.
            grey = grey or grey_range(image)
            name = f"centre_{centre:010.3f}.png"
            draw_centre_slice(image, partial / name, centre_px=centre, grey=grey)
            tried.append({"centre_px": centre, "file": name})
            progress += 1
            _Progress(display).stage("", "reconstruct", progress, len(centres))
    for note in prepared.notes:
        output.say(f"note      {note}")
    output.say(f"written   {len(tried)} pictures of the slice from row {row} in {folder}")
    output.result({"folder": str(folder.absolute()), "row": row, "pictures": tried})


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise StorageError(f"{folder} is there already; choose another name or give --overwrite")
    if not folder.is_dir() or any(entry.suffix != ".png" for entry in folder.iterdir()):
        raise StorageError(f"{folder} holds something else than pictures and is not replaced")
