"""From options to a job: what the commands for scans on disk have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apsber_bluesky.cli._output import Output
from apsber_bluesky.cli._scan_options import (
    parse_number,
    parse_range,
    parse_region,
    read_angles,
)
from apsber_bluesky.cli._scan_preparation import prepared_as
from apsber_bluesky.core import (
    Cancellation,
    ConfigurationError,
    ImageKey,
    InputError,
    ProcessRecord,
    parse_ranges,
)

if TYPE_CHECKING:
    from apsber_bluesky.pipeline import OfflineJob, References, SlabPlan
    from apsber_bluesky.processing import IterativeSettings
    from apsber_bluesky.storage import ScanFile

# Without a word from the workers about their memory.
_REMOTE_SLICES = 32


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a user asked for; see the options in `_scan_options`."""

    file: Path
    engine: str = "auto"
    centre: str = "auto"
    slices: str = ":"
    bin: int = 1
    roi: str | None = None
    tilt: float = 0.0
    stitch: str | None = None
    filter: str = "ramp"
    method: str = "fbp"
    iterations: int | None = None
    non_negative: bool | None = None
    regularisation: float | None = None
    noise: float | None = None
    stripes: str = "none"
    zingers: float | None = None
    phase: float | None = None
    energy_keV: float | None = None
    distance_mm: float | None = None
    flats: str = "average"
    extend_edges: bool = False
    angles: str | None = None
    leave_out: str | None = None
    pixel_size: float | None = None
    jobs: int | None = None
    cluster: str | None = None
    executor: str | None = None
    slab_slices: int | None = None
    denoise: str | None = None
    segment: str | None = None
    models: Path | None = None
    device: str | None = None


