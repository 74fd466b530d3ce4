"""Position-synchronised output: a pulse each time the axis passes the next position."""

from __future__ import annotations

from dataclasses import dataclass

from apsber_bluesky.simulation._trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Pulse:
    """One trigger pulse.

    Attributes
    ----------
    index : int
        Number of the pulse since arming, from 0.
    time_s : float
        When the axis was there [s], on the clock of the trajectory.
    position : float
        Where, exactly: what the latched encoder says.
    """

    index: int
    time_s: float
    position: float


class PulseTrain:
    """The pulses that one arming allows: at ``start + i * delta``, in the direction of `delta`.

    Parameters
    ----------
    start, delta : float
        First position and distance between pulses [EGU]; `delta` is not 0.
    count : int
        Number of pulses.
    """

    def __init__(self, start: float, delta: float, count: int) -> None:
        self._start, self._delta, self._count = start, delta, count
        self.fired = 0

    @property
    def finished(self) -> bool:
        """Whether all pulses have been given."""
        return self.fired >= self._count

    def advance(self, path: Trajectory, since_s: float, until_s: float) -> list[Pulse]:
        """Pulses of a stretch of time; each position counts once, in order.

        The times come from the motion itself, so a caller who asks late loses nothing.
        """
        pulses: list[Pulse] = []
        while not self.finished:
            position = self._start + self.fired * self._delta
            time_s = path.arrival(position, direction=self._delta, since_s=since_s, until_s=until_s)
            if time_s is None:
                break
            pulses.append(Pulse(self.fired, time_s, position))
            self.fired += 1
            since_s = time_s
        return pulses
