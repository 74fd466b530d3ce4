"""Tomography with continuous rotation."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import InputError
from apsber_bluesky.devices import (
    Camera,
    FastShutter,
    FlyRotation,
    RotationStage,
    SampleAxis,
)
from apsber_bluesky.plans._checks import check_number
from apsber_bluesky.plans._live_numbers import stop_if_saturated
from apsber_bluesky.plans._planned_series import Timing
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


def fly_tomography(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_x: SampleAxis,
    *,
    num_projections: int = 180,
    exposure_s: float = 0.02,
    frame_period_s: float | None = None,
    rotation_start_deg: float = 0.0,
    rotation_stop_deg: float = 180.0,
    num_darks: int = 10,
    num_flats: int = 10,
    dark_mode: When = "start",
    flat_mode: When = "start",
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    return_rotation: bool = True,
    retake_missing: bool = True,
    most_saturated: float | None = None,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a tomography scan while the sample turns without stopping.

    Darks and flats are taken, then the stage turns at constant speed and gives one pulse per
    projection to the camera. All frames are one run: streams ``darks``, ``flats`` and ``primary``.

    The scan may be paused, suspended and resumed at any time: it goes on from the first projection
    that is not on disk, and the volume is that of a scan without a pause.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage that turns the sample and triggers the camera.
    shutter : FastShutter
        Shutter, closed for darks and after the scan.
    sample_x : SampleAxis
        Axis that moves the sample out of the beam for flats.
    num_projections : int
        Number of projections, 1 or more.
    exposure_s : float
        Exposure time of each frame [s].
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as camera and stage allow when not given.
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
    retake_missing : bool
        Whether frames that got lost, or whose trigger pulse was missed, are taken again, so that
        the scan is complete. What a pause leaves out always is.
    most_saturated : float, optional
        Part of the pixels of the flats, from 0 to 1, that may be saturated; the scan ends before
        its first projection if more are. Without it the scan goes on with a warning.
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
    PlanError
        If flats are saturated more than `most_saturated` allows.
    """
    if most_saturated is not None:
        check_number("most_saturated", most_saturated, 0.0, 1.0, "of the pixels")
        if not num_flats or flat_mode not in ("start", "both"):
            raise InputError("most_saturated needs flats at the start; give flat_mode='start'")
    instrument = Instrument(camera, rotation, shutter, sample_x)
    timing = check_timing(exposure_s, frame_period_s)
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
    if frame_period_s is None:
        shortest = rotation.shortest_period_s(scan.step_deg)
        timing = Timing(timing.exposure_s, max(timing.period_s, shortest))
    fly = FlyRotation(
        start_deg=scan.rotation_start_deg,
        step_deg=scan.step_deg,
        num_pulses=scan.num_projections,
        period_s=timing.period_s,
    )
    rotation.check(fly)
    preflight_tomography(
        "fly_tomography",
        instrument,
        timing,
        references,
        scan,
        fly=fly,
        return_rotation=return_rotation,
    )

    def body(run: ScanRun) -> MsgGenerator[None]:
        yield from bps.mv(sample_x, sample_in_mm)
        yield from run.references_at("start")
        if most_saturated is not None:
            yield from stop_if_saturated(camera, run.uid, most_saturated)
        yield from run.fly(fly)
        yield from run.references_at("end")
        if return_rotation:
            yield from bps.mv(rotation, rotation_start_deg)

    metadata = start_metadata("fly_tomography", instrument, scan, references, sample, md)
    return (
        yield from tomography_run(
            instrument, timing, references, metadata, body, retake_missing=retake_missing
        )
    )
