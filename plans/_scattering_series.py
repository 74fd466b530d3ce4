"""Scattering with an EIGER: exposures at one or several positions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

from bluesky.utils import Msg

from apsber_bluesky.core import InputError, submit_prediction
from apsber_bluesky.devices import (
    EigerDetector,
    FastShutter,
    FlyRotation,
    RotationStage,
    SampleAxis,
    Trigger,
)
from apsber_bluesky.plans._checks import check_count, is_number
from apsber_bluesky.plans._detector_run import run_metadata
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._scan import check_timing
from apsber_bluesky.plans._scattering_run import Scattering

# Part of the photon energy by which what the plan says and what the detector is set for may differ.
_ENERGY_TOLERANCE = 0.01


def scattering_series(
    detector: EigerDetector,
    shutter: FastShutter,
    *,
    axis: SampleAxis | None = None,
    positions_mm: list[float] | None = None,
    rotation: RotationStage | None = None,
    rotation_start_deg: float = 0.0,
    rotation_step_deg: float = 0.1,
    num_frames: int = 10,
    exposure_s: float = 0.1,
    frame_period_s: float | None = None,
    trigger: Literal["internal", "external", "gate", "start", "step"] = "internal",
    num_darks: int = 0,
    retake_missing: bool = True,
    stop_after_hits: int | None = None,
    energy_keV: float | None = None,
    transmission: float | None = None,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a series of exposures with an EIGER, at one or several positions of the sample.

    At each position one series is taken; all are frames of the stream ``primary``, one position
    after the other. With `rotation` the sample turns during each series and triggers the detector.
    The run may be paused, suspended and resumed at any time: it goes on from the first frame that
    is not on disk.

    Parameters
    ----------
    detector : EigerDetector
        Detector to expose.
    shutter : FastShutter
        Shutter, open during the series only.
    axis : SampleAxis, optional
        Axis that moves the sample to `positions_mm`.
    positions_mm : list of float, optional
        Positions of `axis` [mm]; one series, where the sample is, when not given.
    rotation : RotationStage, optional
        Stage that turns the sample during each series and gives the pulses for the triggers
        ``external``, ``gate`` and ``start``; without it pulses have to come from elsewhere.
    rotation_start_deg : float
        Angle of the first frame of each series [deg].
    rotation_step_deg : float
        Angle between frames [deg]; not 0.
    num_frames : int
        Frames at each position, 1 or more.
    exposure_s : float
        Exposure time of each frame [s].
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as detector and stage allow when not given.
    trigger : {"internal", "external", "gate", "start", "step"}
        The detector's own clock; one pulse for each frame; an exposure as long as each gate; one
        pulse for each series; or one software trigger for each frame.
    num_darks : int
        Frames with the shutter closed before the first position.
    retake_missing : bool
        Whether frames that get lost are taken again, up to three times in all; not with the
        triggers ``external`` and ``gate``: a detector that ignored a pulse counts on without it.
    stop_after_hits : int, optional
        End the run behind the position at which so many frames with Bragg peaks have been found,
        where the profile has ``analysis.hits``. A position may be given several times.
    energy_keV : float, optional
        Photon energy [keV]; the detector must be set for it. What the detector is set for when not
        given.
    transmission : float, optional
        Measured transmission of the sample, above 0 and up to 1.
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
        If an argument is wrong or the frames would not fit the disk, before anything moves.
    ServiceError
        If the detector is not ready.
    """
    places = _check_positions(axis, positions_mm)
    check_count("num_frames", num_frames)
    check_count("num_darks", num_darks, least=0)
    _check_hits(stop_after_hits, places)
    timing = _check_timing(detector, exposure_s, frame_period_s)
    _check_rotation(rotation, trigger, rotation_start_deg, rotation_step_deg)
    fly = None
    if rotation is not None:
        if frame_period_s is None:
            # The stage may be the slower of the two.
            slowest_s = max(timing.period_s, rotation.shortest_period_s(rotation_step_deg))
            timing = Timing(timing.exposure_s, slowest_s)
        fly = FlyRotation(rotation_start_deg, rotation_step_deg, num_frames, timing.period_s)
        rotation.check(fly)
    energy = _check_energy(detector, energy_keV)
    if transmission is not None and not (is_number(transmission) and 0 < transmission <= 1):
        raise InputError(f"transmission is {transmission!r}; give a number above 0 and up to 1")
    setup = Scattering(
        detector=detector,
        shutter=shutter,
        axis=axis,
        rotation=rotation,
        places_mm=places,
        num_frames=num_frames,
        num_darks=num_darks,
        timing=timing,
        trigger=trigger,
        fly=fly,
        retake_missing=retake_missing,
        stop_after_hits=stop_after_hits,
    )
    setup.check()
    submit_prediction(setup.predict())
    conditions = {
        "energy_keV": energy,
        "beam_centre_px": detector.beam_centre_px,
        "exposure_s": timing.exposure_s,
        "frame_period_s": timing.period_s,
        "trigger": trigger,
        "num_frames": num_frames,
        "num_darks": num_darks,
        "axis": None if axis is None else axis.name,
        "positions_mm": None
        if positions_mm is None
        else [float(p) for p in places if p is not None],
        "rotation": None if rotation is None else rotation.name,
        "rotation_start_deg": rotation_start_deg if rotation is not None else None,
        "rotation_step_deg": rotation_step_deg if rotation is not None else None,
        "transmission": transmission,
        "stop_after_hits": stop_after_hits,
    }
    motors = [device for device in (axis, rotation) if device is not None]
    metadata = run_metadata(
        "scattering_series",
        "scattering",
        detector,
        len(places) * num_frames,
        conditions,
        motors=motors,
        sample=sample,
        md=md,
    )
    return (yield from setup.run(metadata))


