"""Tomography that stops for every projection."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.devices import Camera, FastShutter, RotationStage, SampleAxis
from apsber_bluesky.plans._preflight import preflight_tomography
from apsber_bluesky.plans._scan import (
    Instrument,
    References,
    ScanRun,
    When,
    check_references,
    check_timing,
    describe_scan,
    start_metadata,
    tomography_run,
)


def step_tomography(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_x: SampleAxis,
    *,
    num_projections: int = 180,
    exposure_s: float = 0.02,
    rotation_start_deg: float = 0.0,
    rotation_stop_deg: float = 180.0,
    num_darks: int = 10,
    num_flats: int = 10,
    dark_mode: When = "start",
    flat_mode: When = "start",
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    return_rotation: bool = True,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a tomography scan that stops the rotation for every projection.

    Slower than `fly_tomography`, and the choice when the stage gives no pulses or the exposure is
    long. Each projection is an event of stream ``primary`` with the angle that was read back.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage that turns the sample.
    shutter : FastShutter
        Shutter, closed for darks and after the scan.
    sample_x : SampleAxis
        Axis that moves the sample out of the beam for flats.
    num_projections : int
        Number of projections, 1 or more.
    exposure_s : float
        Exposure time of each frame [s].
    rotation_start_deg : float
        Angle of the first projection [deg].
    rotation_stop_deg : float
        End of the range [deg]; the angle itself is not exposed, so that 0 to 180 has no angle
        twice.
    num_darks : int
        Darks per series.
    num_flats : int
        Flats per series.
    dark_mode : {"start", "end", "both", "none"}
        When darks are taken.
    flat_mode : {"start", "end", "both", "none"}
        When flats are taken.
    sample_in_mm : float
        Position of `sample_x` with the sample in the beam [mm].
    sample_out_mm : float
        Position of `sample_x` with the sample out of the beam [mm].
    return_rotation : bool
        Whether the stage turns back to `rotation_start_deg` at the end.
    sample : str
        Name of the sample.
    md : dict, optional
        Further metadata of the run.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    str
        Bluesky run uid.

    Raises
    ------
    InputError
        If an argument is wrong, or disk or memory would not suffice; before anything moves.
    """
    instrument = Instrument(camera, rotation, shutter, sample_x)
    timing = check_timing(exposure_s, None)
    references = check_references(
        References(num_darks, num_flats, dark_mode, flat_mode, sample_in_mm, sample_out_mm)
    )
    scan = describe_scan(
        instrument,
        timing,
        references,
        rotation_start_deg=rotation_start_deg,
        rotation_stop_deg=rotation_stop_deg,
        num_projections=num_projections,
    )
    preflight_tomography(
        "step_tomography", instrument, timing, references, scan, return_rotation=return_rotation
    )

    def body(run: ScanRun) -> MsgGenerator[None]:
        yield from bps.mv(sample_x, sample_in_mm)
        yield from run.references_at("start")
        yield from step_projections(run, scan.angles_deg.tolist())
        yield from run.references_at("end")
        if return_rotation:
            yield from bps.mv(rotation, rotation_start_deg)

    metadata = start_metadata("step_tomography", instrument, scan, references, sample, md)
    return (yield from tomography_run(instrument, timing, references, metadata, body))


def step_projections(run: ScanRun, angles_deg: list[float]) -> MsgGenerator[None]:
    """Take one projection at each of some angles [deg], behind those that were taken before."""
    camera, rotation = run.instrument.camera, run.instrument.rotation
    series = run.series("primary", len(angles_deg), "step")
    yield from bps.prepare(camera, series, wait=True)
    for number, angle_deg in enumerate(angles_deg):
        yield from bps.checkpoint()
        # All that a point needs: bluesky repeats it after a pause, which closes the shutter.
        yield from bps.mv(run.instrument.shutter, "open", rotation, angle_deg)
        yield from bps.mv(camera.next_frame, number)
        yield from bps.trigger_and_read([camera, rotation])
    # What follows is not to repeat the last point.
    yield from bps.checkpoint()
    yield from bps.mv(run.instrument.shutter, "close")
