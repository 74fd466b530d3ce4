"""The scaffold of runs with one detector: metadata, series that survive a pause, a safe end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator, short_uid

from apsber_bluesky.core import StreamName, Technique
from apsber_bluesky.devices import FastShutter, FlyRotation, FrameDetector, FrameSeries, Trigger
from apsber_bluesky.plans._planned_series import PlannedSeries, Timing
from apsber_bluesky.plans._safe_run import leave_safe, safe_run
from apsber_bluesky.plans._whole_series import collect_until_done, take_whole_series

# A detector that ignored a pulse counts on without it: of the frames that are missing at the end
# nobody knows which pulses they belong to.
_COUNTED_PULSES = ("external", "gate")


def run_metadata(
    plan_name: str,
    technique: Technique,
    camera: FrameDetector,
    num_points: int,
    conditions: dict[str, Any],
    *,
    motors: Iterable[Any] = (),
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Start document of a run with one detector; what the user gives wins.

    Parameters
    ----------
    plan_name : str
        Name of the plan.
    technique : str
        What the run is; names the key of `conditions`.
    camera : FrameDetector
        Who takes the frames.
    num_points : int
        Frames of the stream that matters.
    conditions : dict
        What the run is for and how it was taken.
    motors : iterable of device
        What moves during the run.
    sample : str
        Name of the sample; empty for none.
    md : dict, optional
        The user's.
    """
    metadata: dict[str, Any] = {
        "plan_name": plan_name,
        "technique": technique,
        "detectors": [camera.name],
        "detectors_metadata": {camera.name: camera.detector_metadata()},
        "num_points": num_points,
        technique: conditions,
    }
    if names := [motor.name for motor in motors]:
        metadata["motors"] = names
    if sample:
        metadata["sample"] = sample
    return {**metadata, **(md or {})}


@dataclass(frozen=True, slots=True)
class Flight:
    """What an axis does during a series.

    Attributes
    ----------
    axis : device
        An axis that can be prepared, kicked off and completed.
    motion : callable
        What to prepare it with for a part of the series.
    places : tuple
        Other axes and their positions, in turns, as for `bluesky.plan_stubs.mv`; they go there
        before.
    """

    axis: Any
    motion: Callable[[FrameSeries], Any]
    places: tuple[Any, ...] = ()


def one_pulse(fly: FlyRotation) -> FlyRotation:
    """The same rotation with one pulse, and the rest of the way at the same speed."""
    way_deg, lasts_s = fly.step_deg * fly.num_pulses, fly.period_s * fly.num_pulses
    return FlyRotation(fly.start_deg, way_deg, 1, lasts_s)


