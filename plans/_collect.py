"""Darks and flats in runs of their own."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import InputError, submit_prediction
from apsber_bluesky.devices import FastShutter, FrameDetector, SampleAxis
from apsber_bluesky.plans._checks import check_count
from apsber_bluesky.plans._detector_run import DetectorRun, detector_run, run_metadata
from apsber_bluesky.plans._preflight import motion_s, predict_series, series_s
from apsber_bluesky.plans._scan import References, check_references, check_timing


def collect_darks(
    camera: FrameDetector,
    shutter: FastShutter,
    *,
    num_darks: int = 20,
    exposure_s: float = 0.02,
    frame_period_s: float | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take darks in a run of their own, with the shutter closed.

    The frames are stream ``darks``. A later scan without darks names this run in its metadata:
    ``md={"reference_runs": {"darks": uid}}``.

    Parameters
    ----------
    camera : FrameDetector
        Camera to read out.
    shutter : FastShutter
        Shutter, closed first and left closed.
    num_darks : int
        Darks to take, 1 or more.
    exposure_s : float
        Exposure time of each frame [s]; that of the scan they are for.
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as the camera allows when not given.
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
        If an argument is wrong or the disk is too full, before anything moves.
    """
    timing = check_timing(exposure_s, frame_period_s)
    check_count("num_darks", num_darks)
    took_s = series_s(num_darks, timing)
    submit_prediction(predict_series("collect_darks", camera, num_darks, took_s, 0.0))

    def body(run: DetectorRun) -> MsgGenerator[None]:
        yield from run.take("darks", num_darks, beam=False)

    conditions = {"purpose": "darks", "exposure_s": exposure_s, "num_darks": num_darks}
    metadata = run_metadata("collect_darks", "detector", camera, num_darks, conditions, md=md)
    return (yield from detector_run(camera, shutter, timing, metadata, body))


def collect_flats(
    camera: FrameDetector,
    shutter: FastShutter,
    sample_x: SampleAxis,
    *,
    num_flats: int = 20,
    num_darks: int = 0,
    exposure_s: float = 0.02,
    frame_period_s: float | None = None,
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Take flats in a run of their own, with the sample out of the beam.

    The frames are stream ``flats``, and ``darks`` for those that are asked for besides. A later
    scan without flats names this run in its metadata: ``md={"reference_runs": {"flats": uid}}``.

    Parameters
    ----------
    camera : FrameDetector
        Camera to expose.
    shutter : FastShutter
        Shutter, opened for the flats and closed after them.
    sample_x : SampleAxis
        Axis that moves the sample out of the beam.
    num_flats : int
        Flats to take, 1 or more.
    num_darks : int
        Darks to take first.
    exposure_s : float
        Exposure time of each frame [s]; that of the scan they are for.
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as the camera allows when not given.
    sample_in_mm : float
        Where `sample_x` goes afterwards [mm].
    sample_out_mm : float
        Position of `sample_x` with the sample out of the beam [mm].
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
        If an argument is wrong or the disk is too full, before anything moves.
    """
    timing = check_timing(exposure_s, frame_period_s)
    check_count("num_flats", num_flats)
    check_count("num_darks", num_darks, least=0)
    references = check_references(
        References(num_darks, num_flats, "start", "start", sample_in_mm, sample_out_mm)
    )
    if references.sample_in_mm == references.sample_out_mm:
        raise InputError(f"sample_in_mm and sample_out_mm are both {sample_in_mm}")
    took_s = series_s(num_flats, timing) + series_s(num_darks, timing)
    took_s += 2 * motion_s(sample_x, sample_out_mm - sample_in_mm)
    submit_prediction(predict_series("collect_flats", camera, num_flats + num_darks, took_s, 0.0))

    def body(run: DetectorRun) -> MsgGenerator[None]:
        if num_darks:
            yield from run.take("darks", num_darks, beam=False)
        yield from bps.mv(sample_x, sample_out_mm)
        yield from run.take("flats", num_flats, beam=True)
        yield from bps.mv(sample_x, sample_in_mm)

    conditions = {
        "purpose": "flats",
        "exposure_s": exposure_s,
        "num_darks": num_darks,
        "num_flats": num_flats,
        "sample_out_mm": sample_out_mm,
    }
    metadata = run_metadata(
        "collect_flats", "detector", camera, num_flats, conditions, motors=(sample_x,), md=md
    )
    return (yield from detector_run(camera, shutter, timing, metadata, body, (sample_x,)))
