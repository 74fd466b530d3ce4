"""Which projections of a scan that turns on and on are captured."""

from __future__ import annotations

from dataclasses import dataclass, field

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from apsber_bluesky.core import CAPTURE_STREAM, TomographyScan
from apsber_bluesky.devices import CaptureReading, CaptureRequests


@dataclass(slots=True)
class Captures:
    """The captures of one run: asked for, whole, and noted in the run.

    Attributes
    ----------
    scan : TomographyScan
        The scan; its `capture_projections` is the size of each.
    requests : CaptureRequests
        Where captures are asked for.
    before : int
        Projections of a capture that were there when it was asked for.
    most : int or None
        End the scan after so many.
    longest : int
        Projections after which nothing is begun any more.
    """

    scan: TomographyScan
    requests: CaptureRequests
    before: int
    most: int | None
    longest: int
    readings: CaptureReading = field(default_factory=CaptureReading)
    whole: int = 0
    wanted: set[str] = field(default_factory=set)
    _waiting: list[tuple[int, int]] = field(default_factory=list)

    def look(self, taken: int, since: int) -> None:
        """Take in what was asked for, when so many projections are there.

        A capture begins in this stretch of rotation, which began with projection `since`.
        """
        for request in self.requests.take():
            if request != "capture":
                self.wanted.add(request)
            elif not self._is_enough:
                first = max(since, taken - self.before)
                self._waiting.append((first, taken))

    @property
    def _size(self) -> int:
        return self.scan.capture_projections or 1

    @property
    def _is_enough(self) -> bool:
        return self.most is not None and self.whole + len(self._waiting) >= self.most

    def is_over(self, taken: int) -> bool:
        """Whether the scan ends when so many projections are there."""
        if self._waiting and taken < self.scan.num_projections:
            return False
        return "end" in self.wanted or taken >= self.longest or self._is_enough

    def wants_references(self) -> bool:
        """Whether the rotation stops for flats or darks: not within a capture."""
        return not self._waiting and not self.wanted.isdisjoint({"flats", "darks"})

    def note(self, taken: int, *, last: bool = False) -> MsgGenerator[None]:
        """Write down the captures that are whole; with `last` those, too, that will never be."""
        while self._waiting and (taken >= self._waiting[0][0] + self._size or last):
            (first, asked), size, readings = self._waiting[0], self._size, self.readings
            yield from bps.checkpoint()
            yield from bps.mv(
                readings.number, self.whole + 1, readings.first, first,
                readings.end, min(first + size, taken), readings.asked, asked,
                readings.start_deg, self.scan.rotation_start_deg + first * self.scan.step_deg,
            )  # fmt: skip
            yield from bps.checkpoint()
            yield from bps.create(name=CAPTURE_STREAM)
            yield from bps.read(readings)
            yield from bps.save()
            # From here on it is not to be noted again.
            self._waiting.pop(0)
            self.whole += 1
            yield from bps.checkpoint()
        self.requests.tell("turning", self.whole)
