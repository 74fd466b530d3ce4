"""One run of scattering: its devices, how series are taken, and a safe end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, RunEngineControlException, short_uid

from apsber_bluesky.core import ScanPrediction, StreamName
from apsber_bluesky.devices import (
    EigerDetector,
    FastShutter,
    FlyRotation,
    FrameSeries,
    RotationStage,
    SampleAxis,
    Trigger,
)
from apsber_bluesky.plans._preflight import motion_s, place_of, resources_of
from apsber_bluesky.plans._scan import Timing, named_failures
from apsber_bluesky.plans._whole_series import collect_until_done, take_whole_series

# What a run and each of its series take beside exposures and motion; measured at the simulated
# beamline.
_RUN_S: Final = 0.25
_SERIES_S: Final = 0.2
_STEP_S: Final = 0.02
_LARGEST_PIXEL_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Scattering:
    """A scattering series: who takes it, and how.

    Attributes
    ----------
    detector, shutter, axis, rotation : devices
        The devices; `axis` and `rotation` only if they are used.
    places_mm : sequence of float or None
        Positions of `axis`, one series each; None where it stands.
    num_frames, num_darks : int
        Frames at each position, and with the shutter closed.
    timing : Timing
        Exposure time and frame period [s].
    trigger : str
        What begins an exposure.
    fly : FlyRotation or None
        How `rotation` turns during a series, one pulse for each frame.
    retake_missing : bool
        Whether frames that get lost are taken again.
    """

    detector: EigerDetector
    shutter: FastShutter
    axis: SampleAxis | None
    rotation: RotationStage | None
    places_mm: Sequence[float | None]
    num_frames: int
    num_darks: int
    timing: Timing
    trigger: Trigger
    fly: FlyRotation | None
    retake_missing: bool

    def series(self, uid: str, stream: StreamName, place: int = 0) -> FrameSeries:
        """The request for the series of a position."""
        darks = stream == "darks"
        num_frames = self.num_darks if darks else self.num_frames
        before = 0 if darks else self.num_darks + place * num_frames
        turns = self.fly is not None and not darks
        return FrameSeries(
            run_uid=uid,
            stream=stream,
            num_frames=num_frames,
            exposure_s=self.timing.exposure_s,
            period_s=self.timing.period_s,
            trigger="internal" if darks else self.trigger,
            first_index=place * num_frames,
            first_number=before,
            retakes=darks or self.trigger != "step",
            angle_deg=self.fly.start_deg if self.fly is not None and turns else None,
            step_deg=self.fly.step_deg if self.fly is not None and turns else None,
        )

    def predict(self) -> ScanPrediction:
        """What the run will take; pixels count as the largest that the detector has."""
        moves_s = 0.0
        if self.axis is not None and self.places_mm[0] is not None:
            here = place_of(self.axis, self.places_mm[0])
            for place_mm in self.places_mm:
                moves_s += motion_s(self.axis, (place_mm or 0.0) - here)
                here = place_mm or 0.0
        frames = self.num_frames * len(self.places_mm)
        step_s = _STEP_S if self.trigger == "step" else 0.0
        beam_s = frames * (self.timing.period_s + step_s)
        num_series = len(self.places_mm) + bool(self.num_darks)
        turns_s = 0.0
        if self.rotation is not None and self.fly is not None:
            # There and back for every series but the first.
            way = abs(self.fly.step_deg) * self.num_frames
            turns_s = motion_s(self.rotation, way) * len(self.places_mm)
        rows, columns = self.detector.frame_shape
        resources = resources_of(self.detector)
        return ScanPrediction(
            plan_name="scattering_series",
            duration_s=_RUN_S
            + num_series * _SERIES_S
            + moves_s
            + turns_s
            + beam_s
            + self.num_darks * self.timing.period_s,
            frames=frames + self.num_darks,
            disk_bytes=(frames + self.num_darks) * rows * columns * _LARGEST_PIXEL_BYTES,
            beam_time_s=beam_s,
            free_disk_bytes=None if resources is None else resources.free_disk_bytes,
        )

    # -- messages

    def run(self, metadata: dict[str, Any]) -> Generator[Msg, Any, str]:
        """The run; whatever happens, the beamline is left safe and the run closed.

        Returns
        -------
        str
            Bluesky run uid.
        """
        uid: str = yield from bps.open_run(metadata)
        # Safe before anything else is cleaned up, which may take its time.
        safe = bpp.contingency_wrapper(
            named_failures(self._body(uid)), except_plan=lambda _: self._close_up()
        )
        devices = [d for d in (self.detector, self.rotation) if d is not None]
        # Staged inside the run: unstaging closes the spool, so the stop document finds it closed.
        yield from bpp.contingency_wrapper(
            bpp.finalize_wrapper(bpp.stage_wrapper(safe, devices), self._close_up),
            except_plan=_close_failed_run,
            else_plan=bps.close_run,
        )
        return uid

    def _body(self, uid: str) -> MsgGenerator[None]:
        if self.num_darks:
            yield from bps.mv(self.shutter, "close")
            yield from self._take(self.series(uid, "darks"), self._sweep(beam=False))
        for number, place_mm in enumerate(self.places_mm):
            if self.axis is not None and place_mm is not None:
                yield from bps.mv(self.axis, place_mm)
            series = self.series(uid, "primary", number)
            if self.trigger == "step":
                yield from self._take_stepwise(series)
            else:
                yield from self._take(series, self._sweep(beam=True))
            if self.axis is not None:
                yield from _record("positions", self.axis)
        if self.detector.driver.counts_drops:
            yield from _record("detector_status", self.detector.cam.stream_dropped)

    def _take(
        self, series: FrameSeries, sweep: Callable[[FrameSeries], MsgGenerator[None]]
    ) -> MsgGenerator[None]:
        yield from bps.declare_stream(self.detector, name=series.stream, collect=True)
        # One that is missing behind pulses that were ignored says nothing of which these were.
        retake = self.retake_missing and series.trigger not in ("external", "gate")
        yield from take_whole_series(self.detector, series, sweep, retake_missing=retake)

    def _sweep(self, *, beam: bool) -> Callable[[FrameSeries], MsgGenerator[None]]:
        """How a part of a series is taken; one that a pause ended is followed by another."""
        detector, shutter = self.detector, self.shutter

        def sweep(part: FrameSeries) -> MsgGenerator[None]:
            flyers: list[Any] = [detector]
            group = short_uid("prepare")
            turn = self._turn(part) if beam else None
            if turn is not None and self.rotation is not None:
                flyers.append(self.rotation)
                yield from bps.prepare(self.rotation, turn, group=group)
            yield from bps.prepare(detector, part, group=group)
            yield from bps.wait(group=group)
            if beam:
                yield from bps.mv(shutter, "open")
            # The detector must be waiting for pulses before the axis can give the first.
            for flyer in flyers:
                yield from bps.kickoff(flyer, wait=True)
            yield from collect_until_done(detector, flyers, part.stream)
            if beam:
                yield from bps.mv(shutter, "close")

        return sweep

    def _turn(self, part: FrameSeries) -> FlyRotation | None:
        """The rotation during a part of a series."""
        if self.fly is None:
            return None
        turn = self.fly.part((part.first_index or 0) % self.num_frames, part.num_frames)
        if self.trigger != "start":
            return turn
        # One pulse, and the rest of the way at the same speed.
        way_deg, lasts_s = turn.step_deg * part.num_frames, turn.period_s * part.num_frames
        return FlyRotation(turn.start_deg, way_deg, 1, lasts_s)

    def _take_stepwise(self, series: FrameSeries) -> MsgGenerator[None]:
        """One event for each frame."""
        detector = self.detector
        axes = [] if self.axis is None else [self.axis]
        yield from bps.prepare(detector, series, wait=True)
        for number in range(series.num_frames):
            yield from bps.checkpoint()
            # All that a point needs: bluesky repeats it after a pause, which closes the shutter.
            yield from bps.mv(self.shutter, "open", detector.next_frame, number)
            yield from bps.trigger_and_read([detector, *axes])
        yield from bps.mv(self.shutter, "close")

    def _close_up(self) -> MsgGenerator[None]:
        """Shutter closed, nothing moving, no exposure; a failure here keeps nothing from it."""

        def stop_all(devices: list[Any]) -> MsgGenerator[None]:
            if devices:
                yield from bpp.finalize_wrapper(bps.stop(devices[0]), lambda: stop_all(devices[1:]))

        devices = [d for d in (self.rotation, self.axis, self.detector) if d is not None]
        yield from bpp.finalize_wrapper(
            bps.abs_set(self.shutter, "close", wait=True), lambda: stop_all(devices)
        )


def _record(stream: str, device: Any) -> MsgGenerator[None]:
    """One event of a stream of its own."""
    yield from bps.create(name=stream)
    yield from bps.read(device)
    yield from bps.save()
    # Not to be repeated by a pause that comes later.
    yield from bps.checkpoint()


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)
