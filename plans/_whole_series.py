"""Take a series until it is whole, whatever pauses, suspends or disturbs it.

bluesky repeats the messages since the last checkpoint when a plan is resumed. That would fly the
whole scan again, and number frames twice that were announced. So the plan repeats itself here: it
asks which frames are not on disk, and takes those. See docs/explanation/decisions/0013.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Final

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import Msg, MsgGenerator, short_uid

from apsber_bluesky.devices import FrameDetector, FrameSeries

#: How often a frame is tried before it is given up as missing.
MOST_ATTEMPTS: Final = 3

_FLUSH_S: Final = 0.25

Sweep = Callable[[FrameSeries], MsgGenerator[None]]
"""Take some of the places of a series (`FrameSeries.part`), from prepare to the end."""


def take_whole_series(
    detector: FrameDetector,
    series: FrameSeries,
    sweep: Sweep,
    *,
    retake_missing: bool = True,
    gap: int = 0,
    multiple: int = 1,
) -> MsgGenerator[None]:
    """Take a series; frames that a pause, a suspension or a loss leaves out are taken again.

    Parameters
    ----------
    detector : FrameDetector
        Who takes the frames; its stream must have been declared.
    series : FrameSeries
        The series, with a `first_index` and ``retakes=True``.
    sweep : callable
        Takes a part of the series. It is called again for what is missing, and given up wherever a
        pause meets it; it has no cleanup of its own.
    retake_missing : bool
        Whether frames that got lost are taken again, up to `MOST_ATTEMPTS` times in all. What an
        interruption leaves out always is.
    gap : int
        Missing frames with at most so many others between them are taken in one sweep.
    multiple : int
        Frames that are always taken together; those of them that are on disk already stay there.

    Yields
    ------
    Msg
        Messages for the RunEngine.
    """
    first = series.first_index or 0
    attempts = np.zeros(series.num_frames, int)
    most = MOST_ATTEMPTS if retake_missing else 1
    while True:
        # Nothing of what was done is to be repeated by bluesky, from here on.
        yield from bps.checkpoint()
        missing = np.array(detector.missing(series), int)
        wanted = missing[attempts[missing - first] < most]
        if not wanted.size:
            break
        start, count = whole_groups(*next_part(wanted, gap), first, multiple)
        if (yield from until_interrupted(detector, sweep(series.part(start, count)))):
            attempts[start - first : start - first + count] += 1
    if missing.size:
        detector.give_up_missing(series)
        yield from bps.collect(detector, name=series.stream)


def next_part(missing: np.ndarray[Any, np.dtype[np.int_]], gap: int) -> tuple[int, int]:
    """First place and length of the first part of rising numbers with no larger gap than `gap`."""
    breaks = np.flatnonzero(np.diff(missing) > gap + 1)
    last = missing[breaks[0]] if breaks.size else missing[-1]
    return int(missing[0]), int(last - missing[0] + 1)


def whole_groups(start: int, count: int, first: int, size: int) -> tuple[int, int]:
    """Widen a part to whole groups of `size` frames, counted from place `first` of the series."""
    before = (start - first) % size
    return start - before, -(-(count + before) // size) * size


def until_interrupted(
    detector: FrameDetector, plan: MsgGenerator[None]
) -> Generator[Msg, Any, bool]:
    """Do a part of a plan, and leave it where a pause or a suspension interrupts the detector.

    Returns
    -------
    bool
        Whether it was done to its end.
    """
    before, reply = detector.interruptions, None
    detector.plan_retakes = True
    try:
        with contextlib.closing(plan):
            while detector.interruptions == before:
                try:
                    message = plan.send(reply)
                except StopIteration:
                    return True
                reply = yield message
        return False
    finally:
        detector.plan_retakes = False


def collect_until_done(
    detector: FrameDetector, flyers: list[Any], stream: str
) -> MsgGenerator[None]:
    """Announce frames as they come, until every flyer is done.

    A pause that waits for a checkpoint finds one here at any time.
    """
    group = short_uid("complete")
    yield from bps.complete_all(*flyers, group=group, wait=False)
    done = False
    while not done:
        done = yield from bps.wait(group=group, timeout=_FLUSH_S, error_on_timeout=False)
        yield from bps.collect(detector, name=stream)
        yield from bps.checkpoint()