@dataclass(slots=True)
class DetectorRun:
    """One run in progress; its series go on after a pause with what is missing."""

    camera: FrameDetector
    shutter: FastShutter
    timing: Timing
    uid: str
    retake_missing: bool = True
    _planned: PlannedSeries = field(init=False)
    _declared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._planned = PlannedSeries(self.uid, self.timing)

    def series(
        self,
        stream: StreamName,
        num_frames: int,
        trigger: Trigger = "internal",
        fly: FlyRotation | None = None,
    ) -> FrameSeries:
        """Plan a series behind those that were planned before; see `PlannedSeries.add`."""
        return self._planned.add(stream, num_frames, trigger, fly)

    def take(self, stream: StreamName, num_frames: int, *, beam: bool) -> MsgGenerator[None]:
        """Take a series at the camera's own pace, with or without `beam`."""
        yield from self.take_series(self.series(stream, num_frames), beam=beam)

    def take_series(
        self,
        series: FrameSeries,
        *,
        beam: bool,
        flight: Flight | None = None,
        multiple: int = 1,
        closes: bool = True,
    ) -> MsgGenerator[None]:
        """Take a series; what a pause leaves out is taken when the plan is resumed.

        Parameters
        ----------
        series : FrameSeries
            From `series`, with any trigger but ``step``.
        beam : bool
            Whether the shutter is open.
        flight : Flight, optional
            What moves meanwhile, and gives the pulses.
        multiple : int
            Frames that an exposure gives; they can only be taken together.
        closes : bool
            Whether the shutter is closed behind it.
        """
        retake = self.retake_missing and series.trigger not in _COUNTED_PULSES
        yield from self._declare(series.stream)
        yield from take_whole_series(
            self.camera,
            series,
            lambda part: self._sweep(part, flight, beam=beam, closes=closes),
            retake_missing=retake,
            multiple=multiple,
        )

    def _declare(self, stream: str) -> MsgGenerator[None]:
        if stream not in self._declared:
            yield from bps.declare_stream(self.camera, name=stream, collect=True)
            self._declared.add(stream)

    def _sweep(
        self, part: FrameSeries, flight: Flight | None, *, beam: bool, closes: bool
    ) -> MsgGenerator[None]:
        """A part of a series; one that a pause ends is followed by another."""
        flyers: list[Any] = [self.camera]
        group = short_uid("prepare")
        if flight is not None:
            flyers.append(flight.axis)
            yield from bps.prepare(flight.axis, flight.motion(part), group=group)
            for axis, place in zip(flight.places[::2], flight.places[1::2], strict=True):
                yield from bps.abs_set(axis, place, group=group)
        yield from bps.prepare(self.camera, part, group=group)
        yield from bps.wait(group=group)
        # Also for a part that is taken after a pause, which has closed the shutter.
        yield from bps.mv(self.shutter, "open" if beam else "close")
        # The detector must be waiting for pulses before the axis can give the first.
        for flyer in flyers:
            yield from bps.kickoff(flyer, wait=True)
        yield from collect_until_done(self.camera, flyers, part.stream)
        if beam and closes:
            yield from bps.mv(self.shutter, "close")

    def take_points(
        self,
        series: FrameSeries,
        readables: Iterable[Any] = (),
        places: Callable[[int], list[Any]] = lambda _: [],
    ) -> MsgGenerator[None]:
        """Take a series with trigger ``step`` in open beam: one event for each frame.

        Parameters
        ----------
        series : FrameSeries
            From `series`.
        readables : iterable of device
            What is read at each point besides the detector.
        places : callable
            Axes and positions of a point, in turns, as for `bluesky.plan_stubs.mv`.
        """
        devices = [self.camera, *readables]
        yield from bps.prepare(self.camera, series, wait=True)
        for number in range(series.num_frames):
            yield from bps.checkpoint()
            # All that a point needs: bluesky repeats it after a pause, which closes the shutter.
            yield from bps.mv(self.shutter, "open", self.camera.next_frame, number, *places(number))
            yield from bps.trigger_and_read(devices)
        yield from bps.mv(self.shutter, "close")


def record(stream: str, device: Any) -> MsgGenerator[None]:
    """One event of a stream of its own."""
    yield from bps.create(name=stream)
    yield from bps.read(device)
    yield from bps.save()
    # Not to be repeated by a pause that comes later.
    yield from bps.checkpoint()


def detector_run(
    camera: FrameDetector,
    shutter: FastShutter,
    timing: Timing,
    metadata: dict[str, Any],
    body: Callable[[DetectorRun], MsgGenerator[None]],
    stops: Iterable[Any] = (),
    *,
    staged: Iterable[Any] = (),
    retake_missing: bool = True,
) -> Generator[Msg, Any, str]:
    """One run around `body`.

    Whatever happens, the shutter is closed, `stops` and camera are stopped and the run is closed.

    Parameters
    ----------
    camera, shutter, timing
        Who takes the frames, and how.
    metadata : dict
        Of the start document.
    body : callable
        What is done, given the run.
    stops : iterable of device
        What may be moving.
    staged : iterable of device
        What is staged besides the camera.
    retake_missing : bool
        Whether frames that get lost are taken again.

    Returns
    -------
    str
        Bluesky run uid.
    """
    devices = [*(d for d in stops if d is not None), camera]
    return (
        yield from safe_run(
            metadata,
            lambda uid: body(DetectorRun(camera, shutter, timing, uid, retake_missing)),
            staged=[camera, *(device for device in staged if device is not None)],
            close_up=lambda: leave_safe(shutter, devices),
        )
    )
