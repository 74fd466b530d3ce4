"""The rotation centre of a scan on disk: found, or tried."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    Cancellation,
    ProcessRecord,
    ReconstructionEngine,
    RunCancelled,
    array_checksum,
)
from apsber_bluesky.pipeline._accumulation import central_rows
from apsber_bluesky.pipeline._centre_estimate import estimate_centre
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_rows import PreparedRows
from apsber_bluesky.processing import FrameGeometry, create_engine, find_overlap


def find_offline_centre(
    job: OfflineJob, references: References, cancelled: Cancellation
) -> tuple[float, ProcessRecord]:
    """Find the column of the rotation axis from the rows in the middle of a job.

    Parameters
    ----------
    job : OfflineJob
        The job; its centre is not looked at.
    references : References
        Darks and flats of the scan.
    cancelled : Cancellation
        Asked between chunks.

    Returns
    -------
    centre_px : float
        Column in the recorded frames, levelled [pixel].
    record : ProcessRecord
        How it was found.

    Raises
    ------
    InputError
        If the projections do not show it.
    RunCancelled
        If it was told to stop.
    """
    started = time.time()
    whole = job.geometry
    middle = central_rows(whole.last_row - whole.first_row)
    first_row = whole.first_row + middle.start
    last_row = whole.first_row + middle.stop
    # At full width: bins would only blur the edges that the centre is found from.
    geometry = FrameGeometry(
        whole.rows,
        whole.columns,
        (whole.columns - 1) / 2,
        first_row,
        last_row,
        tilt_deg=whole.tilt_deg,
    )
    sinograms = np.concatenate(
        [chunk for _, chunk in _chunks(job, geometry, references, cancelled)]
    )
    parameters: dict[str, float | str]
    if whole.off_axis:
        overlap = find_overlap(sinograms, job.angles_deg)
        centre = overlap.centre_px
        parameters = {
            "method": "overlap of opposite projections",
            "overlap_px": overlap.overlap_px,
            "match": overlap.match,
        }
    else:
        estimate = estimate_centre(
            sinograms, job.angles_deg, engine=job.local_engine, filter_name=job.filter_name
        )
        centre = estimate.centre_px
        parameters = {"method": estimate.method, "uncertainty_px": estimate.uncertainty_px}
    record = ProcessRecord(
        name="centre",
        sequence_index=1,
        parameters={
            "centre_px": centre,
            "first_row": first_row,
            "last_row": last_row,
            **parameters,
        },
        inputs={"sinograms": array_checksum(sinograms)},
        started_s=started,
    )
    return centre, record


def try_centres(
    job: OfflineJob,
    references: References,
    slice_number: int,
    centres_px: Sequence[float],
    cancelled: Cancellation,
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Reconstruct one slice about several centres.

    Parameters
    ----------
    job : OfflineJob
        The job; its centre is not looked at.
    references : References
        Darks and flats of the scan.
    slice_number : int
        Which slice of its volume.
    centres_px : sequence of float
        Columns of the recorded frame [pixel]; each is used as it is, none is rounded.
    cancelled : Cancellation
        Asked between chunks.

    Yields
    ------
    centre_px : float
        The centre that was used [pixel].
    image : ndarray of float32
        The slice about it [1/pixel].

    Raises
    ------
    InputError
        If a centre lies outside the frame.
    RunCancelled
        If it was told to stop.
    """
    # Each is refused before the first is made.
    geometries = [job.geometry.about(centre) for centre in centres_px]
    engine: ReconstructionEngine | None = None
    for geometry in geometries:
        if engine is None or geometry.off_axis:
            engine = _accumulated(job, geometry, references, slice_number, cancelled)
        image = job.keep(engine.finish(slice(0, 1), geometry.engine_centre_px))
        yield geometry.centre_px, image[0]


def _accumulated(
    job: OfflineJob,
    geometry: FrameGeometry,
    references: References,
    slice_number: int,
    cancelled: Cancellation,
) -> ReconstructionEngine:
    engine = create_engine(
        job.engine,
        rows=1,
        columns=geometry.size,
        angles_deg=job.angles_deg,
        filter_name=job.filter_name,
    )
    place = slice_number, slice_number + 1
    for first, chunk in _chunks(job, geometry, references, cancelled, place):
        job.extend(chunk)
        engine.accumulate(chunk, first)
    return engine


def _chunks(
    job: OfflineJob,
    geometry: FrameGeometry,
    references: References,
    cancelled: Cancellation,
    place: tuple[int, int] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    first, stop = place or (0, geometry.slices)

    def check() -> None:
        if cancelled.is_set():
            raise RunCancelled("cancelled while looking for the rotation centre")

    rows = references.rows_needed(job.rows_read(geometry, first, stop))
    source = PreparedRows(job, geometry, references.cut(rows), first, stop, check=check)
    with job.scan.opened() as opened:
        yield from source.chunks(opened)
