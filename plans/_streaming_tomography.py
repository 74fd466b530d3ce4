"""Tomography of a sample that turns on and on, captured when somebody asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator, short_uid

from apsber_bluesky.core import InputError, ScanPrediction, TomographyScan, submit_prediction
from apsber_bluesky.devices import (
    Camera,
    CaptureRequests,
    FastShutter,
    FlyRotation,
    FrameSeries,
    RotationStage,
    SampleAxis,
)
from apsber_bluesky.plans._checks import check_count, check_number
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import predict_tomography
from apsber_bluesky.plans._scan import (
    Instrument,
    References,
    ScanRun,
    check_references,
    check_timing,
    describe_scan,
    start_metadata,
    tomography_run,
)
from apsber_bluesky.plans._streaming_captures import Captures
from apsber_bluesky.plans._whole_series import until_interrupted

_LONGEST_S: Final = 7 * 24 * 3600.0
_POLL_S: Final = 0.1
_HALF_TURN_DEG: Final = 180.0


def streaming_tomography(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_x: SampleAxis,
    capture_requests: CaptureRequests,
    *,
    projections_per_half_turn: int = 180,
    capture_projections: int | None = None,
    projections_before: int = 0,
    longest_s: float = 60.0,
    most_captures: int | None = None,
    exposure_s: float = 0.02,
    frame_period_s: float | None = None,
    rotation_start_deg: float = 0.0,
    num_darks: int = 10,
    num_flats: int = 10,
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Watch a sample that turns on and on, and capture it when somebody asks for it.

    The stage turns without stopping, and slices of the last half turn are shown all the while.
    Anybody may write to `capture_requests`, from another program, too: a capture is made of the
    projections from `projections_before` the request on. It is one event of stream ``captures``,
    and becomes a volume. Flats and darks can be asked for; the stage stops for them, and goes on.

    All projections are kept, in stream ``primary`` of one run. A pause ends the motion; the scan
    goes on where the sample had got to, and a capture that was under way is completed then.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage that turns the sample and triggers the camera; its limits must allow all turns.
    shutter : FastShutter
        Shutter, closed for darks and after the scan.
    sample_x : SampleAxis
        Axis that moves the sample out of the beam for flats.
    capture_requests : CaptureRequests
        Where captures, flats, darks and the end of the scan are asked for.
    projections_per_half_turn : int
        Projections in 180 degrees.
    capture_projections : int, optional
        Projections of a capture; those of half a turn when not given.
    projections_before : int
        How many of them are from before the request.
    longest_s : float
        Time after which the scan ends by itself [s].
    most_captures : int, optional
        Captures after which the scan ends by itself.
    exposure_s : float
        Exposure time of each frame [s].
    frame_period_s : float, optional
        Time from one exposure to the next [s]; as short as camera and stage allow when not given.
    rotation_start_deg : float
        Angle of the first projection [deg].
    num_darks : int
        Darks per series.
    num_flats : int
        Flats per series, 1 or more.
    sample_in_mm : float
        Position of `sample_x` with the sample in the beam [mm].
    sample_out_mm : float
        Position of `sample_x` with the sample out of the beam [mm].
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
        If an argument is wrong, or the stage, disk or memory would not suffice for the longest
        time; before anything moves.
    """
    check_count("projections_per_half_turn", projections_per_half_turn)
    size = check_count(
        "capture_projections",
        projections_per_half_turn if capture_projections is None else capture_projections,
    )
    check_number("longest_s", longest_s, 0.0, _LONGEST_S, "s")
    if check_count("projections_before", projections_before, 0) > size:
        raise InputError(
            f"projections_before is {projections_before}, but a capture has {size} projections"
        )
    if most_captures is not None:
        check_count("most_captures", most_captures)
    check_count("num_flats", num_flats)
    instrument = Instrument(camera, rotation, shutter, sample_x)
    references = check_references(
        References(num_darks, num_flats, "start", "start", sample_in_mm, sample_out_mm)
    )
    step_deg = _HALF_TURN_DEG / projections_per_half_turn
    timing = check_timing(exposure_s, frame_period_s)
    if frame_period_s is None:
        shortest = rotation.shortest_period_s(step_deg)
        timing = Timing(timing.exposure_s, max(timing.period_s, shortest))
    longest = max(1, int(longest_s / timing.period_s))
    # One that is asked for at the last moment is completed.
    most = longest + size
    scan = describe_scan(
        instrument,
        timing,
        references,
        rotation_start_deg=rotation_start_deg,
        rotation_stop_deg=rotation_start_deg + most * step_deg,
        num_projections=most,
    ).model_copy(update={"capture_projections": size})
    streaming = _Streaming(
        scan, timing, Captures(scan, capture_requests, projections_before, most_captures, longest)
    )
    rotation.check(streaming.fly_from(0))
    submit_prediction(_predict(instrument, timing, references, scan, streaming.fly_from(0)))
    metadata = start_metadata("streaming_tomography", instrument, scan, references, sample, md)
    return (
        yield from tomography_run(
            instrument, timing, references, metadata, streaming.run, retake_missing=False
        )
    )


