"""Maps of the elements of a sample, by X-ray fluorescence."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

from bluesky.utils import Msg
from ophyd import EpicsMotor

from apsber_bluesky.core import FluorescenceMap, InputError, submit_prediction
from apsber_bluesky.devices import FastShutter, FlyAxis, VortexDetector
from apsber_bluesky.plans._checks import check_count, is_number
from apsber_bluesky.plans._detector_run import run_metadata
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._xrf_raster import Raster

#: Time between two frames in which the fast axis may be late [s].
READOUT_MARGIN_S = 0.001


def xrf_map(
    vortex: VortexDetector,
    fast_axis: FlyAxis | EpicsMotor,
    slow_axis: EpicsMotor,
    shutter: FastShutter,
    *,
    columns: int = 21,
    rows: int = 21,
    fast_start_mm: float = -1.0,
    fast_step_mm: float = 0.1,
    slow_start_mm: float = -1.0,
    slow_step_mm: float = 0.1,
    exposure_s: float = 0.05,
    pixel_period_s: float | None = None,
    mode: Literal["fly", "step"] = "fly",
    snake: bool = True,
    photon_energy_keV: float | None = None,
    elements: list[str] | None = None,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Map the elements of a sample: the fast axis flies along each row and triggers the detector.

    The spectrum of each pixel is a frame of the stream ``primary``, row after row. Each row is a
    series of its own, so that a pulse that the detector misses shifts no pixel of the next row.
    When the run has ended, the spectra are fitted, and a map of each element is in ``maps.h5``.
    The run may be paused, suspended and resumed at any time: it goes on from the first pixel that
    is not on disk.

    Parameters
    ----------
    vortex : VortexDetector
        Detector of the fluorescence.
    fast_axis : FlyAxis or EpicsMotor
        Axis along the rows. Only a `FlyAxis` gives the pulses that flying needs.
    slow_axis : EpicsMotor
        Axis from row to row.
    shutter : FastShutter
        Shutter, open from the first row to the last.
    columns : int
        Pixels of a row, 1 or more.
    rows : int
        Number of rows, 1 or more.
    fast_start_mm : float
        Position of the fast axis in the middle of the first pixel [mm].
    fast_step_mm : float
        Distance between the pixels of a row [mm]; may be negative, not 0.
    slow_start_mm : float
        Position of the slow axis in the first row [mm].
    slow_step_mm : float
        Distance between rows [mm]; may be negative, not 0.
    exposure_s : float
        Exposure time of a pixel [s].
    pixel_period_s : float, optional
        Time from one pixel to the next [s]; as short as detector and axis allow when not given.
    mode : {"fly", "step"}
        Whether the fast axis moves on during exposures, or stops at each pixel: slower, and the
        choice when it gives no pulses.
    snake : bool
        Whether every other row is taken backwards. Otherwise the fast axis flies back to the
        beginning of each row.
    photon_energy_keV : float, optional
        Energy of the exciting photons [keV]; what the detector was told when not given.
    elements : list of str, optional
        Chemical symbols of the elements to map; those that the spectra show when not given.
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
        If an argument is wrong or the spectra would not fit the disk, before anything moves.
    """
    check_count("columns", columns)
    check_count("rows", rows)
    if mode not in ("fly", "step"):
        raise InputError(f"mode is {mode!r}; give 'fly' or 'step'")
    metadata = vortex.detector_metadata()
    energy = metadata["photon_energy_keV"] if photon_energy_keV is None else photon_energy_keV
    raster = FluorescenceMap.check(
        {
            "rows": rows,
            "columns": columns,
            "fast_axis": fast_axis.name,
            "slow_axis": slow_axis.name,
            "fast_start_mm": fast_start_mm,
            "fast_step_mm": fast_step_mm,
            "slow_start_mm": slow_start_mm,
            "slow_step_mm": slow_step_mm,
            "snake": snake,
            "mode": mode,
            "exposure_s": exposure_s,
            "photon_energy_keV": energy,
            "detector": vortex.name,
            "event_width_s": metadata["event_width_s"],
            "bin_width_eV": metadata["bin_width_eV"],
            "elements": elements,
        }
    )
    _check_energy(raster)
    timing = Timing(raster.exposure_s, _period(raster, fast_axis, pixel_period_s))
    setup = Raster(vortex, fast_axis, slow_axis, shutter, raster, timing)
    setup.check()
    submit_prediction(setup.predict())

    start = run_metadata(
        "xrf_map",
        "fluorescence",
        vortex,
        raster.num_frames,
        raster.model_dump(),
        motors=(fast_axis, slow_axis),
        sample=sample,
        md={
            "shape": [rows, columns],
            "snaking": [False, snake],
            "hints": {"dimensions": [([slow_axis.name], "primary"), ([fast_axis.name], "primary")]},
            **(md or {}),
        },
    )
    return (yield from setup.run(start))


def _check_energy(raster: FluorescenceMap) -> None:
    if raster.photon_energy_keV is None:
        raise InputError(
            f"the photon energy is not known, so that spectra cannot be fitted; give"
            f" photon_energy_keV, or set it for {raster.detector} in the profile"
        )


def _period(
    raster: FluorescenceMap, fast_axis: FlyAxis | EpicsMotor, asked_s: float | None
) -> float:
    if asked_s is not None:
        if not (is_number(asked_s) and asked_s >= raster.exposure_s):
            raise InputError(
                f"pixel_period_s is {asked_s!r}; it must be at least exposure_s,"
                f" {raster.exposure_s}"
            )
        return float(asked_s)
    period_s = raster.exposure_s + READOUT_MARGIN_S
    if raster.mode == "fly" and isinstance(fast_axis, FlyAxis):
        return max(period_s, fast_axis.shortest_period_s(raster.fast_step_mm))
    return period_s
