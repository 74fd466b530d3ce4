"""What the tomography plans share: checks, metadata, and series of darks and flats."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, RunEngineControlException
from pydantic import ValidationError

from apsber_bluesky.core import InputError, StreamName, TomographyScan
from apsber_bluesky.devices import (
    CameraSeries,
    FastShutter,
    RotationStage,
    SampleAxis,
    TomographyCamera,
)

When = Literal["start", "end", "both", "none"]

#: Time a camera needs between exposures [s] when the plan is not told the period.
READOUT_MARGIN_S = 0.002


@dataclass(frozen=True, slots=True)
class Instrument:
    """The devices of a tomography scan."""

    camera: TomographyCamera
    rotation: RotationStage
    shutter: FastShutter
    sample_x: SampleAxis


@dataclass(frozen=True, slots=True)
class References:
    """When and how darks and flats are taken.

    Attributes
    ----------
    num_darks, num_flats : int
        Frames per series.
    dark_mode, flat_mode : {"start", "end", "both", "none"}
        When the series are taken.
    sample_in_mm, sample_out_mm : float
        Positions of the sample axis with the sample in and out of the beam [mm].
    """

    num_darks: int
    num_flats: int
    dark_mode: When
    flat_mode: When
    sample_in_mm: float
    sample_out_mm: float

    def times(self, mode: When, num_frames: int) -> int:
        """How many series are taken."""
        return {"start": 1, "end": 1, "both": 2, "none": 0}[mode] if num_frames else 0

    @property
    def total_darks(self) -> int:
        """Darks of the whole run."""
        return self.num_darks * self.times(self.dark_mode, self.num_darks)

    @property
    def total_flats(self) -> int:
        """Flats of the whole run."""
        return self.num_flats * self.times(self.flat_mode, self.num_flats)


@dataclass(frozen=True, slots=True)
class Timing:
    """Exposure time and frame period [s]."""

    exposure_s: float
    period_s: float


def check_timing(exposure_s: float, period_s: float | None) -> Timing:
    """Check the exposure time and work out the frame period.

    Raises
    ------
    InputError
        If a time is not positive, or the period is shorter than the exposure.
    """
    if not (_is_number(exposure_s) and exposure_s > 0):
        raise InputError(f"exposure_s is {exposure_s!r}; give a positive number of seconds")
    if period_s is None:
        return Timing(exposure_s, exposure_s + READOUT_MARGIN_S)
    if not (_is_number(period_s) and period_s >= exposure_s):
        raise InputError(
            f"frame_period_s is {period_s!r}; it must be at least exposure_s, {exposure_s}"
        )
    return Timing(exposure_s, period_s)


def _is_number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)


def check_references(references: References) -> References:
    """Check counts, modes and positions.

    Raises
    ------
    InputError
        If one is wrong; it names the argument and its value.
    """
    for name in ("num_darks", "num_flats"):
        value = getattr(references, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name} is {value!r}; give a number of frames, 0 or more")
    for name in ("dark_mode", "flat_mode"):
        value = getattr(references, name)
        if value not in ("start", "end", "both", "none"):
            raise InputError(f"{name} is {value!r}; give 'start', 'end', 'both' or 'none'")
    for name in ("sample_in_mm", "sample_out_mm"):
        value = getattr(references, name)
        if not _is_number(value):
            raise InputError(f"{name} is {value!r}; give a position in mm")
    if references.total_flats and references.sample_in_mm == references.sample_out_mm:
        raise InputError(
            f"sample_in_mm and sample_out_mm are both {references.sample_in_mm}; flats need the"
            " sample out of the beam, or num_flats=0"
        )
    return references


def describe_scan(
    instrument: Instrument,
    timing: Timing,
    references: References,
    *,
    rotation_start_deg: float,
    rotation_stop_deg: float,
    num_projections: int,
) -> TomographyScan:
    """Check the angles and put the description of the scan together.

    Raises
    ------
    InputError
        If a value is wrong; the message names each.
    """
    camera = instrument.camera
    rows, columns = camera.frame_shape
    try:
        return TomographyScan(
            rotation_start_deg=rotation_start_deg,
            rotation_stop_deg=rotation_stop_deg,
            num_projections=num_projections,
            num_flats=references.total_flats,
            num_darks=references.total_darks,
            rows=rows,
            columns=columns,
            dtype=camera.frame_dtype,
            exposure_s=timing.exposure_s,
            pixel_size_um=camera.pixel_size_um,
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'scan'} is {e['input']!r}: {e['msg']}"
            for e in error.errors()
        )
        raise InputError(f"the scan cannot run: {problems}") from None


def start_metadata(
    plan_name: str,
    instrument: Instrument,
    scan: TomographyScan,
    references: References,
    sample: str,
    md: dict[str, Any] | None,
) -> dict[str, Any]:
    """Metadata of the start document; what the user gives comes last and wins."""
    metadata: dict[str, Any] = {
        "plan_name": plan_name,
        "detectors": [instrument.camera.name],
        "motors": [instrument.rotation.name],
        "num_points": scan.num_projections,
        "hints": {"dimensions": [([instrument.rotation.name], "primary")]},
        "tomography": scan.model_dump(),
        "reference_frames": {
            "dark_mode": references.dark_mode,
            "flat_mode": references.flat_mode,
            "sample_in_mm": references.sample_in_mm,
            "sample_out_mm": references.sample_out_mm,
        },
    }
    if sample:
        metadata["sample"] = sample
    return {**metadata, **(md or {})}


@dataclass(slots=True)
class ScanRun:
    """One run in progress; its methods are the parts that the plans are made of."""

    instrument: Instrument
    timing: Timing
    references: References
    uid: str

    def series(
        self,
        stream: StreamName,
        num_frames: int,
        trigger: Literal["internal", "external", "step"],
    ) -> CameraSeries:
        """The request for a series of this run."""
        return CameraSeries(
            run_uid=self.uid,
            stream=stream,
            num_frames=num_frames,
            exposure_s=self.timing.exposure_s,
            period_s=self.timing.period_s,
            trigger=trigger,
        )

    def references_at(self, when: Literal["start", "end"]) -> MsgGenerator[None]:
        """Take the darks and flats that belong at the start or the end."""
        references = self.references
        if references.num_darks and references.dark_mode in (when, "both"):
            yield from self._darks()
        if references.num_flats and references.flat_mode in (when, "both"):
            yield from self._flats()

    def _darks(self) -> MsgGenerator[None]:
        yield from bps.mv(self.instrument.shutter, "close")
        yield from self.take_series("darks", self.references.num_darks)

    def _flats(self) -> MsgGenerator[None]:
        instrument, references = self.instrument, self.references
        yield from bps.mv(instrument.sample_x, references.sample_out_mm)
        yield from bps.mv(instrument.shutter, "open")
        yield from self.take_series("flats", references.num_flats)
        yield from bps.mv(instrument.shutter, "close")
        yield from bps.mv(instrument.sample_x, references.sample_in_mm)

    def take_series(self, stream: StreamName, num_frames: int) -> MsgGenerator[None]:
        """Take a series at the camera's own pace."""
        camera = self.instrument.camera
        yield from bps.checkpoint()
        yield from bps.prepare(camera, self.series(stream, num_frames, "internal"), wait=True)
        yield from bps.declare_stream(camera, name=stream, collect=True)
        yield from bps.kickoff(camera, wait=True)
        yield from collect_until_done(camera, [camera], stream)


