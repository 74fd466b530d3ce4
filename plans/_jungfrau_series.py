"""Series of frames with a Jungfrau."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import (
    DEFAULT_PEDESTAL_AGE_S,
    InputError,
    ScanPrediction,
    find_pedestals,
    submit_prediction,
)
from apsber_bluesky.devices import (
    FastShutter,
    FlyRotation,
    FrameSeries,
    JungfrauChip,
    JungfrauDetector,
    JungfrauSetting,
    RotationStage,
)
from apsber_bluesky.plans._checks import check_count
from apsber_bluesky.plans._detector_run import (
    DetectorRun,
    Flight,
    detector_run,
    one_pulse,
    run_metadata,
)
from apsber_bluesky.plans._jungfrau_run import exposure_timing, with_chip
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import (
    SERIES_S,
    SHUTTER_S,
    flight_s,
    motion_s,
    place_of,
    predict_series,
)

_ENERGY_BYTES: Final = 4


def jungfrau_series(
    detector: JungfrauDetector,
    shutter: FastShutter,
    rotation: RotationStage | None = None,
    *,
    num_frames: int = 100,
    exposure_s: float = 0.01,
    frame_period_s: float | None = None,
    trigger: Literal["internal", "external", "start"] = "internal",
    rotation_start_deg: float = 0.0,
    rotation_step_deg: float = 0.1,
    setting: JungfrauSetting = "gain0",
    extra_storage_cells: int = 0,
    storage_cell_start: int = 15,
    pedestal: str = "newest",
    max_pedestal_age_s: float = DEFAULT_PEDESTAL_AGE_S,
    retake_missing: bool = True,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a series of diffraction images with a Jungfrau.

    Pixels choose their gain themselves. Where the profile has the detector's gains, the frames
    are converted to energies while they come, with the newest pedestals that fit. The run may be
    paused, suspended and resumed at any time: it goes on from the first frame that is not on disk.

    Parameters
    ----------
    detector : JungfrauDetector
        The detector.
    shutter : FastShutter
        Shutter, open during the series only.
    rotation : RotationStage, optional
        Stage that turns the sample and gives the pulses; without it, pulses for ``external`` and
        ``start`` come from elsewhere.
    num_frames : int
        Frames to take, those of all storage cells counted.
    exposure_s : float
        Exposure time of each frame [s].
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as the detector allows when not given.
    trigger : {"internal", "external", "start"}
        The detector's own clock; one pulse per exposure; one pulse for the whole series.
    rotation_start_deg : float
        Angle of the first exposure [deg], with `rotation`.
    rotation_step_deg : float
        Angle from one exposure to the next [deg], with `rotation`; not 0.
    setting : {"gain0", "highgain0"}
        Setting of the preamplifier.
    extra_storage_cells : int
        Storage cells that an exposure fills beside its first one, 0 to 15.
    storage_cell_start : int
        The first storage cell, 0 to 15.
    pedestal : str
        ``newest`` for the newest pedestals of this detector, size, exposure time, setting and
        storage cells; the uid of their run, or its beginning; or ``none``.
    max_pedestal_age_s : float
        Refuse pedestals that are older [s].
    retake_missing : bool
        Whether frames that get lost are taken again, up to three times in all; not with
        ``external``: a detector that ignored a pulse counts on without it.
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
        If an argument is wrong, no pedestals fit, or the frames would not fit the disk, before
        anything moves.
    """
    if trigger not in ("internal", "external", "start"):
        raise InputError(f"trigger is {trigger!r}; give 'internal', 'external' or 'start'")
    if rotation is not None and trigger == "internal":
        raise InputError(
            "with trigger='internal' nothing ties frames to angles; give 'external' or 'start', or"
            " leave rotation out"
        )
    chip = replace(
        detector.chip,
        gain_mode="dynamic",
        setting=setting,
        extra_storage_cells=extra_storage_cells,
        storage_cell_start=storage_cell_start,
    )
    chip.check(detector.name)
    check_count("num_frames", num_frames)
    timing = exposure_timing(chip, exposure_s, frame_period_s)
    setup = _Series(detector, shutter, rotation, chip, timing, num_frames, trigger)
    detector.check(setup.series(DetectorRun(detector, shutter, timing, "")), chip)
    conditions = setup.conditions()
    conditions |= _pedestals(detector, chip, exposure_s, pedestal, max_pedestal_age_s)
    if rotation is not None:
        count = num_frames // chip.images_per_exposure
        fly = FlyRotation(rotation_start_deg, rotation_step_deg, count, timing.period_s)
        setup = replace(setup, fly=fly)
        rotation.check(setup.motion(fly))
        conditions["rotation_start_deg"] = float(rotation_start_deg)
        conditions["rotation_step_deg"] = float(rotation_step_deg)
    submit_prediction(setup.predict(with_energies=bool(conditions["pedestal_files"])))

    def whole() -> Generator[Msg, Any, str]:
        metadata = run_metadata(
            "jungfrau_series",
            "crystallography",
            detector,
            num_frames,
            conditions,
            motors=() if rotation is None else (rotation,),
            sample=sample,
            md=md,
        )
        return (
            yield from detector_run(
                detector,
                shutter,
                timing,
                metadata,
                setup.take,
                stops=(rotation,),
                staged=(rotation,),
                retake_missing=retake_missing,
            )
        )

    return (yield from with_chip(detector, chip, whole()))