@dataclass(slots=True)
class PreparedJob:
    """A job that is ready to be planned.

    Attributes
    ----------
    scan : ScanFile
        The scan.
    job : OfflineJob
        The job, with its centre.
    references : References
        Darks and flats.
    records : list of ProcessRecord
        What was done so far.
    notes : list of str
        What the user should know.
    """

    scan: ScanFile
    job: OfflineJob
    references: References
    records: list[ProcessRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def voxel_size_um(self) -> float | None:
        """Edge of a voxel [um]."""
        size = self.scan.pixel_size_um
        return None if size is None else size * self.job.geometry.bin


def open_with(options: ScanOptions) -> ScanFile:
    """The scan, with the angles, pixel size and projections that the user wants.

    Raises
    ------
    ApsberError
        If the file or an option is wrong.
    """
    from apsber_bluesky.storage import open_scan

    scan = open_scan(options.file)
    if options.pixel_size is not None:
        if not options.pixel_size > 0:
            raise InputError(f"--pixel-size is {options.pixel_size}; give a positive length [um]")
        scan = replace(scan, pixel_size_um=options.pixel_size)
    if options.angles is not None:
        scan = scan.with_angles(read_angles(options.angles, scan.count(ImageKey.PROJECTION)))
    if options.leave_out is not None:
        scan = scan.without(parse_ranges(options.leave_out))
    if scan.count(ImageKey.PROJECTION) < 2:
        raise InputError(f"fewer than two projections of {scan.path} are left; leave out less")
    return scan


def prepare(options: ScanOptions, cancelled: Cancellation, *, centre: bool = True) -> PreparedJob:
    """Open the scan, average its references and find its centre.

    Parameters
    ----------
    options : ScanOptions
        What the user asked for.
    cancelled : Cancellation
        Asked now and then.
    centre : bool
        Whether the centre matters; otherwise the middle of the frame stands for it.

    Raises
    ------
    ApsberError
        If the file or an option is wrong.
    """
    from apsber_bluesky.pipeline import OfflineJob, References, find_offline_centre
    from apsber_bluesky.processing import (
        FILTER_NAMES,
        FrameGeometry,
        check_full_turn,
        engine_names,
        overlap_centre,
    )

    scan = open_with(options)
    if options.filter not in FILTER_NAMES:
        names = ", ".join(FILTER_NAMES)
        raise InputError(f"unknown filter {options.filter!r}; choose one of {names}")
    iterative = _iterative(options)
    remote = options.cluster is not None or options.executor is not None
    if options.engine != "auto" and options.engine not in engine_names() and not remote:
        present = ", ".join(engine_names())
        raise InputError(f"no engine {options.engine!r} here; present: {present}")
    first, last = parse_range(options.slices, scan.rows, "slices")
    wide = options.stitch is not None
    given = _given_centre(options, scan.columns, overlap_centre)
    middle = (scan.columns - 1) / 2 if given is None else given
    geometry = FrameGeometry(
        scan.rows, scan.columns, middle, first, last, options.bin, options.tilt, wide
    )
    preparation = prepared_as(options)
    job = OfflineJob(
        scan, geometry, options.engine, options.filter, iterative=iterative, preparation=preparation
    )
    # Before anything takes long.
    angles = job.angles_deg
    if wide:
        check_full_turn(angles)
    references = References.measure(scan, interpolated=preparation.flats == "interpolate")
    prepared = PreparedJob(scan, job, references, notes=list(scan.notes))
    if scan.count(ImageKey.DARK) == 0:
        prepared.notes.append(f"{scan.path.name} has no darks; they are taken as 0")
    if given is None and centre:
        found, record = find_offline_centre(job, references, cancelled)
        prepared.records.append(record)
        geometry = geometry.about(found)
    region = None if options.roi is None else parse_region(options.roi, geometry.size)
    prepared.job = replace(job, geometry=geometry, region=region)
    return prepared


def _iterative(options: ScanOptions) -> IterativeSettings | None:
    """How to iterate, if that is what the user wants."""
    from apsber_bluesky.processing import ITERATIVE_METHODS, IterativeSettings

    given = {
        name: getattr(options, name)
        for name in ("iterations", "non_negative", "regularisation", "noise")
        if getattr(options, name) is not None
    }
    if options.method == "fbp":
        if given:
            name = next(iter(given)).replace("_", "-")
            raise InputError(f"--{name} is for iterative methods; add --method cgls, sirt or tv")
        return None
    if options.method not in ITERATIVE_METHODS:
        names = ", ".join(ITERATIVE_METHODS)
        raise InputError(f"unknown method {options.method!r}; choose one of fbp, {names}")
    if options.filter != "ramp":
        raise InputError(f"--filter is for --method fbp; {options.method} has no filter")
    if "regularisation" in given and options.method != "tv":
        raise InputError(f"--regularisation is for --method tv; {options.method} has no weight")
    return IterativeSettings(method=options.method, **given)


def _given_centre(options: ScanOptions, columns: int, overlap_centre: Any) -> float | None:
    if options.centre != "auto":
        return parse_number(options.centre, "centre")
    if options.stitch not in (None, "auto"):
        return float(overlap_centre(columns, parse_number(options.stitch, "overlap")))
    return None


@dataclass(frozen=True, slots=True)
class Place:
    """Where slabs are made: an executor of somebody else's, or processes here."""

    plan: SlabPlan
    open_executor: Any


@contextmanager
def planned(options: ScanOptions, job: OfflineJob, *, own_files: bool) -> Iterator[Place]:
    """Plan the slabs, for this machine or the one that the user names.

    Parameters
    ----------
    options : ScanOptions
        What the user asked for.
    job : OfflineJob
        The job.
    own_files : bool
        Whether processes here can write into the volume themselves.
    """
    from apsber_bluesky.pipeline import DaskCluster, named_executor, plan_slabs
    from apsber_bluesky.processing import free_memory

    if options.cluster is not None and options.executor is not None:
        raise ConfigurationError("--cluster and --executor exclude each other; give one of them")
    free = free_memory()
    if options.cluster is not None:
        cluster = DaskCluster(options.cluster)
        try:
            # What comes back is held here, what is made is held there.
            memory = cluster.workers * (cluster.task_bytes or free // cluster.workers)
            plan = plan_slabs(
                job,
                workers=cluster.workers,
                free_bytes=min(memory, free) if _is_local(options.cluster) else memory,
                by_value=True,
                slab_slices=options.slab_slices,
            )
            yield Place(plan, cluster.executor)
        finally:
            cluster.close()
        return
    if options.executor is not None:
        entry = options.executor
        height = options.slab_slices or _REMOTE_SLICES
        workers = options.jobs or max(1, -(-job.geometry.slices // height))
        plan = plan_slabs(job, workers=workers, free_bytes=free, by_value=True, slab_slices=height)
        yield Place(plan, lambda: named_executor(entry))
        return
    plan = plan_slabs(
        job,
        workers=options.jobs,
        free_bytes=free,
        by_value=not own_files,
        slab_slices=options.slab_slices,
    )
    yield Place(plan, None)


def _is_local(address: str) -> bool:
    return "127.0.0.1" in address or "localhost" in address


def amount(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def say_plan(output: Output, prepared: PreparedJob, plan: SlabPlan) -> dict[str, Any]:
    """Tell what is to be done; gives the same as plain values."""
    from apsber_bluesky.pipeline import bytes_read

    scan, job = prepared.scan, prepared.job
    shape = job.shape
    volume_bytes = 4 * shape[0] * shape[1] * shape[2]
    read_bytes = bytes_read(job, plan)
    value: dict[str, Any] = {
        "file": str(scan.path),
        "layout": scan.layout,
        "projections": job.projections,
        "frame_shape": [scan.rows, scan.columns],
        "dtype": scan.dtype,
        "volume_shape": list(shape),
        "volume_bytes": volume_bytes,
        "voxel_size_um": prepared.voxel_size_um,
        "read_bytes": read_bytes,
        "plan": plan.to_dict(),
        "notes": prepared.notes,
    }
    output.say_title(
        str(scan.path.name),
        f"{scan.layout}, {job.projections} projections of {scan.rows} x {scan.columns}",
    )
    output.say(
        f"volume    {' x '.join(map(str, shape))}, {amount(volume_bytes)};"
        f" {amount(read_bytes)} to read"
    )
    sizes = plan.to_dict()
    threads = f" of {plan.threads} threads" if plan.threads > 1 else ""
    output.say(
        f"slabs     {sizes['slabs']} of up to {sizes['slab_slices']} slices, {plan.workers} at once"
        f"{threads}"
    )
    output.say(f"memory    up to {amount(plan.total_bytes)} of {amount(plan.free_bytes)} free")
    for note in prepared.notes:
        output.say(f"note      {note}")
    return value
