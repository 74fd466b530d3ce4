"""What plans will take, worked out from their arguments and the devices before anything moves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np

from apsber_bluesky.core import (
    ScanPrediction,
    ScanResources,
    TomographyScan,
    submit_prediction,
)
from apsber_bluesky.devices import FlyRotation
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._scan import Instrument, References

# What devices and software take beside exposures and motion; measured at the simulated beamline
# with its camera, see benchmarks/preflight.py.
_RUN_S: Final = 0.25  # open and close a run, stage and unstage, read the baseline twice
#: Arm camera and receiver, wait for the last frame on disk.
SERIES_S: Final = 0.2  # arm camera and receiver, wait for the last frame on disk
_STEP_S: Final = 0.02  # arm, trigger and read back one point of a step scan
_MOVE_S: Final = 0.03  # a motion begins, and its end is noticed
#: The shutter opens or closes.
SHUTTER_S: Final = 0.06
# Frames are announced so often, and live slices shown so often.
_ANNOUNCE_S: Final = 0.25
_SHOW_S: Final = 0.5


def motion_s(axis: Any, distance: float) -> float:
    """Time that an axis takes for a distance [s].

    Parameters
    ----------
    axis : device
        Motor, or a device with a motor ``axis``. One that does not say how fast it is counts as
        immediate.
    distance : float
        How far, either way [unit of the axis].
    """
    motor = getattr(axis, "axis", axis)
    distance = abs(distance)
    if not hasattr(motor, "velocity") or distance == 0:
        return 0.0
    speed = float(motor.velocity.get())
    ramp_s = float(motor.acceleration.get()) if hasattr(motor, "acceleration") else 0.0
    if speed <= 0:
        return 0.0
    if distance >= speed * ramp_s:
        return _MOVE_S + distance / speed + ramp_s
    return _MOVE_S + 2 * math.sqrt(distance * ramp_s / speed)


def place_of(axis: Any, otherwise: float) -> float:
    """Where an axis stands; `otherwise` if it does not say."""
    position = getattr(axis, "position", otherwise)
    return float(position) if isinstance(position, int | float) else otherwise


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """The times that a tomography run is made of [s].

    Attributes
    ----------
    before, projections, after : float
        From the first message to the first projection; the projections; and what follows.
    period : float
        Time between projections.
    lead : float
        From the beginning of `projections` to the first of them.
    """

    before: float
    projections: float
    after: float
    period: float
    lead: float

    @property
    def total(self) -> float:
        """The whole run."""
        return self.before + self.projections + self.after


def series_s(num_frames: int, timing: Timing) -> float:
    """Time for a series at the camera's own pace, if it has any frames [s]."""
    return SERIES_S + num_frames * timing.period_s if num_frames else 0.0


def flight_s(axis: Any, pulses_s: float) -> float:
    """Time for a motion at the speed of the pulses, with its run-up and what follows it [s]."""
    return 2 * _ramp_s(axis) + pulses_s + _MOVE_S


def _darks_s(references: References, timing: Timing) -> float:
    return SHUTTER_S + series_s(references.num_darks, timing) if references.num_darks else 0.0


def point_s(timing: Timing) -> float:
    """Time for one point of a step scan, without the motion to it [s]."""
    return timing.exposure_s + _STEP_S


def flats_s(instrument: Instrument, references: References, timing: Timing) -> float:
    """Time for one series of flats, there and back [s]."""
    if not references.num_flats:
        return 0.0
    way = references.sample_out_mm - references.sample_in_mm
    there = motion_s(instrument.sample_x, way)
    return 2 * there + 2 * SHUTTER_S + series_s(references.num_flats, timing)


def _references_s(
    instrument: Instrument, references: References, timing: Timing, when: str
) -> float:
    darks = _darks_s(references, timing) if references.dark_mode in (when, "both") else 0.0
    flats = (
        flats_s(instrument, references, timing) if references.flat_mode in (when, "both") else 0.0
    )
    return darks + flats


def tomography_parts(
    instrument: Instrument,
    timing: Timing,
    references: References,
    scan: TomographyScan,
    *,
    fly: FlyRotation | None,
    return_rotation: bool,
) -> Parts:
    """Predict the times of a tomography scan; a step scan if `fly` is None."""
    rotation = instrument.rotation
    at_first = scan.rotation_start_deg
    here = place_of(rotation, at_first)
    x_mm = place_of(instrument.sample_x, references.sample_in_mm)
    before = _RUN_S / 2 + motion_s(instrument.sample_x, references.sample_in_mm - x_mm)
    before += _references_s(instrument, references, timing, "start")
    if fly is None:
        each = motion_s(rotation, scan.step_deg) + point_s(timing)
        before += SERIES_S + SHUTTER_S + motion_s(rotation, at_first - here)
        period, lead = each, 0.0
        projections = each * scan.num_projections
        last = scan.rotation_stop_deg - scan.step_deg
    else:
        ramp_s = _ramp_s(rotation)
        run_up = fly.lead_deg(ramp_s)
        before += SERIES_S + SHUTTER_S + motion_s(rotation, at_first - here - run_up)
        period = fly.period_s
        # Half a step of the run-up, and one more at the end, are at full speed.
        lead = ramp_s + period / 2
        projections = 2 * ramp_s + (fly.num_pulses + 1) * period
        last = fly.start_deg + fly.num_pulses * fly.step_deg + fly.direction * run_up
    after = SHUTTER_S + _references_s(instrument, references, timing, "end") + _RUN_S / 2
    if return_rotation:
        after += motion_s(rotation, last - at_first)
    return Parts(before, projections, after, period, lead)