@dataclass(frozen=True, slots=True)
class _Series:
    """A series: who takes it, and how; `fly` has one pulse for each exposure."""

    detector: JungfrauDetector
    shutter: FastShutter
    rotation: RotationStage | None
    chip: JungfrauChip
    timing: Timing
    num_frames: int
    trigger: Literal["internal", "external", "start"]
    fly: FlyRotation | None = None

    def series(self, run: DetectorRun) -> FrameSeries:
        """The request for the detector."""
        # Of the images of several storage cells all have one angle, which no step can say.
        fly = self.fly if self.chip.images_per_exposure == 1 else None
        return run.series("primary", self.num_frames, self.trigger, fly)

    def conditions(self) -> dict[str, Any]:
        """What the start document says of the series."""
        rows, columns = self.detector.frame_shape
        return {
            "kind": "jungfrau_series",
            "name": self.detector.name,
            "photon_energy_keV": self.detector.photon_energy_keV,
            "beam_centre_px": self.detector.beam_centre_px,
            "num_frames": self.num_frames,
            "cells": list(self.chip.storage_cells),
            "exposure_s": self.timing.exposure_s,
            "period_s": self.timing.period_s,
            "trigger": self.trigger,
            "setting": self.chip.setting,
            "rows": rows,
            "columns": columns,
        }

    def motion(self, fly: FlyRotation) -> FlyRotation:
        """How the sample turns, with a pulse for each exposure, or one for all."""
        return fly if self.trigger == "external" else one_pulse(fly)

    def predict(self, *, with_energies: bool) -> ScanPrediction:
        """What the run will take."""
        rows, columns = self.detector.frame_shape
        exposures = self.num_frames // self.chip.images_per_exposure
        beam_s = exposures * self.timing.period_s + SHUTTER_S
        took_s = SERIES_S + SHUTTER_S
        if self.rotation is not None and self.fly is not None:
            beam_s = flight_s(self.rotation, exposures * self.timing.period_s) + SHUTTER_S
            here_deg = place_of(self.rotation, self.fly.start_deg)
            took_s += motion_s(self.rotation, self.fly.start_deg - here_deg)
        return predict_series(
            "jungfrau_series",
            self.detector,
            self.num_frames,
            took_s + beam_s,
            beam_s,
            result_bytes=self.num_frames * rows * columns * _ENERGY_BYTES * with_energies,
        )

    def take(self, run: DetectorRun) -> MsgGenerator[None]:
        """The body of the run."""
        series, images = self.series(run), self.chip.images_per_exposure
        rotation, fly = self.rotation, self.fly
        flight = None
        if rotation is not None and fly is not None:

            def turn(part: FrameSeries) -> FlyRotation:
                first = ((part.first_index or 0) - (series.first_index or 0)) // images
                return self.motion(fly.part(first, part.num_frames // images))

            flight = Flight(rotation, turn)
        yield from run.take_series(series, beam=True, flight=flight, multiple=images)


def _pedestals(
    detector: JungfrauDetector,
    chip: JungfrauChip,
    exposure_s: float,
    pedestal: str,
    max_age_s: float,
) -> dict[str, Any]:
    """The run whose pedestals are used, and their files."""
    if pedestal == "none":
        return {"pedestal_run": "", "pedestal_files": {}}
    if detector.data_root is None:
        raise InputError(
            f"{detector.name} does not know where pedestals are kept; start a session, pass"
            " data_root=... to the device, or give pedestal='none'"
        )
    found = find_pedestals(
        detector.data_root,
        detector.pedestal_need(exposure_s, chip),
        max_age_s=max_age_s,
        run_uid="" if pedestal == "newest" else pedestal,
    )
    files = {str(cell): found.files[cell] for cell in chip.storage_cells}
    return {
        "pedestal_run": found.run_uid,
        "pedestal_taken_s": found.taken_s,
        "pedestal_files": files,
    }
