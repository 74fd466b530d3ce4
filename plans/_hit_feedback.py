"""End a run as soon as it has enough frames with Bragg peaks."""

from __future__ import annotations

import logging

from apsber_bluesky.core import HITS
from apsber_bluesky.devices import FrameDetector
from apsber_bluesky.plans._live_numbers import feedback_of

logger = logging.getLogger(__name__)


def enough_hits(detector: FrameDetector, run_uid: str, wanted: int | None) -> bool:
    """Whether processing has found as many hits in the run as are wanted; never for None.

    Nobody waits for it: what it has not looked at yet does not count, and the run goes on.
    """
    if wanted is None:
        return False
    feedback = feedback_of(detector)
    found = None if feedback is None else feedback.latest(run_uid, HITS)
    if found is None or found.value < wanted:
        return False
    logger.info("run %s has %d hits in %d frames", run_uid, found.value, found.projections)
    return True
