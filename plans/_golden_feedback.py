"""Stop a scan of many turns as soon as its slices are good enough."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from apsber_bluesky.core import RELATIVE_ERROR, TomographyScan
from apsber_bluesky.devices import Camera, LiveQuality
from apsber_bluesky.plans._live_numbers import wait_for_number

logger = logging.getLogger(__name__)

#: Stream with one event per turn.
STREAM: Final = "convergence"
#: Relative error in it when nobody said.
UNKNOWN: Final = -1.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """Asks after each turn whether another one is needed.

    Attributes
    ----------
    camera : Camera
        Its attribute ``feedback`` is the `ScanFeedback` that the session gave it.
    scan : TomographyScan
        The scan, with all the turns that it may take.
    tolerance : float or None
        Relative error that is good enough; None for all turns.
    patience_s : float
        How long to wait for the number of a turn [s] before the next is taken without it.
    """

    camera: Camera
    scan: TomographyScan
    tolerance: float | None
    patience_s: float
    readings: LiveQuality = field(default_factory=LiveQuality)

    def after(self, run_uid: str, turns: int) -> Generator[Msg, Any, bool]:
        """Note how good the run is after so many turns; whether that is enough.

        Yields
        ------
        Msg
            Messages for the RunEngine.
        """
        done = turns * self.scan.projections_per_turn
        yield from bps.checkpoint()
        metric = None
        if self.tolerance is not None and turns > 1:
            metric = yield from wait_for_number(
                self.camera, run_uid, RELATIVE_ERROR, done, self.patience_s
            )
        value = UNKNOWN if metric is None else metric.value
        enough = self.tolerance is not None and UNKNOWN < value <= self.tolerance
        saved = self.scan.num_projections - done
        readings = self.readings
        yield from bps.mv(
            readings.turns, turns, readings.projections, done,
            readings.relative_error, value, readings.converged, int(enough),
            readings.frames_saved, saved,
        )  # fmt: skip
        yield from bps.checkpoint()
        yield from bps.create(name=STREAM)
        yield from bps.read(readings)
        yield from bps.save()
        yield from bps.checkpoint()
        if enough and saved:
            logger.info(
                "run %s has converged after %d of %d turns (relative error %.3g): %d of %d"
                " projections are saved",
                run_uid, turns, self.scan.interlaced_turns, value, saved,
                self.scan.num_projections,
            )  # fmt: skip
        return enough
