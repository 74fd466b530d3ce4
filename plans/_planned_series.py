"""Series follow each other in the streams of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from apsber_bluesky.core import StreamName
from apsber_bluesky.devices import FlyRotation, FrameSeries, Trigger


@dataclass(frozen=True, slots=True)
class Timing:
    """Exposure time and frame period [s]."""

    exposure_s: float
    period_s: float


@dataclass(slots=True)
class PlannedSeries:
    """The series of one run that have been planned; each has its places behind the last."""

    uid: str
    timing: Timing
    _planned: dict[str, int] = field(default_factory=dict)

    def add(
        self, stream: StreamName, num_frames: int, trigger: Trigger, fly: FlyRotation | None = None
    ) -> FrameSeries:
        """Plan a series behind those that were planned before.

        Parameters
        ----------
        stream : {"primary", "flats", "darks"}
            Where its frames go.
        num_frames : int
            How many.
        trigger : str
            What begins an exposure.
        fly : FlyRotation, optional
            The rotation during which they are taken, one step for each.
        """
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
            angle_deg=None if fly is None else fly.start_deg,
            step_deg=None if fly is None else fly.step_deg,
        )

    def curtail(self, stream: StreamName, num_frames: int) -> None:
        """A stream has only so many frames; the next series goes on behind them."""
        self._planned[stream] = num_frames
