"""What a plan asks of a device with ``bps.prepare``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from apsber_bluesky.core import InputError, StreamName

#: How exposures begin: by the detector's own clock; one pulse per frame; for as long as a gate is
#: open; one pulse for the whole series; or each time the plan triggers.
Trigger = Literal["internal", "external", "gate", "start", "step"]


@dataclass(frozen=True, slots=True)
class FrameSeries:
    """One series of frames.

    Attributes
    ----------
    run_uid : str
        The run that the frames belong to.
    stream : {"primary", "flats", "darks"}
        Bluesky stream the frames go to.
    num_frames : int
        Frames to take.
    exposure_s, period_s : float
        Exposure time and time between the beginnings of two exposures [s]; with ``gate`` the gate
        decides.
    trigger : {"internal", "external", "gate", "start", "step"}
        What begins an exposure; see `Trigger`.
    first_index : int or None
        Place of the first frame in the stream; None for behind the series before. Places that a
        series had before are taken again, where no frame is on disk.
    first_number : int or None
        Frames that the run has before it if nothing is interrupted: the camera counts from there.
    retakes : bool
        Whether the plan comes back for frames that are missing; see `SeriesRequest`.
    angle_deg, step_deg : float or None
        Angle of the first frame, and from frame to frame [deg], if they are taken while an axis
        turns.
    """

    run_uid: str
    stream: StreamName
    num_frames: int
    exposure_s: float
    period_s: float
    trigger: Trigger = "internal"
    first_index: int | None = None
    first_number: int | None = None
    retakes: bool = False
    angle_deg: float | None = None
    step_deg: float | None = None

    def part(self, first: int, num_frames: int) -> FrameSeries:
        """Some of the places of this series, which must have a `first_index`."""
        if self.first_index is None:
            raise InputError(f"a series of {self.stream!r} without a first_index has no parts")
        skipped = first - self.first_index
        number, angle, step = self.first_number, self.angle_deg, self.step_deg
        return replace(
            self,
            first_index=first,
            num_frames=num_frames,
            first_number=None if number is None else number + skipped,
            angle_deg=None if angle is None or step is None else angle + skipped * step,
        )


@dataclass(frozen=True, slots=True)
class FlyRotation:
    """Continuous rotation with one pulse per projection.

    Attributes
    ----------
    start_deg, step_deg : float
        Angle of the first pulse, and between pulses [deg]; the step may be negative.
    num_pulses : int
        Pulses to give.
    period_s : float
        Time between pulses [s].
    """

    start_deg: float
    step_deg: float
    num_pulses: int
    period_s: float

    def part(self, first: int, num_pulses: int) -> FlyRotation:
        """The rotation with only some of its pulses."""
        start_deg = self.start_deg + first * self.step_deg
        return replace(self, start_deg=start_deg, num_pulses=num_pulses)

    @property
    def speed_deg_s(self) -> float:
        """Speed of the axis while pulses are given [deg/s], never negative."""
        return abs(self.step_deg) / self.period_s

    @property
    def direction(self) -> int:
        """Which way the axis turns: 1 or -1."""
        return 1 if self.step_deg > 0 else -1

    def lead_deg(self, acceleration_s: float) -> float:
        """Run-up [deg] in which the axis reaches its speed, with half a step to settle."""
        return 0.5 * self.speed_deg_s * acceleration_s + 0.5 * abs(self.step_deg)

    def __post_init__(self) -> None:
        numbers = (self.start_deg, self.step_deg, self.period_s)
        if (
            self.num_pulses < 1
            or self.step_deg == 0
            or self.period_s <= 0
            or not all(math.isfinite(number) for number in numbers)
        ):
            raise InputError(
                f"cannot rotate with {self.num_pulses} pulses of {self.step_deg} deg every"
                f" {self.period_s} s from {self.start_deg} deg; give at least one pulse, a step"
                " other than zero and a positive period"
            )