def _check_positions(
    axis: SampleAxis | None, positions_mm: list[float] | None
) -> list[float] | list[None]:
    if (axis is None) != (positions_mm is None):
        raise InputError("axis and positions_mm belong together; give both or neither")
    if axis is None or positions_mm is None:
        return [None]
    if not positions_mm:
        raise InputError("positions_mm is empty; give at least one position in mm")
    low, high = axis.limits
    for place in positions_mm:
        if not is_number(place):
            raise InputError(f"positions_mm has {place!r}; give positions in mm")
        if low < high and not low <= place <= high:
            raise InputError(
                f"positions_mm has {place:g} mm, the limits of {axis.name} are {low:g} to"
                f" {high:g} mm"
            )
    return [float(place) for place in positions_mm]


def _check_hits(wanted: int | None, places: list[float] | list[None]) -> None:
    if wanted is None:
        return
    check_count("stop_after_hits", wanted)
    if len(places) < 2:
        raise InputError(
            "stop_after_hits is looked at between positions; give axis and two or more"
            " positions_mm, which may be the same"
        )


def _check_timing(
    detector: EigerDetector, exposure_s: float, frame_period_s: float | None
) -> Timing:
    timing = check_timing(exposure_s, frame_period_s)
    if frame_period_s is None:
        return Timing(timing.exposure_s, detector.shortest_period_s(timing.exposure_s))
    return timing


def _check_rotation(
    rotation: RotationStage | None, trigger: Trigger, start_deg: float, step_deg: float
) -> None:
    if rotation is None:
        return
    if trigger not in ("external", "gate", "start"):
        raise InputError(
            f"trigger is {trigger!r}, with which {rotation.name} cannot trigger the detector; give"
            " 'external', 'gate' or 'start', or no rotation"
        )
    for name, value in (("rotation_start_deg", start_deg), ("rotation_step_deg", step_deg)):
        if not is_number(value):
            raise InputError(f"{name} is {value!r}; give an angle in degrees")


def _check_energy(detector: EigerDetector, energy_keV: float | None) -> float | None:
    is_set = detector.photon_energy_keV
    if energy_keV is None:
        return is_set
    if not (is_number(energy_keV) and energy_keV > 0):
        raise InputError(f"energy_keV is {energy_keV!r}; give a photon energy in keV")
    if is_set is not None and abs(energy_keV - is_set) > _ENERGY_TOLERANCE * is_set:
        raise InputError(
            f"energy_keV is {energy_keV:g}, {detector.name} is set for {is_set:g} keV and would"
            f" count wrongly; set {detector.name}.cam.photon_energy to {energy_keV * 1000:g} eV"
        )
    return float(energy_keV)
