"""What runs share that are no tomography scan: checks, metadata, series, and a safe end."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, RunEngineControlException

from apsber_bluesky.core import InputError, StreamName
from apsber_bluesky.devices import FastShutter, FrameDetector, FrameSeries
from apsber_bluesky.plans._scan import Timing, named_failures
from apsber_bluesky.plans._whole_series import collect_until_done, take_whole_series


def check_count(name: str, value: int, least: int = 1) -> int:
    """Refuse what is no number of frames.

    Raises
    ------
    InputError
        If so; it names the argument.
    """
    if type(value) is not int or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number, {least} or more")
    return value


def check_number(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """Refuse a number outside a range.

    Raises
    ------
    InputError
        If so, or it is no number; it names the argument.
    """
    if (
        type(value) is bool
        or not isinstance(value, numbers.Real)
        or not low <= float(value) <= high
    ):
        words = f" {unit}" if unit else ""
        raise InputError(f"{name} is {value!r}; give {low:g} to {high:g}{words}")
    return float(value)


def detector_metadata(
    plan_name: str,
    camera: FrameDetector,
    num_points: int,
    conditions: dict[str, Any],
    sample: str,
    md: dict[str, Any] | None,
) -> dict[str, Any]:
    """Start document of a run of technique ``detector``; what the user gives wins.

    Parameters
    ----------
    plan_name : str
        Name of the plan.
    camera : FrameDetector
        Who takes the frames.
    num_points : int
        Frames of the stream that matters.
    conditions : dict
        What the run is for and how it was taken, under the key ``detector``.
    sample : str
        Name of the sample; empty for none.
    md : dict or None
        The user's.
    """
    metadata: dict[str, Any] = {
        "plan_name": plan_name,
        "technique": "detector",
        "detectors": [camera.name],
        "detectors_metadata": {camera.name: camera.detector_metadata()},
        "num_points": num_points,
        "detector": conditions,
    }
    if sample:
        metadata["sample"] = sample
    return {**metadata, **(md or {})}


@dataclass(slots=True)
class DetectorRun:
    """One run in progress; its series go on after a pause with what is missing."""

    camera: FrameDetector
    shutter: FastShutter
    timing: Timing
    uid: str
    _planned: dict[str, int] = field(default_factory=dict)

    def series(
        self, stream: StreamName, num_frames: int, trigger: Literal["internal", "step"]
    ) -> FrameSeries:
        """Plan a series behind those that were planned before."""
        first, before = self._planned.get(stream, 0), sum(self._planned.values())
        self._planned[stream] = first + num_frames
        return FrameSeries(
            run_uid=self.uid,
            stream=stream,
            num_frames=num_frames,
            exposure_s=self.timing.exposure_s,
            period_s=self.timing.period_s,
            trigger=trigger,
            first_index=first,
            first_number=before,
            retakes=trigger != "step",
        )

    def take(self, stream: StreamName, num_frames: int, *, beam: bool) -> MsgGenerator[None]:
        """Take a series at the camera's own pace, with or without `beam`."""
        camera, shutter = self.camera, self.shutter

        def sweep(part: FrameSeries) -> MsgGenerator[None]:
            yield from bps.prepare(camera, part, wait=True)
            # Also for a part that is taken after a pause, which has closed the shutter.
            yield from bps.mv(shutter, "open" if beam else "close")
            yield from bps.kickoff(camera, wait=True)
            yield from collect_until_done(camera, [camera], stream)
            if beam:
                yield from bps.mv(shutter, "close")

        yield from bps.declare_stream(camera, name=stream, collect=True)
        yield from take_whole_series(camera, self.series(stream, num_frames, "internal"), sweep)


def detector_run(
    camera: FrameDetector,
    shutter: FastShutter,
    timing: Timing,
    metadata: dict[str, Any],
    body: Callable[[DetectorRun], MsgGenerator[None]],
    stops: tuple[Any, ...] = (),
) -> Generator[Msg, Any, str]:
    """One run around `body`.

    Whatever happens, the shutter is closed, camera and `stops` are stopped and the run is closed.

    Returns
    -------
    str
        Bluesky run uid.
    """
    uid: str = yield from bps.open_run(metadata)
    run = DetectorRun(camera, shutter, timing, uid)
    yield from bpp.contingency_wrapper(
        bpp.finalize_wrapper(
            bpp.stage_wrapper(named_failures(body(run)), [camera]),
            lambda: _close_up(shutter, (camera, *stops)),
        ),
        except_plan=_close_failed_run,
        else_plan=bps.close_run,
    )
    return uid


def _close_up(shutter: FastShutter, stops: tuple[Any, ...]) -> MsgGenerator[None]:
    """A device that fails here does not keep the others from being stopped."""
    yield from bpp.finalize_wrapper(
        bps.abs_set(shutter, "close", wait=True), lambda: _stop_all(stops)
    )


def _stop_all(devices: tuple[Any, ...]) -> MsgGenerator[None]:
    if devices:
        yield from bpp.finalize_wrapper(bps.stop(devices[0]), lambda: _stop_all(devices[1:]))


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)
