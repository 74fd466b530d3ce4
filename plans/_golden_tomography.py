"""Tomography in interlaced turns that stops when its slices are good enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any, Final, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import InputError, ScanPrediction, TomographyScan, submit_prediction
from apsber_bluesky.devices import Camera, FastShutter, FlyRotation, RotationStage, SampleAxis
from apsber_bluesky.plans._checks import check_count, check_number
from apsber_bluesky.plans._golden_feedback import Convergence
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import motion_s, predict_tomography
from apsber_bluesky.plans._scan import (
    Instrument,
    References,
    ScanRun,
    check_references,
    check_timing,
    describe_scan,
    start_metadata,
    tomography_run,
)
from apsber_bluesky.plans._step_tomography import step_projections

_LONGEST_PATIENCE_S: Final = 600.0
_LEAST_TOLERANCE: Final = 1e-6


def golden_tomography(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_x: SampleAxis,
    *,
    projections_per_turn: int = 60,
    most_turns: int = 16,
    tolerance: float | None = 0.1,
    feedback_patience_s: float = 10.0,
    mode: Literal["fly", "step"] = "fly",
    exposure_s: float = 0.02,
    frame_period_s: float | None = None,
    rotation_start_deg: float = 0.0,
    rotation_stop_deg: float = 180.0,
    num_darks: int = 10,
    num_flats: int = 10,
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    return_rotation: bool = True,
    retake_missing: bool = True,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a tomography scan in interlaced turns, as many as the sample needs.

    Each turn goes through the range with equally spaced projections, shifted against the turns
    before by the golden section, so that the scan may end after any of them and has its angles
    spread almost evenly. After each turn processing says how far slices made of the even turns are
    from slices made of the odd ones; the scan is over when that relative error is down to
    `tolerance`. Stream ``convergence`` has it for each turn, and how many frames were saved.

    Every turn is taken in the same direction, and the stage returns in between as fast as it can:
    all exposures then begin at their angle and end behind it, no play of the stage gets between
    the turns, and its cables stay as they are.

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
    projections_per_turn : int
        Projections of each turn.
    most_turns : int
        Turns after which the scan ends in any case.
    tolerance : float, optional
        Relative error of the slices that is good enough; none to take all turns.
    feedback_patience_s : float
        How long the stage waits for the number of a turn [s]; without it the scan goes on.
    mode : {"fly", "step"}
        Whether the stage turns without stopping, or stops for every projection.
    exposure_s : float
        Exposure time of each frame [s].
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as camera and stage allow when not given.
        Only for ``fly``.
    rotation_start_deg : float
        Angle of the first projection [deg].
    rotation_stop_deg : float
        End of the range [deg]; the angle itself is not exposed.
    num_darks : int
        Darks, taken before the first turn.
    num_flats : int
        Flats, taken before the first turn.
    sample_in_mm : float
        Position of `sample_x` with the sample in the beam [mm].
    sample_out_mm : float
        Position of `sample_x` with the sample out of the beam [mm].
    return_rotation : bool
        Whether the stage turns back to `rotation_start_deg` at the end.
    retake_missing : bool
        Whether frames that got lost are taken again at the end of their turn; only for ``fly``.
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
    _check(projections_per_turn, most_turns, tolerance, feedback_patience_s, mode)
    instrument = Instrument(camera, rotation, shutter, sample_x)
    timing = check_timing(exposure_s, frame_period_s if mode == "fly" else None)
    references = check_references(
        References(num_darks, num_flats, "start", "start", sample_in_mm, sample_out_mm)
    )
    if tolerance is not None and not num_flats:
        raise InputError("num_flats is 0; without flats nobody can tell when the slices are good")
    scan = describe_scan(
        instrument,
        timing,
        references,
        rotation_start_deg=rotation_start_deg,
        rotation_stop_deg=rotation_stop_deg,
        num_projections=projections_per_turn * most_turns,
    ).model_copy(update={"interlaced_turns": most_turns})
    if mode == "fly" and frame_period_s is None:
        shortest = rotation.shortest_period_s(scan.step_deg)
        timing = Timing(timing.exposure_s, max(timing.period_s, shortest))
    turns = _turns(scan, timing)
    if mode == "fly":
        for turn in (turns[0], turns[-1]):
            rotation.check(turn)
    submit_prediction(
        _predict(instrument, timing, references, scan, turns if mode == "fly" else None)
    )
    convergence = Convergence(camera, scan, tolerance, feedback_patience_s)

    def body(run: ScanRun) -> MsgGenerator[None]:
        yield from bps.mv(sample_x, sample_in_mm)
        yield from run.references_at("start")
        for number, turn in enumerate(turns):
            if mode == "fly":
                yield from run.fly(turn)
            else:
                first = number * projections_per_turn
                angles = scan.angles_deg[first : first + projections_per_turn]
                yield from step_projections(run, angles.tolist())
            if (yield from convergence.after(run.uid, number + 1)):
                break
        if return_rotation:
            yield from bps.mv(rotation, rotation_start_deg)

    metadata = start_metadata("golden_tomography", instrument, scan, references, sample, md)
    return (
        yield from tomography_run(
            instrument, timing, references, metadata, body, retake_missing=retake_missing
        )
    )


def _check(
    projections_per_turn: int,
    most_turns: int,
    tolerance: float | None,
    patience_s: float,
    mode: str,
) -> None:
    check_count("projections_per_turn", projections_per_turn)
    check_count("most_turns", most_turns)
    if tolerance is not None:
        check_number("tolerance", tolerance, _LEAST_TOLERANCE, 1.0)
    check_number("feedback_patience_s", patience_s, 0.0, _LONGEST_PATIENCE_S, "s")
    if mode not in ("fly", "step"):
        raise InputError(f"mode is {mode!r}; give 'fly' or 'step'")


def _turns(scan: TomographyScan, timing: Timing) -> list[FlyRotation]:
    """The turns, as the stage flies them."""
    size = scan.projections_per_turn
    return [
        FlyRotation(
            start_deg=float(first),
            step_deg=scan.step_deg,
            num_pulses=size,
            period_s=timing.period_s,
        )
        for first in scan.angles_deg[::size]
    ]


def _predict(
    instrument: Instrument,
    timing: Timing,
    references: References,
    scan: TomographyScan,
    turns: list[FlyRotation] | None,
) -> ScanPrediction:
    """What the scan takes if it needs all its turns."""
    one = scan.model_copy(
        update={"num_projections": scan.projections_per_turn, "interlaced_turns": 1}
    )
    more = scan.interlaced_turns - 1
    fly = None if turns is None else turns[0]
    first, last = (
        predict_tomography(
            "golden_tomography",
            instrument,
            timing,
            own,
            one,
            fly=fly,
            return_rotation=True,
        )
        for own in (references, dataclasses.replace(references, num_darks=0, num_flats=0))
    )
    whole = predict_tomography(
        "golden_tomography", instrument, timing, references, scan, fly=fly, return_rotation=False
    )
    back_s = motion_s(instrument.rotation, scan.rotation_stop_deg - scan.rotation_start_deg)
    return dataclasses.replace(
        whole,
        duration_s=first.duration_s + more * max(last.duration_s, back_s),
        beam_time_s=first.beam_time_s * scan.interlaced_turns,
        first_slice_s=first.first_slice_s,
    )