@dataclasses.dataclass(slots=True)
class _Streaming:
    """The scan as it goes on: stretches of rotation, with references between them."""

    scan: TomographyScan
    timing: Timing
    captures: Captures
    taken: int = 0

    def fly_from(self, first: int) -> FlyRotation:
        """The rotation from some projection on."""
        scan = self.scan
        return FlyRotation(
            start_deg=scan.rotation_start_deg + first * scan.step_deg,
            step_deg=scan.step_deg,
            num_pulses=scan.num_projections - first,
            period_s=self.timing.period_s,
        )

    def run(self, run: ScanRun) -> MsgGenerator[None]:
        """The whole scan, from the first darks on."""
        instrument, captures = run.instrument, self.captures
        captures.requests.begin()
        captures.requests.tell("references", 0)
        yield from bps.mv(instrument.sample_x, run.references.sample_in_mm)
        yield from run.references_at("start")
        yield from bps.declare_stream(instrument.camera, name="primary", collect=True)
        while not captures.is_over(self.taken):
            yield from self._stretch(run)
            yield from self._references(run)
        yield from captures.note(self.taken, last=True)
        captures.requests.tell("over", captures.whole)

    def _references(self, run: ScanRun) -> MsgGenerator[None]:
        captures = self.captures
        if captures.wants_references():
            captures.requests.tell("references", captures.whole)
            wanted = captures.wanted & {"flats", "darks"}
            if "darks" in wanted and run.references.num_darks:
                yield from run.darks()
            if "flats" in wanted:
                yield from run.flats()
            captures.wanted -= wanted

    def _stretch(self, run: ScanRun) -> MsgGenerator[None]:
        """Turn until something else is to be done, or a pause ends it."""
        camera, fly = run.instrument.camera, self.fly_from(self.taken)
        # What is lost is lost: the sample is another one by the time the stage is there again.
        series = dataclasses.replace(
            run.series("primary", fly.num_pulses, "external", fly), retakes=False
        )
        yield from bps.checkpoint()
        yield from until_interrupted(camera, self._turn(run, series, fly))
        self.taken = camera.curtail(series)
        run.curtailed("primary", self.taken)
        yield from bps.collect(camera, name="primary")
        yield from self.captures.note(self.taken)

    def _turn(self, run: ScanRun, series: FrameSeries, fly: FlyRotation) -> MsgGenerator[None]:
        instrument, captures = run.instrument, self.captures
        camera, rotation = instrument.camera, instrument.rotation
        group = short_uid("prepare")
        yield from bps.prepare(rotation, fly, group=group)
        yield from bps.prepare(camera, series, group=group)
        yield from bps.wait(group=group)
        yield from bps.mv(instrument.shutter, "open")
        yield from bps.kickoff(camera, wait=True)
        yield from bps.kickoff(rotation, wait=True)
        group = short_uid("complete")
        yield from bps.complete_all(camera, rotation, group=group, wait=False)
        done = False
        while not done:
            done = yield from bps.wait(group=group, timeout=_POLL_S, error_on_timeout=False)
            taken = camera.get_index()
            captures.look(taken, self.taken)
            yield from bps.collect(camera, name="primary")
            yield from bps.checkpoint()
            yield from captures.note(taken)
            if captures.is_over(taken) or captures.wants_references():
                break
        yield from bps.mv(instrument.shutter, "close")
        yield from bps.stop(rotation)
        yield from bps.stop(camera)
        yield from bps.wait(group=group)


def _predict(
    instrument: Instrument,
    timing: Timing,
    references: References,
    scan: TomographyScan,
    fly: FlyRotation,
) -> ScanPrediction:
    """What the scan takes at most; memory and results are those of a capture."""
    size = scan.capture_projections or scan.num_projections
    whole, capture = (
        predict_tomography(
            "streaming_tomography", instrument, timing, references, own, fly=fly,
            return_rotation=False,
        )
        for own in (scan, scan.capture(0, size))
    )  # fmt: skip
    return dataclasses.replace(whole, memory_bytes=capture.memory_bytes)
