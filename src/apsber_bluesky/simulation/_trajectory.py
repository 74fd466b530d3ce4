"""The motion of one axis as a closed formula of time: no control loop, nothing to be late."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class _Segment:
    """Constant acceleration from `start_s` on, for `duration_s`."""

    start_s: float
    position: float
    velocity: float
    acceleration: float
    duration_s: float

    def position_after(self, seconds: float) -> float:
        return self.position + (self.velocity + self.acceleration * seconds / 2) * seconds

    def velocity_after(self, seconds: float) -> float:
        return self.velocity + self.acceleration * seconds

    def arrivals(self, position: float) -> Iterator[float]:
        """Times after the start of the segment at which the axis is at `position`, in order."""
        distance = position - self.position
        if self.acceleration == 0.0:
            if self.velocity != 0.0:
                yield distance / self.velocity
            elif distance == 0.0:
                yield 0.0
            return
        squared = self.velocity**2 + 2 * self.acceleration * distance
        # At a turning point rounding may leave the square a little below zero.
        scale = self.velocity**2 + abs(2 * self.acceleration * distance)
        if squared < -1e-9 * scale:
            return
        root = math.sqrt(max(squared, 0.0))
        times = (
            (root - self.velocity) / self.acceleration,
            (-root - self.velocity) / self.acceleration,
        )
        yield from sorted(times)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Where an axis is at any time; positions [EGU], times [s].

    Attributes
    ----------
    segments : tuple
        Parts of constant acceleration, one after another.
    end_position : float
        Where the axis comes to rest, exactly.
    end_s : float
        When.
    """

    segments: tuple[_Segment, ...]
    end_position: float
    end_s: float

    @classmethod
    def at_rest(cls, position: float, at_s: float) -> Self:
        """An axis that stands."""
        return cls((), position, at_s)

    def position(self, at_s: float) -> float:
        """Position at a time; before the motion, where it began."""
        if at_s >= self.end_s or not self.segments:
            return self.end_position
        segment = self._segment(at_s)
        return segment.position_after(max(at_s - segment.start_s, 0.0))

    def velocity(self, at_s: float) -> float:
        """Velocity at a time; before the motion, that with which it began."""
        if at_s >= self.end_s or not self.segments:
            return 0.0
        segment = self._segment(at_s)
        return segment.velocity_after(max(at_s - segment.start_s, 0.0))

    def _segment(self, at_s: float) -> _Segment:
        return next((s for s in reversed(self.segments) if s.start_s <= at_s), self.segments[0])

    def move(self, at_s: float, target: float, *, velocity: float, acceleration: float) -> Self:
        """Turn to a new target at a time; the speed is continuous.

        Parameters
        ----------
        at_s : float
            When the order arrives [s].
        target : float
            Where to come to rest.
        velocity, acceleration : float
            Cruise speed and acceleration, both positive.

        Returns
        -------
        Trajectory
            The motion from now on: a trapezoid, after braking first if the axis moves the wrong
            way or too fast to stop in time.
        """
        path = _Path(at_s, self.position(at_s), self.velocity(at_s), acceleration)
        distance = target - path.position
        stopping = path.velocity * abs(path.velocity) / (2 * acceleration)
        if path.velocity * distance < 0 or abs(stopping) > abs(distance):
            path.reach(0.0)
        path.cruise(target, velocity)
        return type(self)(tuple(path.segments), target, path.time_s)

    def stop(self, at_s: float, *, acceleration: float) -> Self:
        """Brake to a stand from a time on."""
        path = _Path(at_s, self.position(at_s), self.velocity(at_s), acceleration)
        path.reach(0.0)
        return type(self)(tuple(path.segments), path.position, path.time_s)

    def arrival(
        self, position: float, *, direction: float, since_s: float, until_s: float
    ) -> float | None:
        """First time in an interval at which the axis reaches a position in one direction.

        Parameters
        ----------
        position : float
            Where.
        direction : float
            Its sign says which way the axis has to move.
        since_s, until_s : float
            The interval, ends included [s].

        Returns
        -------
        float or None
            The time [s], or None.
        """
        slack = 1e-9
        for segment in self.segments:
            first = max(since_s - segment.start_s, 0.0)
            last = min(until_s - segment.start_s, segment.duration_s)
            middle = segment.velocity_after((first + last) / 2)
            if last < first or middle * direction <= 0:
                continue
            for seconds in segment.arrivals(position):
                forward = segment.velocity_after(seconds) * direction >= -slack
                if forward and first - slack <= seconds <= last + slack:
                    return segment.start_s + min(max(seconds, first), last)
        return None


class _Path:
    """Builds the segments of a motion one after another."""

    def __init__(self, at_s: float, position: float, velocity: float, acceleration: float) -> None:
        self.time_s, self.position, self.velocity = at_s, position, velocity
        self.acceleration = acceleration
        self.segments: list[_Segment] = []

    def _add(self, acceleration: float, duration_s: float) -> None:
        if duration_s <= 0.0:
            return
        part = _Segment(self.time_s, self.position, self.velocity, acceleration, duration_s)
        self.segments.append(part)
        self.time_s += duration_s
        self.position = part.position_after(duration_s)
        self.velocity = part.velocity_after(duration_s)

    def reach(self, velocity: float) -> None:
        """Change to a velocity."""
        change = velocity - self.velocity
        self._add(math.copysign(self.acceleration, change), abs(change) / self.acceleration)
        self.velocity = velocity

    def cruise(self, target: float, velocity: float) -> None:
        """Go to the target and stop there; the axis stands or already moves that way."""
        distance = target - self.position
        way = math.copysign(1.0, distance)
        speed = abs(self.velocity)
        # Top speed of the triangle that speeds up from `speed` and stops after `distance`.
        highest = math.sqrt(self.acceleration * abs(distance) + speed**2 / 2)
        top = min(velocity, highest)
        self.reach(way * top)
        remaining = abs(target - self.position) - top**2 / (2 * self.acceleration)
        if top > 0.0:
            self._add(0.0, remaining / top)
        self.reach(0.0)