def collect_until_done(
    camera: TomographyCamera, flyers: list[Any], stream: StreamName
) -> MsgGenerator[None]:
    """Announce frames as they come, until every flyer is done."""
    yield from bps.collect_while_completing(flyers, [camera], flush_period=0.25, stream_name=stream)


def tomography_run(
    instrument: Instrument,
    timing: Timing,
    references: References,
    metadata: dict[str, Any],
    body: Callable[[ScanRun], MsgGenerator[None]],
) -> Generator[Msg, Any, str]:
    """One run around `body`; whatever happens, the beamline is left safe and the run closed.

    Returns
    -------
    str
        Bluesky run uid.
    """
    uid: str = yield from bps.open_run(metadata)
    run = ScanRun(instrument, timing, references, uid)
    # Staged inside the run: unstaging closes the spool, so the stop document finds it closed.
    staged = bpp.stage_wrapper(body(run), [instrument.camera, instrument.rotation])
    yield from bpp.contingency_wrapper(
        bpp.finalize_wrapper(staged, lambda: close_up(instrument)),
        except_plan=_close_failed_run,
        else_plan=bps.close_run,
    )
    return uid


def close_up(instrument: Instrument) -> MsgGenerator[None]:
    """Leave the beamline safe: shutter closed, nothing turning, no exposure, no pulses.

    A device that fails here does not keep the others from being stopped.
    """
    yield from bpp.finalize_wrapper(
        bps.abs_set(instrument.shutter, "close", wait=True),
        lambda: bpp.finalize_wrapper(
            bps.stop(instrument.rotation), lambda: bps.stop(instrument.camera)
        ),
    )


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)
