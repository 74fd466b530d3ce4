"""Series of frames with a Jungfrau."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import DEFAULT_PEDESTAL_AGE_S, InputError, find_pedestals
from apsber_bluesky.devices import (
    FastShutter,
    FlyRotation,
    FrameSeries,
    JungfrauDetector,
    JungfrauSetting,
    RotationStage,
)
from apsber_bluesky.plans._jungfrau_run import (
    ChipSettings,
    Exposures,
    begin_series,
    check_exposures,
    collect,
    jungfrau_run,
    recorded_run,
    take_series,
)


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
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take a series of diffraction images with a Jungfrau.

    Pixels choose their gain themselves. Where the profile has the detector's gains, the frames
    are converted to energies while they come, with the newest pedestals that fit.

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
        If an argument is wrong or no pedestals fit, before anything moves.
    """
    if trigger not in ("internal", "external", "start"):
        raise InputError(f"trigger is {trigger!r}; give 'internal', 'external' or 'start'")
    if rotation is not None and trigger == "internal":
        raise InputError(
            "with trigger='internal' nothing ties frames to angles; give 'external' or 'start', or"
            " leave rotation out"
        )
    settings = ChipSettings("dynamic", setting, extra_storage_cells, storage_cell_start)

    def body() -> Generator[Msg, Any, str]:
        images = detector.images_per_exposure
        exposures = check_exposures(num_frames, exposure_s, frame_period_s, images, trigger)
        detector.check(exposures.series("", "primary"))
        fly = None
        if rotation is not None:
            count = num_frames // images
            fly = _fly(exposures, count, rotation_start_deg, rotation_step_deg)
            rotation.check(fly)
        conditions = _conditions(detector, exposures)
        conditions |= _pedestals(detector, exposure_s, pedestal, max_pedestal_age_s)
        if fly is not None:
            conditions["rotation_start_deg"] = float(rotation_start_deg)
            conditions["rotation_step_deg"] = float(rotation_step_deg)
        metadata = {
            "plan_name": "jungfrau_series",
            "technique": "crystallography",
            "detectors": [detector.name],
            "motors": [] if rotation is None else [rotation.name],
            "detectors_metadata": {detector.name: detector.detector_metadata()},
            "num_points": num_frames,
            "crystallography": conditions,
            **({"sample": sample} if sample else {}),
            **(md or {}),
        }

        def take(uid: str) -> MsgGenerator[None]:
            series = exposures.series(uid, "primary")
            yield from bps.mv(shutter, "open")
            if rotation is None or fly is None:
                yield from take_series(detector, series)
            else:
                yield from _fly_series(detector, rotation, series, fly)
            yield from bps.mv(shutter, "close")

        return (yield from recorded_run(detector, rotation, metadata, take))

    return (yield from jungfrau_run(detector, shutter, rotation, settings, body()))


def _fly(exposures: Exposures, count: int, start_deg: float, step_deg: float) -> FlyRotation:
    """How the sample turns, with a pulse for each exposure, or one for all."""
    if exposures.trigger == "external":
        return FlyRotation(start_deg, step_deg, count, exposures.period_s)
    return FlyRotation(start_deg, step_deg * count, 1, exposures.period_s * count)


def _conditions(detector: JungfrauDetector, exposures: Exposures) -> dict[str, Any]:
    rows, columns = detector.frame_shape
    return {
        "kind": "jungfrau_series",
        "name": detector.name,
        "num_frames": exposures.num_frames,
        "cells": list(detector.storage_cells),
        "exposure_s": exposures.exposure_s,
        "period_s": exposures.period_s,
        "trigger": exposures.trigger,
        "setting": str(detector.setting.get()),
        "rows": rows,
        "columns": columns,
    }


def _pedestals(
    detector: JungfrauDetector, exposure_s: float, pedestal: str, max_age_s: float
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
        detector.pedestal_need(exposure_s),
        max_age_s=max_age_s,
        run_uid="" if pedestal == "newest" else pedestal,
    )
    files = {str(cell): found.files[cell] for cell in detector.storage_cells}
    return {
        "pedestal_run": found.run_uid,
        "pedestal_taken_s": found.taken_s,
        "pedestal_files": files,
    }


def _fly_series(
    detector: JungfrauDetector, rotation: RotationStage, series: FrameSeries, fly: FlyRotation
) -> MsgGenerator[None]:
    yield from begin_series()
    yield from bps.prepare(rotation, fly, group="prepare")
    yield from bps.prepare(detector, series, group="prepare")
    yield from bps.wait(group="prepare")
    yield from bps.declare_stream(detector, name="primary", collect=True)
    # The detector must be waiting for pulses before the axis can give the first.
    yield from bps.kickoff(detector, wait=True)
    yield from bps.kickoff(rotation, wait=True)
    yield from collect(detector, [detector, rotation], "primary")
