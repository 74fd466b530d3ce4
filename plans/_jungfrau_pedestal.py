"""Pedestals of a Jungfrau."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import (
    InputError,
    PlanError,
    RunLedger,
    RunState,
    find_run,
    has_pedestals,
    submit_prediction,
)
from apsber_bluesky.devices import (
    FastShutter,
    JungfrauDetector,
    JungfrauGainMode,
    JungfrauSetting,
)
from apsber_bluesky.plans._detector_run import DetectorRun, detector_run, run_metadata
from apsber_bluesky.plans._jungfrau_run import exposure_timing, set_chip, with_chip
from apsber_bluesky.plans._preflight import predict_series, series_s

#: Gain modes in which the dark reads as G0, G1 and G2.
STAGES: Final[tuple[JungfrauGainMode, ...]] = ("dynamic", "forceswitchg1", "forceswitchg2")

_MOST_FRAMES: Final = 100_000
_WORKER_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.1


def jungfrau_pedestal(
    detector: JungfrauDetector,
    shutter: FastShutter,
    *,
    num_frames: int = 200,
    exposure_s: float = 0.01,
    frame_period_s: float | None = None,
    setting: JungfrauSetting = "gain0",
    extra_storage_cells: int = 0,
    storage_cell_start: int = 15,
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Measure what a Jungfrau reads in the dark, in each of its three gain stages.

    With the shutter closed, one series each is taken in dynamic gain (G0), switched to G1 and
    switched to G2. The mean of each pixel becomes the pedestal of later series with the same
    exposure time, setting and storage cells; take it shortly before them, for it drifts.

    Parameters
    ----------
    detector : JungfrauDetector
        The detector.
    shutter : FastShutter
        Shutter, closed all the time.
    num_frames : int
        Frames per gain stage and storage cell, 2 or more; the pedestal's error falls with the
        root of it.
    exposure_s : float
        Exposure time [s]: that of the series that the pedestals are for.
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as the detector allows when not given.
    setting : {"gain0", "highgain0"}
        Setting of the preamplifier.
    extra_storage_cells : int
        Storage cells that an exposure fills beside its first one, 0 to 15.
    storage_cell_start : int
        The first storage cell, 0 to 15.
    md : dict, optional
        Further metadata of the run.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    str
        Bluesky run uid, by which the pedestals are known.

    Raises
    ------
    InputError
        If an argument is wrong, before anything moves.
    PlanError
        If the frames, once taken, do not make pedestals.
    """
    if type(num_frames) is not int or not 2 <= num_frames <= _MOST_FRAMES:
        raise InputError(f"num_frames is {num_frames!r}; give 2 to {_MOST_FRAMES}")
    chip = replace(
        detector.chip,
        gain_mode="dynamic",
        setting=setting,
        extra_storage_cells=extra_storage_cells,
        storage_cell_start=storage_cell_start,
    )
    chip.check(detector.name)
    images = chip.images_per_exposure
    timing = exposure_timing(chip, exposure_s, frame_period_s)
    each = num_frames * images
    detector.check(DetectorRun(detector, shutter, timing, "").series("darks", each), chip)
    each_s = series_s(each // images, timing)
    submit_prediction(
        predict_series("jungfrau_pedestal", detector, len(STAGES) * each, len(STAGES) * each_s, 0.0)
    )
    rows, columns = detector.frame_shape
    conditions = {
        "kind": "jungfrau_pedestal",
        "name": detector.name,
        "gain_modes": list(STAGES),
        "frames_per_stage": each,
        "cells": list(chip.storage_cells),
        "exposure_s": timing.exposure_s,
        "period_s": timing.period_s,
        "setting": setting,
        "rows": rows,
        "columns": columns,
    }

    def body(run: DetectorRun) -> MsgGenerator[None]:
        for mode in STAGES:
            yield from set_chip(detector, replace(chip, gain_mode=mode))
            yield from run.take_series(run.series("darks", each), beam=False, multiple=images)

    def whole() -> Generator[Msg, Any, str]:
        metadata = run_metadata(
            "jungfrau_pedestal", "detector", detector, len(STAGES) * each, conditions, md=md
        )
        return (yield from detector_run(detector, shutter, timing, metadata, body))

    uid = yield from with_chip(detector, chip, whole())
    yield from _await_pedestals(detector, uid)
    return uid


def _await_pedestals(detector: JungfrauDetector, uid: str) -> MsgGenerator[None]:
    """Wait until a series that follows finds the pedestals."""
    data_root = detector.data_root
    if data_root is None:
        return
    deadline_s = time.monotonic() + _WORKER_TIMEOUT_S
    while not has_pedestals(data_root, detector.name, uid):
        with RunLedger(find_run(data_root, uid).ledger) as ledger:
            state, reason = ledger.state, ledger.reason
        if state in (RunState.FAILED, RunState.ABORTED):
            raise PlanError(f"run {uid[:8]} gave no pedestals: {reason}")
        if time.monotonic() > deadline_s:
            raise PlanError(
                f"the pedestals of run {uid[:8]} were not worked out within"
                f" {_WORKER_TIMEOUT_S:g} s; is the session's worker running?"
            )
        yield from bps.sleep(_POLL_S)
