"""A rotation stage that gives one pulse per projection while it turns."""

from __future__ import annotations

import threading
from typing import Any, Final

from ophyd import Component as Cpt
from ophyd import Device
from ophyd.status import Status

from apsber_bluesky.core import InputError, PlanError
from apsber_bluesky.devices._attempt import Attempt
from apsber_bluesky.devices._pulse_output import PulseGenerator
from apsber_bluesky.devices._requests import FlyRotation
from apsber_bluesky.devices._safe_state import SafePut, puts_of
from apsber_bluesky.devices._watched_motor import WatchedMotor

#: A period that was worked out from the speed gives the speed back but for this.
_ROUNDING: Final = 1e-9
_JOIN_S: Final = 20.0


class RotationStage(Device):
    """A rotation stage for step and fly scans.

    It can be moved like a motor, and flown: `prepare` with a `FlyRotation`, `kickoff`, `complete`.
    A fly that is interrupted by a pause is prepared anew, from another angle, by the plan.

    A stage whose pulses come from elsewhere is a subclass with another `PulseSource` as ``pso``.
    """

    axis = Cpt(WatchedMotor, "m1", name="", kind="hinted")
    pso = Cpt(PulseGenerator, "pso:", kind="config")

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        # In tables and documents the axis is simply the stage.
        self.axis.name = name
        self.axis.user_readback.name = name
        self._fly: FlyRotation | None = None
        self._usual_speed_deg_s: float | None = None
        self._attempt = Attempt()
        self._motion: Status | None = None

    @property
    def hints(self) -> dict[str, Any]:
        """What plots and tables show."""
        return {"fields": [self.name]}

    @property
    def position(self) -> float:
        """Angle [deg]."""
        return float(self.axis.position)

    def set(self, angle_deg: float) -> Status:
        """Move to an angle [deg]."""
        return self.axis.set(angle_deg)

    def stop(self, *, success: bool = False) -> None:
        """Stop turning, give no more pulses, and go back to the usual speed."""
        self._attempt.give_up()
        self.axis.stop(success=success)
        self._fly = None
        self.pso.disarm()
        self._restore_speed()

    def pause(self) -> None:
        """Stop what was being done; bluesky calls this when a plan is paused or suspended."""
        self.stop(success=True)

    def resume(self) -> None:
        """Nothing: the plan prepares the stage anew."""

    def safe_puts(self) -> list[SafePut]:
        """Stop, give no more pulses, and go back to the usual speed."""
        speed = (self.axis.velocity.setpoint_pvname, self._fastest_deg_s)
        return [*self.axis.safe_puts(), *puts_of(self.pso), speed]

    def unstage(self) -> list[Any]:
        """Give no more pulses and go back to the usual speed."""
        self._attempt.give_up()
        self.pso.disarm()
        self._restore_speed()
        unstaged: list[Any] = super().unstage()
        return unstaged

    def _restore_speed(self) -> None:
        if self._usual_speed_deg_s is not None:
            self.axis.velocity.put(self._usual_speed_deg_s, wait=True)
            self._usual_speed_deg_s = None

    @property
    def _fastest_deg_s(self) -> float:
        """Speed of the stage when it does not fly."""
        usual = self._usual_speed_deg_s
        return float(self.axis.velocity.get()) if usual is None else usual

    def prepare(self, fly: FlyRotation) -> Status:
        """Move to the run-up and arm the pulses.

        Parameters
        ----------
        fly : FlyRotation
            How to turn.

        Returns
        -------
        Status
            Finished when `kickoff` may be called.

        Raises
        ------
        InputError
            If the stage cannot turn so fast or so far.
        """
        self.check(fly)
        before, self._attempt = self._attempt, Attempt()
        before.give_up()
        attempt = self._attempt
        return attempt.run(lambda: self._prepare(fly, attempt, before), self)

    def _lead_deg(self, fly: FlyRotation) -> float:
        return fly.direction * fly.lead_deg(float(self.axis.acceleration.get()))

    def _end_deg(self, fly: FlyRotation) -> float:
        return fly.start_deg + fly.num_pulses * fly.step_deg + self._lead_deg(fly)

    def shortest_period_s(self, step_deg: float) -> float:
        """Least time between pulses of `step_deg` that the stage's speed allows [s]."""
        return abs(step_deg) / self._fastest_deg_s

    def check(self, fly: FlyRotation) -> None:
        """Refuse a rotation that the stage cannot do.

        Raises
        ------
        InputError
            If it would have to turn too fast or too far.
        """
        fastest = self._fastest_deg_s
        if fly.speed_deg_s > fastest * (1 + _ROUNDING):
            raise InputError(
                f"{self.name} would have to turn at {fly.speed_deg_s:.4g} deg/s, its speed is"
                f" {fastest:.4g} deg/s; take longer exposures or more projections"
            )
        self.pso.check(fly.step_deg, fly.num_pulses)
        low, high = self.axis.limits
        for angle in (fly.start_deg - self._lead_deg(fly), self._end_deg(fly)):
            if low < high and not low <= angle <= high:
                raise InputError(
                    f"{self.name} would have to turn to {angle:.4g} deg, its limits are"
                    f" {low:.4g} to {high:.4g} deg"
                )

    def _prepare(self, fly: FlyRotation, attempt: Attempt, before: Attempt) -> None:
        if not before.join(_JOIN_S):
            raise PlanError(f"{self.name} has not given up what it did before; see its IOC")
        attempt.step(self.pso.disarm)
        attempt.step(self._restore_speed)
        run_up_deg = fly.start_deg - self._lead_deg(fly)
        if self.pso.arms_at_start:
            self._turn_to(fly.start_deg, attempt)
            attempt.step(lambda: self._arm(fly))
            self._turn_to(run_up_deg, attempt)
        else:
            self._turn_to(run_up_deg, attempt)
            attempt.step(lambda: self._arm(fly))
        attempt.step(lambda: self._slow_down(fly))
        self._fly = fly

    def _turn_to(self, angle_deg: float, attempt: Attempt) -> None:
        attempt.wait(attempt.step(lambda: self.axis.set(angle_deg)))

    def _arm(self, fly: FlyRotation) -> None:
        self.pso.arm_pulses(fly.start_deg, fly.step_deg, fly.num_pulses)

    def _slow_down(self, fly: FlyRotation) -> None:
        self._usual_speed_deg_s = float(self.axis.velocity.get())
        self.axis.velocity.put(fly.speed_deg_s, wait=True)

    def kickoff(self) -> Status:
        """Start turning; finished when the axis moves."""
        fly, attempt = self._prepared(), self._attempt
        self._motion = motion = attempt.step(lambda: self.axis.set(self._end_deg(fly)))
        return attempt.run(lambda: self._await_start(motion, attempt), self)

    def _await_start(self, motion: Status, attempt: Attempt) -> None:
        moves = threading.Event()

        def note(*, value: Any, **_: Any) -> None:
            if value:
                moves.set()

        self.axis.motor_is_moving.subscribe(note, run=True)
        try:
            # Whatever ends the motion, such as a stall, wakes this up, too.
            motion.add_callback(lambda _: moves.set())
            moves.wait()
        finally:
            self.axis.motor_is_moving.clear_sub(note)
        if motion.done:
            attempt.wait(motion)

    def complete(self) -> Status:
        """Wait until the axis has stopped behind the last pulse."""
        self._prepared()
        attempt = self._attempt
        return attempt.run(lambda: self._complete(attempt), self)

    def _complete(self, attempt: Attempt) -> None:
        if self._motion is None:
            raise InputError(f"{self.name} was not started; call bps.kickoff first")
        attempt.wait(self._motion)
        attempt.step(self.pso.disarm)
        attempt.step(self._restore_speed)
        self._fly = self._motion = None

    def _prepared(self) -> FlyRotation:
        if self._fly is None or self._attempt.is_given_up:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._fly
