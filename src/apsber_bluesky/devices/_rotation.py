"""A rotation stage that gives one pulse per projection while it turns."""

from __future__ import annotations

from typing import Any, Final

from ophyd import Component as Cpt
from ophyd import Device, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.status import Status, SubscriptionStatus

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._requests import FlyRotation
from apsber_bluesky.devices._status import run_in_thread

#: A period that was worked out from the speed gives the speed back but for this.
_ROUNDING: Final = 1e-9


class PositionOutput(Device):
    """Position-synchronised output: a pulse each time the axis crosses the next angle."""

    start = Cpt(EpicsSignal, "Start", kind="config")
    delta = Cpt(EpicsSignal, "Delta", kind="config")
    num_pulses = Cpt(EpicsSignal, "NumPulses", kind="config")
    arm = Cpt(EpicsSignal, "Arm", kind="omitted")
    armed = Cpt(EpicsSignalRO, "Armed_RBV", kind="omitted")
    pulses = Cpt(EpicsSignalRO, "Pulses_RBV", kind="omitted")


class RotationStage(Device):
    """A rotation stage for step and fly scans.

    It can be moved like a motor, and flown: `prepare` with a `FlyRotation`, `kickoff`, `complete`.
    """

    axis = Cpt(EpicsMotor, "m1", name="", kind="hinted")
    pso = Cpt(PositionOutput, "pso:", kind="config")

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        # In tables and documents the axis is simply the stage.
        self.axis.name = name
        self.axis.user_readback.name = name
        self._fly: FlyRotation | None = None
        self._usual_speed_deg_s: float | None = None

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
        """Stop turning and disarm the pulses."""
        self.pso.arm.put(0)
        self.axis.stop(success=success)

    def unstage(self) -> list[Any]:
        """Disarm the pulses and go back to the usual speed."""
        self.pso.arm.put(0)
        self._restore_speed()
        unstaged: list[Any] = super().unstage()
        return unstaged

    def _restore_speed(self) -> None:
        if self._usual_speed_deg_s is not None:
            self.axis.velocity.put(self._usual_speed_deg_s, wait=True)
            self._usual_speed_deg_s = None

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
        return run_in_thread(lambda: self._prepare(fly), self)

    def _lead_deg(self, fly: FlyRotation) -> float:
        return fly.direction * fly.lead_deg(float(self.axis.acceleration.get()))

    def _end_deg(self, fly: FlyRotation) -> float:
        return fly.start_deg + fly.num_pulses * fly.step_deg + self._lead_deg(fly)

    def shortest_period_s(self, step_deg: float) -> float:
        """Least time between pulses of `step_deg` that the stage's speed allows [s]."""
        return abs(step_deg) / float(self.axis.velocity.get())

    def check(self, fly: FlyRotation) -> None:
        """Refuse a rotation that the stage cannot do.

        Raises
        ------
        InputError
            If it would have to turn too fast or too far.
        """
        fastest = float(self.axis.velocity.get())
        if fly.speed_deg_s > fastest * (1 + _ROUNDING):
            raise InputError(
                f"{self.name} would have to turn at {fly.speed_deg_s:.4g} deg/s, its speed is"
                f" {fastest:.4g} deg/s; take longer exposures or more projections"
            )
        low, high = self.axis.limits
        for angle in (fly.start_deg - self._lead_deg(fly), self._end_deg(fly)):
            if low < high and not low <= angle <= high:
                raise InputError(
                    f"{self.name} would have to turn to {angle:.4g} deg, its limits are"
                    f" {low:.4g} to {high:.4g} deg"
                )

    def _prepare(self, fly: FlyRotation) -> None:
        self._fly = fly
        self.pso.arm.put(0, wait=True)
        self.axis.set(fly.start_deg - self._lead_deg(fly)).wait()
        self._usual_speed_deg_s = float(self.axis.velocity.get())
        self.pso.start.put(fly.start_deg, wait=True)
        self.pso.delta.put(fly.step_deg, wait=True)
        self.pso.num_pulses.put(fly.num_pulses, wait=True)
        self.axis.velocity.put(fly.speed_deg_s, wait=True)
        self.pso.arm.put(1, wait=True)

    def kickoff(self) -> Status:
        """Start turning; finished when the axis moves."""
        fly = self._prepared()
        moving = SubscriptionStatus(
            self.axis.motor_is_moving, lambda *, value, **_: value == 1, run=False, timeout=10
        )
        self._motion = self.axis.set(self._end_deg(fly))
        return moving

    def complete(self) -> Status:
        """Wait until the axis has stopped behind the last pulse."""
        self._prepared()
        return run_in_thread(self._complete, self)

    def _complete(self) -> None:
        self._motion.wait()
        self.pso.arm.put(0, wait=True)
        self._restore_speed()
        self._fly = None

    def _prepared(self) -> FlyRotation:
        if self._fly is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._fly
