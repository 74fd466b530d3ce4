"""One run of scattering: its devices, its series, and what it will take."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import ScanPrediction
from apsber_bluesky.devices import (
    EigerDetector,
    FastShutter,
    FlyRotation,
    FrameSeries,
    RotationStage,
    SampleAxis,
    Trigger,
)
from apsber_bluesky.plans._detector_run import (
    DetectorRun,
    Flight,
    detector_run,
    one_pulse,
    record,
)
from apsber_bluesky.plans._hit_feedback import enough_hits
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import (
    SERIES_S,
    SHUTTER_S,
    flight_s,
    motion_s,
    place_of,
    point_s,
    predict_series,
    series_s,
)

# The exposure time decides how deep a pixel is; this is as deep as one can be.
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
    stop_after_hits : int or None
        Hits after which no further position is gone to.
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
    stop_after_hits: int | None = None

    def check(self) -> None:
        """Refuse what the detector cannot do."""
        run = DetectorRun(self.detector, self.shutter, self.timing, "")
        self.detector.check(run.series("primary", self.num_frames, self.trigger))

    def predict(self) -> ScanPrediction:
        """What the run will take; pixels count as the largest that the detector has."""
        took_s, places = 0.0, len(self.places_mm)
        if self.axis is not None and self.places_mm[0] is not None:
            here = place_of(self.axis, self.places_mm[0])
            for place_mm in self.places_mm:
                took_s += motion_s(self.axis, (place_mm or 0.0) - here)
                here = place_mm or 0.0
        if self.trigger == "step":
            beam_s = self.num_frames * point_s(self.timing)
        elif self.rotation is not None and self.fly is not None:
            beam_s = flight_s(self.rotation, self.num_frames * self.timing.period_s)
            way_deg = abs(self.fly.step_deg) * self.num_frames
            here_deg = place_of(self.rotation, self.fly.start_deg)
            took_s += motion_s(self.rotation, self.fly.start_deg - here_deg)
            took_s += (places - 1) * motion_s(self.rotation, way_deg)
        else:
            beam_s = self.num_frames * self.timing.period_s
        series_beam_s = places * (beam_s + SHUTTER_S)
        took_s += places * (SERIES_S + SHUTTER_S) + series_beam_s
        if self.num_darks:
            took_s += series_s(self.num_darks, self.timing)
        return predict_series(
            "scattering_series",
            self.detector,
            self.num_frames * places + self.num_darks,
            took_s,
            series_beam_s,
            pixel_bytes=_LARGEST_PIXEL_BYTES,
        )

    # -- messages

    def run(self, metadata: dict[str, Any]) -> Generator[Msg, Any, str]:
        """The run.

        Returns
        -------
        str
            Bluesky run uid.
        """
        return detector_run(
            self.detector,
            self.shutter,
            self.timing,
            metadata,
            self._body,
            stops=(self.rotation, self.axis),
            staged=(self.rotation,),
            retake_missing=self.retake_missing,
        )

    def _body(self, run: DetectorRun) -> MsgGenerator[None]:
        if self.num_darks:
            yield from run.take("darks", self.num_darks, beam=False)
        readables = [] if self.axis is None else [self.axis]
        for place_mm in self.places_mm:
            if self.axis is not None and place_mm is not None:
                yield from bps.mv(self.axis, place_mm)
            series = run.series("primary", self.num_frames, self.trigger, self.fly)
            if self.trigger == "step":
                yield from run.take_points(series, readables)
            else:
                yield from run.take_series(series, beam=True, flight=self._flight(series))
            if self.axis is not None:
                yield from record("positions", self.axis)
            if enough_hits(self.detector, run.uid, self.stop_after_hits):
                break
        if self.detector.driver.counts_drops:
            yield from record("detector_status", self.detector.cam.stream_dropped)

    def _flight(self, series: FrameSeries) -> Flight | None:
        """How the sample turns during a series."""
        rotation, fly, first = self.rotation, self.fly, series.first_index or 0
        if rotation is None or fly is None:
            return None

        def turn(part: FrameSeries) -> FlyRotation:
            here = fly.part((part.first_index or 0) - first, part.num_frames)
            return one_pulse(here) if self.trigger == "start" else here

        return Flight(rotation, turn)
