"""Maps of the elements of a sample, by X-ray fluorescence."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, RunEngineControlException
from ophyd import EpicsMotor

from apsber_bluesky.core import FluorescenceMap, InputError
from apsber_bluesky.devices import (
    FastShutter,
    FlyAxis,
    FlyLine,
    FrameSeries,
    VortexDetector,
)

#: Time between two frames in which the fast axis may be late [s].
READOUT_MARGIN_S = 0.001
_FLUSH_S = 0.25


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
        If an argument is wrong, before anything moves.
    """
    for name, value in (("columns", columns), ("rows", rows)):
        if type(value) is not int or value < 1:
            raise InputError(f"{name} is {value!r}; give a number of pixels, 1 or more")
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
    setup = _Mapping(vortex, fast_axis, slow_axis, shutter, raster, _period(
        raster, fast_axis, pixel_period_s))  # fmt: skip
    setup.check()

    start: dict[str, Any] = {
        "plan_name": "xrf_map",
        "technique": "fluorescence",
        "detectors": [vortex.name],
        "detectors_metadata": {vortex.name: metadata},
        "motors": [fast_axis.name, slow_axis.name],
        "num_points": raster.num_frames,
        "shape": [rows, columns],
        "snaking": [False, snake],
        "hints": {"dimensions": [([slow_axis.name], "primary"), ([fast_axis.name], "primary")]},
        "fluorescence": raster.model_dump(),
    }
    if sample:
        start["sample"] = sample
    return (yield from _run(setup, {**start, **(md or {})}))


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
        if not (math.isfinite(asked_s) and asked_s >= raster.exposure_s):
            raise InputError(
                f"pixel_period_s is {asked_s!r}; it must be at least exposure_s,"
                f" {raster.exposure_s}"
            )
        return float(asked_s)
    period_s = raster.exposure_s + READOUT_MARGIN_S
    if raster.mode == "fly" and isinstance(fast_axis, FlyAxis):
        return max(period_s, fast_axis.shortest_period_s(raster.fast_step_mm))
    return period_s


@dataclass(frozen=True, slots=True)
class _Mapping:
    """The devices of a map, and how it is taken."""

    vortex: VortexDetector
    fast_axis: FlyAxis | EpicsMotor
    slow_axis: EpicsMotor
    shutter: FastShutter
    raster: FluorescenceMap
    period_s: float

    def series(self, uid: str, row: int = 0) -> FrameSeries:
        """The request for a row, or for the whole map when it is stepped.

        The places of its frames are given, so that a row that was interrupted is taken again into
        the same places.
        """
        fly = self.raster.mode == "fly"
        return FrameSeries(
            run_uid=uid,
            stream="primary",
            num_frames=self.raster.columns if fly else self.raster.num_frames,
            exposure_s=self.raster.exposure_s,
            period_s=self.period_s,
            trigger="external" if fly else "step",
            first_index=row * self.raster.columns,
            first_number=row * self.raster.columns,
        )

    def line(self, row: int) -> FlyLine:
        """The motion along a row; pixels are in the middle of what is seen while it moves."""
        raster = self.raster
        step_mm = raster.fast_step_mm
        first = raster.fast_start_mm
        if raster.is_backwards(row):
            first, step_mm = first + (raster.columns - 1) * step_mm, -step_mm
        seen = step_mm * raster.exposure_s / self.period_s
        return FlyLine(first - 0.5 * seen, step_mm, raster.columns, self.period_s)

    def check(self) -> None:
        """Refuse what cannot be done, before anything moves."""
        raster = self.raster
        self.vortex.check(self.series(""))
        _check_limits(self.slow_axis, raster.slow_mm.tolist())
        if raster.mode == "step":
            _check_limits(self.fast_axis, raster.fast_mm.tolist())
        elif isinstance(self.fast_axis, FlyAxis):
            for row in range(min(raster.rows, 2)):
                self.fast_axis.check(self.line(row))
        else:
            raise InputError(
                f"{self.fast_axis.name} gives no pulses, so it cannot fly; give a FlyAxis, or"
                " mode='step'"
            )


def _check_limits(axis: Any, positions: list[float]) -> None:
    low, high = axis.limits
    for place in (min(positions), max(positions)):
        if low < high and not low <= place <= high:
            raise InputError(
                f"{axis.name} would have to move to {place:.4g} mm, its limits are {low:.4g} to"
                f" {high:.4g} mm"
            )


def _rows(setup: _Mapping, uid: str) -> MsgGenerator[None]:
    vortex, fast_axis = setup.vortex, setup.fast_axis
    for row, slow_mm in enumerate(setup.raster.slow_mm.tolist()):
        # What is repeated after a pause begins here; a pause has closed the shutter, too.
        yield from bps.checkpoint()
        yield from bps.abs_set(setup.shutter, "open", group="row")
        yield from bps.abs_set(setup.slow_axis, slow_mm, group="row")
        yield from bps.prepare(fast_axis, setup.line(row), group="row")
        yield from bps.prepare(vortex, setup.series(uid, row), group="row")
        yield from bps.wait(group="row")
        if row == 0:
            yield from bps.declare_stream(vortex, name="primary", collect=True)
        # The detector must be waiting for pulses before the axis can give the first.
        yield from bps.kickoff(vortex, wait=True)
        yield from bps.kickoff(fast_axis, wait=True)
        yield from bps.collect_while_completing(
            [vortex, fast_axis], [vortex], flush_period=_FLUSH_S, stream_name="primary"
        )
    yield from bps.mv(setup.shutter, "close")


def _steps(setup: _Mapping, uid: str) -> MsgGenerator[None]:
    vortex, raster = setup.vortex, setup.raster
    yield from bps.prepare(vortex, setup.series(uid), wait=True)
    for row, slow_mm in enumerate(raster.slow_mm.tolist()):
        places = raster.fast_mm.tolist()
        for fast_mm in reversed(places) if raster.is_backwards(row) else places:
            yield from bps.checkpoint()
            yield from bps.mv(
                setup.shutter, "open", setup.slow_axis, slow_mm, setup.fast_axis, fast_mm
            )
            yield from bps.trigger_and_read([vortex, setup.fast_axis, setup.slow_axis])
    yield from bps.mv(setup.shutter, "close")


def _run(setup: _Mapping, metadata: dict[str, Any]) -> Generator[Msg, Any, str]:
    """One run; whatever happens, the beamline is left safe and the run closed."""
    uid: str = yield from bps.open_run(metadata)
    body = _rows(setup, uid) if setup.raster.mode == "fly" else _steps(setup, uid)
    staged = bpp.stage_wrapper(body, [setup.vortex, setup.fast_axis])
    yield from bpp.contingency_wrapper(
        bpp.finalize_wrapper(staged, lambda: _close_up(setup)),
        except_plan=_close_failed_run,
        else_plan=bps.close_run,
    )
    return uid


def _close_up(setup: _Mapping) -> MsgGenerator[None]:
    """Shutter closed, nothing moving, no exposure, no pulses; one that fails stops no other."""
    yield from bpp.finalize_wrapper(
        bps.abs_set(setup.shutter, "close", wait=True),
        lambda: bpp.finalize_wrapper(
            bps.stop(setup.fast_axis),
            lambda: bpp.finalize_wrapper(bps.stop(setup.slow_axis), lambda: bps.stop(setup.vortex)),
        ),
    )


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)