def _ramp_s(rotation: Any) -> float:
    motor = getattr(rotation, "axis", rotation)
    return float(motor.acceleration.get()) if hasattr(motor, "acceleration") else 0.0


def predict_tomography(
    plan_name: str,
    instrument: Instrument,
    timing: Timing,
    references: References,
    scan: TomographyScan,
    *,
    fly: FlyRotation | None = None,
    return_rotation: bool = True,
) -> ScanPrediction:
    """Predict what a tomography scan will take.

    Parameters
    ----------
    plan_name : str
        Name of the plan.
    instrument, timing, references, scan
        As the plan has put them together.
    fly : FlyRotation, optional
        How the stage turns; None for a step scan.
    return_rotation : bool
        Whether the stage turns back at the end.

    Returns
    -------
    ScanPrediction
        The prediction, with what the camera's resources say of disk and memory.
    """
    parts = tomography_parts(
        instrument, timing, references, scan, fly=fly, return_rotation=return_rotation
    )
    frames = scan.num_projections + scan.num_flats + scan.num_darks
    prediction = ScanPrediction(
        plan_name=plan_name,
        duration_s=parts.total,
        frames=frames,
        disk_bytes=frames * frame_bytes(scan),
        beam_time_s=parts.projections + SHUTTER_S,
    )
    resources = resources_of(instrument.camera)
    if resources is None:
        return prediction
    return dataclasses.replace(
        prediction,
        disk_bytes=prediction.disk_bytes + resources.result_bytes(scan),
        memory_bytes=resources.memory_bytes(scan),
        first_slice_s=_first_slice_s(parts, references, scan, resources.first_slice_projections),
        free_disk_bytes=resources.free_disk_bytes,
        free_memory_bytes=resources.free_memory_bytes,
    )


def _first_slice_s(
    parts: Parts, references: References, scan: TomographyScan, needed: int
) -> float | None:
    if not needed or not references.total_flats:
        return None
    # Projections wait until all darks and flats of the scan are there.
    if references.flat_mode in ("end", "both") or (
        references.num_darks and references.dark_mode in ("end", "both")
    ):
        return parts.total
    waited = parts.lead + min(needed, scan.num_projections) * parts.period
    return parts.before + waited + _ANNOUNCE_S + _SHOW_S


def frame_bytes(scan: TomographyScan) -> int:
    """Size of one plain frame [byte]."""
    return scan.rows * scan.columns * np.dtype(scan.dtype).itemsize


def predict_series(
    plan_name: str,
    camera: Any,
    num_frames: int,
    duration_s: float,
    beam_time_s: float,
    *,
    result_bytes: int = 0,
    pixel_bytes: int | None = None,
) -> ScanPrediction:
    """Predict a run that is no tomography scan: frames and time.

    Parameters
    ----------
    plan_name : str
        Name of the plan.
    camera : FrameDetector
        Who takes the frames.
    num_frames : int
        Frames of all series.
    duration_s, beam_time_s : float
        Time of the run without opening and closing it, and with the sample in open beam [s].
    result_bytes : int
        What is made of the frames [byte].
    pixel_bytes : int, optional
        Size of a pixel [byte], where that of now need not be that of the run.
    """
    rows, columns = camera.frame_shape
    size = rows * columns * (pixel_bytes or np.dtype(camera.frame_dtype).itemsize)
    resources = resources_of(camera)
    return ScanPrediction(
        plan_name=plan_name,
        duration_s=_RUN_S + duration_s,
        frames=num_frames,
        disk_bytes=num_frames * size + result_bytes,
        beam_time_s=beam_time_s,
        free_disk_bytes=None if resources is None else resources.free_disk_bytes,
    )


def resources_of(camera: Any) -> ScanResources | None:
    """What the session has told a detector of disk and memory; None without a session."""
    resources = getattr(camera, "resources", None)
    return resources if isinstance(resources, ScanResources) else None


def preflight_tomography(
    plan_name: str,
    instrument: Instrument,
    timing: Timing,
    references: References,
    scan: TomographyScan,
    *,
    fly: FlyRotation | None = None,
    return_rotation: bool = True,
) -> None:
    """The first step of a tomography plan: refuse what cannot fit, before anything moves.

    Raises
    ------
    InputError
        If disk or memory would not suffice; the message says what to change.
    """
    submit_prediction(
        predict_tomography(
            plan_name,
            instrument,
            timing,
            references,
            scan,
            fly=fly,
            return_rotation=return_rotation,
        )
    )


def together(plan_name: str, parts: list[ScanPrediction], between_s: float = 0.0) -> ScanPrediction:
    """Add up the runs that one plan takes one after the other.

    Parameters
    ----------
    plan_name : str
        Name of the plan.
    parts : list of ScanPrediction
        Its runs, one at least.
    between_s : float
        What it takes beside them [s].
    """
    needed = [part.memory_bytes for part in parts if part.memory_bytes is not None]
    return dataclasses.replace(
        parts[0],
        plan_name=plan_name,
        duration_s=sum(part.duration_s for part in parts) + between_s,
        frames=sum(part.frames for part in parts),
        disk_bytes=sum(part.disk_bytes for part in parts),
        beam_time_s=sum(part.beam_time_s for part in parts),
        memory_bytes=max(needed, default=None),
    )
