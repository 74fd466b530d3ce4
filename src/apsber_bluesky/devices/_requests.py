"""What a plan asks of a device with ``bps.prepare``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from apsber_bluesky.core import InputError, StreamName


@dataclass(frozen=True, slots=True)
class CameraSeries:
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
        Exposure time and time between the beginnings of two exposures [s].
    trigger : {"internal", "external", "step"}
        The camera's own clock; one pulse per frame from the rotation stage; or one frame each time
        the plan triggers.
    """

    run_uid: str
    stream: StreamName
    num_frames: int
    exposure_s: float
    period_s: float
    trigger: Literal["internal", "external", "step"] = "internal"


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
