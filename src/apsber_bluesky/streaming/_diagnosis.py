"""Say once, and in clear words, what is wrong with a stream of frames."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

logger = logging.getLogger(__name__)

_NUMBER: Final = re.compile(r"\d+(\.\d+)?")
_KINDS: Final = 50
_FEWEST: Final = 4
_MOST_GAPS: Final = 0.9
_LARGEST_STEP_S: Final = 3600.0
_BACKWARD_S: Final = 1.0


class Complaints:
    """Log each kind of fault once in a series, and count the others like it.

    Two faults are of a kind if their texts differ in numbers only: a detector that is set up
    wrongly repeats its fault with each frame.

    Parameters
    ----------
    tell : callable
        Called with each text that is logged, so that it reaches the user.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self._tell = tell
        self._counts: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """Something is wrong."""
        kind = _NUMBER.sub("#", text)
        if kind not in self._counts and len(self._counts) >= _KINDS:
            kind = "other faults"
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            logger.warning("%s", text)
            self._tell(text)

    def end(self) -> None:
        """The series is over: say how often each fault came, and forget them."""
        for kind, count in self._counts.items():
            if count > 1:
                logger.warning("%d times: %s", count, kind)
        self._counts.clear()


class ClockCheck:
    """Notice a detector's clock that jumps; frames are told apart by number, never by time."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def check(self, number: int, timestamp_s: float) -> str | None:
        """What to say of the time of a frame, if anything.

        Parameters
        ----------
        number : int
            Number of the frame in its series.
        timestamp_s : float
            Unix time that the detector gave it [s]; 0 or NaN where it gives none.
        """
        if not math.isfinite(timestamp_s) or timestamp_s <= 0:
            return None
        last, self._last = self._last, (number, timestamp_s)
        if last is None or number <= last[0]:
            return None
        step_s = timestamp_s - last[1]
        if -_BACKWARD_S <= step_s <= _LARGEST_STEP_S:
            return None
        return (
            f"the detector's clock jumped by {step_s:.1f} s before frame {number}; frames are kept"
            " by number, with the times that it gave"
        )


def explain_missing(missing: Sequence[int], num_frames: int) -> str:
    """Why frames of a series may be missing, from which ones are.

    Parameters
    ----------
    missing : sequence of int
        Their numbers, ascending.
    num_frames : int
        Frames of the series.

    Returns
    -------
    str
        A clause for a message, or nothing if there is no pattern.
    """
    count = len(missing)
    if not count:
        return ""
    if count == num_frames:
        return "none came: the source does not send, or to another address"
    if missing[0] == num_frames - count:
        return "the last ones: the source stopped early"
    if step := _stride(missing, num_frames):
        return (
            f"only every {step}. came: another program reads the same port and gets the others, or"
            " the source was told to leave some out"
        )
    if missing[-1] == count - 1:
        return "the first ones: they were sent before the receiver was connected"
    return ""


def _stride(missing: Sequence[int], num_frames: int) -> int:
    """The regular distance of the frames that came; 0 if there is none above 1."""
    lost = set(missing)
    came = [number for number in range(num_frames) if number not in lost]
    gaps = Counter(later - earlier for earlier, later in pairwise(came))
    if len(came) < _FEWEST or not gaps:
        return 0
    (gap, count) = gaps.most_common(1)[0]
    return gap if gap > 1 and count >= _MOST_GAPS * sum(gaps.values()) else 0
