"""What processing says of a run while a plan takes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import SATURATED_PIXELS, LiveMetric, PlanError, ScanFeedback
from apsber_bluesky.devices import Camera, FrameDetector

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.05
#: How long a plan waits to hear of its flats [s].
_PATIENCE_S: Final = 10.0


def feedback_of(detector: FrameDetector) -> ScanFeedback | None:
    """What the session gave the detector to ask processing with; None, and a warning, without."""
    feedback = getattr(detector, "feedback", None)
    if isinstance(feedback, ScanFeedback):
        return feedback
    logger.warning("%s has no feedback from processing", detector.name)
    return None


def wait_for_number(
    camera: Camera, run_uid: str, name: str, projections: int, patience_s: float
) -> Generator[Msg, Any, LiveMetric | None]:
    """Wait until processing says a quality number that so many projections went into.

    Parameters
    ----------
    camera : Camera
        Its attribute ``feedback`` is the `ScanFeedback` that the session gave it.
    run_uid : str
        The run.
    name : str
        The number.
    projections : int
        Projections that must have gone into it at least.
    patience_s : float
        How long to wait [s]; then the plan goes on without.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    LiveMetric or None
        The number, if there is one.
    """
    feedback = feedback_of(camera)
    if feedback is None:
        return None
    deadline = time.monotonic() + patience_s
    while True:
        metric = feedback.latest(run_uid, name)
        if metric is not None and metric.projections >= projections:
            return metric
        if time.monotonic() > deadline:
            logger.warning(
                "processing did not say within %g s how good run %s is; the scan goes on",
                patience_s, run_uid,
            )  # fmt: skip
            return None
        yield from bps.sleep(_POLL_S)


def stop_if_saturated(camera: Camera, run_uid: str, most: float) -> MsgGenerator[None]:
    """End the run if more than a part of the pixels of its flats are saturated.

    Raises
    ------
    PlanError
        If so.
    """
    metric = yield from wait_for_number(camera, run_uid, SATURATED_PIXELS, 0, _PATIENCE_S)
    if metric is not None and metric.value > most:
        raise PlanError(
            f"{metric.value:.2%} of the pixels of the flats are saturated, more than"
            f" most_saturated={most:g}; shorten the exposure or add a filter"
        )
