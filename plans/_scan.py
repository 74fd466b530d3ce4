"""What the tomography plans share: checks, metadata, and series of darks and flats."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import (
    Msg,
    MsgGenerator,
    short_uid,
)
from pydantic import ValidationError

from apsber_bluesky.core import InputError, StreamName, TomographyScan
from apsber_bluesky.devices import (
    Camera,
    FastShutter,
    FlyRotation,
    FrameSeries,
    RotationStage,
    SampleAxis,
)
from apsber_bluesky.plans._planned_series import PlannedSeries, Timing
from apsber_bluesky.plans._safe_run import leave_safe, safe_run
from apsber_bluesky.plans._whole_series import collect_until_done, take_whole_series

When = Literal["start", "end", "both", "none"]

#: Time a camera needs between exposures [s] when the plan is not told the period.
READOUT_MARGIN_S = 0.002

# Missing frames that lie closer together than this [s] are taken in one sweep: turning back for
# each would take longer.
_RUN_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Instrument:
    """The devices of a tomography scan."""

    camera: Camera
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
        "technique": "tomography",
        "detectors": [instrument.camera.name],
        "detectors_metadata": {instrument.camera.name: instrument.camera.detector_metadata()},
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
    retake_missing: bool = True
    _planned: PlannedSeries = field(init=False)

    def __post_init__(self) -> None:
        self._planned = PlannedSeries(self.uid, self.timing)

    def series(
        self,
        stream: StreamName,
        num_frames: int,
        trigger: Literal["internal", "external", "step"],
        fly: FlyRotation | None = None,
    ) -> FrameSeries:
        """Plan a series behind those that were planned before; see `PlannedSeries.add`."""
        return self._planned.add(stream, num_frames, trigger, fly)

    def curtailed(self, stream: StreamName, num_frames: int) -> None:
        """A stream has only so many frames; the next series goes on behind them."""
        self._planned.curtail(stream, num_frames)

    def references_at(self, when: Literal["start", "end"]) -> MsgGenerator[None]:
        """Take the darks and flats that belong at the start or the end."""
        references = self.references
        if references.num_darks and references.dark_mode in (when, "both"):
            yield from self.darks()
        if references.num_flats and references.flat_mode in (when, "both"):
            yield from self.flats()

    def darks(self) -> MsgGenerator[None]:
        """Take a series of darks."""
        yield from bps.mv(self.instrument.shutter, "close")
        yield from self.take_series("darks", self.references.num_darks, beam=False)

    def flats(self) -> MsgGenerator[None]:
        """Take a series of flats."""
        instrument, references = self.instrument, self.references
        yield from bps.mv(instrument.sample_x, references.sample_out_mm)
        yield from self.take_series("flats", references.num_flats, beam=True)
        yield from bps.mv(instrument.sample_x, references.sample_in_mm)

    def take_series(self, stream: StreamName, num_frames: int, *, beam: bool) -> MsgGenerator[None]:
        """Take a series at the camera's own pace, with or without `beam`."""
        camera, shutter = self.instrument.camera, self.instrument.shutter

        def sweep(part: FrameSeries) -> MsgGenerator[None]:
            # Also for a part that is taken after a pause, which has closed the shutter.
            yield from bps.prepare(camera, part, wait=True)
            if beam:
                yield from bps.mv(shutter, "open")
            yield from bps.kickoff(camera, wait=True)
            yield from collect_until_done(camera, [camera], stream)
            if beam:
                yield from bps.mv(shutter, "close")

        series = self.series(stream, num_frames, "internal")
        yield from bps.declare_stream(camera, name=stream, collect=True)
        yield from take_whole_series(camera, series, sweep, retake_missing=self.retake_missing)

    def fly(self, fly: FlyRotation, stream: StreamName = "primary") -> MsgGenerator[None]:
        """Take one projection for each pulse of a rotation.

        A scan may be made of any number of such flights, one after the other: their frames follow
        each other in the stream.
        """
        camera, rotation = self.instrument.camera, self.instrument.rotation
        series = self.series(stream, fly.num_pulses, "external", fly)
        first = series.first_index or 0

        def sweep(part: FrameSeries) -> MsgGenerator[None]:
            turn = fly.part((part.first_index or 0) - first, part.num_frames)
            group = short_uid("prepare")
            yield from bps.prepare(rotation, turn, group=group)
            yield from bps.prepare(camera, part, group=group)
            yield from bps.wait(group=group)
            yield from bps.mv(self.instrument.shutter, "open")
            # The camera must be waiting for pulses before the axis can give the first.
            yield from bps.kickoff(camera, wait=True)
            yield from bps.kickoff(rotation, wait=True)
            yield from collect_until_done(camera, [camera, rotation], stream)
            yield from bps.mv(self.instrument.shutter, "close")

        yield from bps.declare_stream(camera, name=stream, collect=True)
        yield from take_whole_series(
            camera,
            series,
            sweep,
            retake_missing=self.retake_missing,
            gap=int(_RUN_UP_S / fly.period_s),
        )


def tomography_run(
    instrument: Instrument,
    timing: Timing,
    references: References,
    metadata: dict[str, Any],
    body: Callable[[ScanRun], MsgGenerator[None]],
    *,
    retake_missing: bool = True,
) -> Generator[Msg, Any, str]:
    """One run around `body`; whatever happens, the beamline is left safe and the run closed.

    Returns
    -------
    str
        Bluesky run uid.
    """
    camera, rotation = instrument.camera, instrument.rotation
    return (
        yield from safe_run(
            metadata,
            lambda uid: body(ScanRun(instrument, timing, references, uid, retake_missing)),
            staged=[camera, rotation],
            close_up=lambda: leave_safe(instrument.shutter, [rotation, camera]),
        )
    )
