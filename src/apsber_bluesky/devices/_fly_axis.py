"""A linear axis that gives one pulse per pixel of a line while it moves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from ophyd import Component as Cpt
from ophyd import Device
from ophyd import FormattedComponent as FCpt
from ophyd.status import Status

from apsber_bluesky.core import InputError, PlanError
from apsber_bluesky.devices._attempt import Attempt
from apsber_bluesky.devices._pulse_output import PulseGenerator
from apsber_bluesky.devices._safe_state import SafePut
from apsber_bluesky.devices._watched_motor import WatchedMotor

_ROUNDING: Final = 1e-9
#: Longest that what was given up may take to end [s].
_JOIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class FlyLine:
    """Motion along a line with one pulse per pixel.

    Attributes
    ----------
    start_mm, step_mm : float
        Position of the first pulse, and between pulses [mm]; the step may be negative.
    num_pulses : int
        Pulses to give.
    period_s : float
        Time between pulses [s].

    Raises
    ------
    InputError
        If there is no pulse, the step is zero or the period is not positive.
    """

    start_mm: float
    step_mm: float
    num_pulses: int
    period_s: float

    def __post_init__(self) -> None:
        numbers = (self.start_mm, self.step_mm, self.period_s)
        if (
            self.num_pulses < 1
            or self.step_mm == 0
            or self.period_s <= 0
            or not all(math.isfinite(number) for number in numbers)
        ):
            raise InputError(
                f"cannot move with {self.num_pulses} pulses of {self.step_mm} mm every"
                f" {self.period_s} s from {self.start_mm} mm; give at least one pulse, a step"
                " other than zero and a positive period"
            )

    @property
    def speed_mm_s(self) -> float:
        """Speed of the axis while pulses are given [mm/s], never negative."""
        return abs(self.step_mm) / self.period_s

    def part(self, first: int, num_pulses: int) -> FlyLine:
        """The line with only some of its pulses."""
        return replace(self, start_mm=self.start_mm + first * self.step_mm, num_pulses=num_pulses)

    def lead_mm(self, acceleration_s: float) -> float:
        """Run-up [mm], in the direction of the motion, with half a step to settle."""
        lead = 0.5 * self.speed_mm_s * acceleration_s + 0.5 * abs(self.step_mm)
        return math.copysign(lead, self.step_mm)


class FlyAxis(Device):
    """A linear axis with position-synchronised pulses, for step and fly scans.

    It can be moved like a motor, and flown: `prepare` with a `FlyLine`, `kickoff`, `complete`.

    Parameters
    ----------
    prefix : str
        PV of the motor record, e.g. ``"2idd:m14"``.
    name : str
        Name in the documents.
    pulses : str, optional
        PV prefix of the pulse generator; by default that of the motor record and ``:pso:``.
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.
    """

    axis = Cpt(WatchedMotor, "", name="", kind="hinted")
    pulses = FCpt(PulseGenerator, "{_pulses}", kind="config")

    def __init__(self, prefix: str, *, name: str, pulses: str | None = None, **kwargs: Any) -> None:
        self._pulses = f"{prefix}:pso:" if pulses is None else pulses
        super().__init__(prefix, name=name, **kwargs)
        # In tables and documents the axis is simply this device.
        self.axis.name = name
        self.axis.user_readback.name = name
        self._line: FlyLine | None = None
        self._usual_speed_mm_s: float | None = None
        self._attempt = Attempt()
        self._motion: Status | None = None

    @property
    def hints(self) -> dict[str, Any]:
        """What plots and tables show."""
        return {"fields": [self.name]}

    @property
    def position(self) -> float:
        """Position [mm]."""
        return float(self.axis.position)

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest position [mm]."""
        low, high = self.axis.limits
        return float(low), float(high)

    def set(self, position_mm: float) -> Status:
        """Move to a position [mm]."""
        return self.axis.set(position_mm)

    def stop(self, *, success: bool = False) -> None:
        """Stop moving, give no more pulses, and go back to the usual speed."""
        self._attempt.give_up()
        self.axis.stop(success=success)
        self._line = None
        self.pulses.disarm()
        self._restore_speed()

    def pause(self) -> None:
        """Stop what was being done; bluesky calls this when a plan is paused or suspended."""
        self.stop(success=True)

    def resume(self) -> None:
        """Nothing: the plan prepares the axis anew."""

    def safe_puts(self) -> list[SafePut]:
        """Stop, give no more pulses, and go back to the usual speed."""
        speed = (self.axis.velocity.setpoint_pvname, self._fastest_mm_s)
        return [*self.axis.safe_puts(), *self.pulses.safe_puts(), speed]

    def unstage(self) -> list[Any]:
        """Give no more pulses and go back to the usual speed."""
        self._attempt.give_up()
        self.pulses.disarm()
        self._restore_speed()
        unstaged: list[Any] = super().unstage()
        return unstaged

    def _restore_speed(self) -> None:
        if self._usual_speed_mm_s is not None:
            self.axis.velocity.put(self._usual_speed_mm_s, wait=True)
            self._usual_speed_mm_s = None

    @property
    def _fastest_mm_s(self) -> float:
        usual = self._usual_speed_mm_s
        return float(self.axis.velocity.get()) if usual is None else usual

    def shortest_period_s(self, step_mm: float) -> float:
        """Least time between pulses of `step_mm` that the axis' speed allows [s]."""
        return abs(step_mm) / self._fastest_mm_s

    def check(self, line: FlyLine) -> None:
        """Refuse a line that the axis cannot follow.

        Raises
        ------
        InputError
            If it would have to move too fast or too far.
        """
        fastest = self._fastest_mm_s
        if line.speed_mm_s > fastest * (1 + _ROUNDING):
            raise InputError(
                f"{self.name} would have to move at {line.speed_mm_s:.4g} mm/s, its speed is"
                f" {fastest:.4g} mm/s; take longer exposures or smaller steps"
            )
        self.pulses.check(line.step_mm, line.num_pulses)
        low, high = self.limits
        for position in (self._begin_mm(line), self._end_mm(line)):
            if low < high and not low <= position <= high:
                raise InputError(
                    f"{self.name} would have to move to {position:.4g} mm with its run-up, its"
                    f" limits are {low:.4g} to {high:.4g} mm"
                )

    def _lead_mm(self, line: FlyLine) -> float:
        return line.lead_mm(float(self.axis.acceleration.get()))

    def _begin_mm(self, line: FlyLine) -> float:
        return line.start_mm - self._lead_mm(line)

    def _end_mm(self, line: FlyLine) -> float:
        return line.start_mm + line.num_pulses * line.step_mm + self._lead_mm(line)

    def prepare(self, line: FlyLine) -> Status:
        """Move to the run-up and arm the pulses.

        Parameters
        ----------
        line : FlyLine
            How to move.

        Returns
        -------
        Status
            Finished when `kickoff` may be called.

        Raises
        ------
        InputError
            If the axis cannot move so fast or so far.
        """
        self.check(line)
        before, self._attempt = self._attempt, Attempt()
        before.give_up()
        attempt = self._attempt
        return attempt.run(lambda: self._prepare(line, attempt, before), self)

    def _prepare(self, line: FlyLine, attempt: Attempt, before: Attempt) -> None:
        if not before.join(_JOIN_S):
            raise PlanError(f"{self.name} has not given up what it did before; see its IOC")
        attempt.step(self.pulses.disarm)
        attempt.step(self._restore_speed)
        attempt.wait(attempt.step(lambda: self.axis.set(self._begin_mm(line))))
        attempt.step(lambda: self.pulses.arm_pulses(line.start_mm, line.step_mm, line.num_pulses))
        attempt.step(lambda: self._slow_down(line))
        self._line = line

    def _slow_down(self, line: FlyLine) -> None:
        self._usual_speed_mm_s = float(self.axis.velocity.get())
        self.axis.velocity.put(line.speed_mm_s, wait=True)

    def kickoff(self) -> Status:
        """Start moving; the axis is then on its run-up."""
        line, attempt = self._prepared(), self._attempt
        end_mm = self._end_mm(line)
        self._motion = attempt.step(lambda: self.axis.set(end_mm))
        return attempt.run(lambda: None, self)

    def complete(self) -> Status:
        """Wait until the axis has stopped behind the last pulse."""
        self._prepared()
        attempt = self._attempt
        return attempt.run(lambda: self._complete(attempt), self)

    def _complete(self, attempt: Attempt) -> None:
        if self._motion is None:
            raise InputError(f"{self.name} was not started; call bps.kickoff first")
        attempt.wait(self._motion)
        attempt.step(self.pulses.disarm)
        attempt.step(self._restore_speed)
        self._line = self._motion = None

    def _prepared(self) -> FlyLine:
        if self._line is None or self._attempt.is_given_up:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._line
