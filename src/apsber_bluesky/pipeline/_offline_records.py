"""How the volume of a scan on disk came about, for its provenance."""

from __future__ import annotations

from typing import Any

from apsber_bluesky.core import ImageKey, ProcessRecord, array_checksum
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_slab import SlabResult


def offline_records(
    job: OfflineJob,
    references: References,
    results: list[SlabResult],
    engine: str,
    started_s: float,
    first_index: int,
) -> list[ProcessRecord]:
    """One record for each step.

    Parameters
    ----------
    job : OfflineJob
        What was done.
    references : References
        Its darks and flats.
    results : list of SlabResult
        Of all slabs, in order.
    engine : str
        Engine that was used.
    started_s : float
        Unix time at which it began [s].
    first_index : int
        Number of the first of these steps.
    """
    steps = [
        ("normalise", _normalised(job, references, results), _references(references)),
        ("reconstruct", _reconstructed(job, engine), _projections(job, results)),
    ]
    if job.preparation.stripes != "none":
        steps.insert(1, ("remove stripes", {"method": job.preparation.stripes}, {}))
    return [
        ProcessRecord(
            name=name,
            sequence_index=index,
            parameters=parameters,
            inputs=inputs,
            started_s=started_s,
        )
        for index, (name, parameters, inputs) in enumerate(steps, first_index)
    ]


def _normalised(
    job: OfflineJob, references: References, results: list[SlabResult]
) -> dict[str, Any]:
    parameters = {
        "num_darks": job.scan.count(ImageKey.DARK),
        "num_flats": job.scan.count(ImageKey.FLAT),
        "bad_pixels": int(references.bad.sum()),
        **results[0].prepared,
    }
    if "zingers" in parameters:
        parameters["zingers"] = sum(result.prepared["zingers"] for result in results)
    return parameters


def _references(references: References) -> dict[str, str]:
    flats = [array_checksum(flat) for flat in references.flats]
    names = {1: ["flat"], 2: ["flat before", "flat after"]}
    numbered = [f"flat at {time:g}" for time in references.flat_times]
    named = zip(names.get(len(flats), numbered), flats, strict=True)
    return {"dark": array_checksum(references.dark), **dict(named)}


def _reconstructed(job: OfflineJob, engine: str) -> dict[str, Any]:
    geometry, angles = job.geometry, job.angles_deg
    return {
        "engine": engine,
        **_method(job),
        "centre_px": geometry.centre_px,
        "volume_centre_px": geometry.engine_centre_px,
        "num_projections": job.projections,
        "first_row": geometry.first_row,
        "last_row": geometry.last_row,
        "bin": geometry.bin,
        "tilt_deg": geometry.tilt_deg,
        "off_axis": geometry.off_axis,
        "region_px": list(job.region or ()),
        "angle_first_deg": float(angles[0]),
        "angle_last_deg": float(angles[-1]),
    }


def _method(job: OfflineJob) -> dict[str, Any]:
    """What the engine was told."""
    if job.iterative is None:
        return {"filter": job.filter_name, "edges_extended": job.preparation.extend_edges}
    return {key: value for key, value in job.iterative.parameters.items() if value is not None}


def _projections(job: OfflineJob, results: list[SlabResult]) -> dict[str, str]:
    rows = {
        f"{job.scan.path.name} projections, rows {result.rows[0]}-{result.rows[1] - 1}": (
            result.checksum
        )
        for result in results
    }
    return {"angles": array_checksum(job.angles_deg), **rows}
