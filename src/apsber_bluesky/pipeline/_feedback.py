"""How good the slices of a run would be by now, told while its frames come."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    RELATIVE_ERROR,
    InputError,
    LiveMetric,
    ProcessingSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline._live_frame import provisional_centre
from apsber_bluesky.processing import reconstruct

logger = logging.getLogger(__name__)

#: Event that tells a `LiveMetric`.
FEEDBACK = "feedback"
#: Rows of the detector whose slices are looked at; more make the number steadier, and slower.
_ROWS = 4


def half_set_error(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float = 0.5
) -> float:
    """Relative error of a picture that two independent pictures of the same are averaged to.

    What the two have in common is signal, what they differ by is noise, and so are the streaks of
    too few angles, if the angles are not the same: J. Frank and L. Al-Ali, Nature 256 (1975)
    376-379. What is wrong in both alike, as a wrong rotation centre is, is not in it.

    Parameters
    ----------
    first, second : ndarray
        The two pictures, of one shape.
    share : float
        Part of the data that `first` is made of, between 0 and 1; the mean is weighted by it.

    Returns
    -------
    float
        Expected root mean square error of the weighted mean, as a part of its root mean square;
        infinite if that is 0.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    mean = np.sqrt(np.mean((share * a + (1 - share) * b) ** 2))
    # Noise of the two is as 1/share to 1/(1 - share), that of their mean as 1.
    error = np.sqrt(np.mean((a - b) ** 2) * share * (1 - share))
    return float(error / mean) if mean > 0 else float("inf")


class HalfSetError:
    """Works out `half_set_error` of an interlaced scan whenever another turn of it is there.

    Slices made of the even turns are compared with slices made of the odd ones: the angles of both
    are spread evenly, and none is in both.

    Parameters
    ----------
    scan : TomographyScan
        The scan; ``interlaced_turns`` is 2 or more.
    sinograms : ndarray of float32
        Line integrals of central rows, shape ``(num_projections, rows, columns)``; filled by the
        owner before `add` is called.
    settings : ProcessingSettings
        Engine, filter, and the rotation centre; where that is ``"auto"`` the middle of the frame
        will do, since both halves have it.
    tell : callable
        Given each number.
    """

    def __init__(
        self,
        scan: TomographyScan,
        sinograms: NDArray[np.float32],
        settings: ProcessingSettings,
        tell: Callable[[LiveMetric], None],
    ) -> None:
        self._scan, self._settings, self._tell = scan, settings, tell
        first = max(0, (sinograms.shape[1] - _ROWS) // 2)
        self._sinograms = sinograms[:, first : first + _ROWS]
        self._angles = scan.angles_deg
        self._centre, _ = provisional_centre(scan, settings.centre, None)
        self._there = np.zeros(scan.num_projections, np.bool_)
        self._measured = 0

    def add(self, numbers: list[int], done: int) -> None:
        """Projections `numbers` are there, and none before `done` will come any more."""
        self._there[numbers] = True
        turns = done // self._scan.projections_per_turn
        if turns < 2 or turns == self._measured:
            return
        self._measured = turns
        try:
            error = self._measure(turns)
        except InputError as problem:
            # The scan goes on without; whoever waits for the number gives up waiting.
            logger.warning("no feedback after %d turns: %s", turns, problem)
            return
        self._tell(LiveMetric(RELATIVE_ERROR, error, turns * self._scan.projections_per_turn))

    def _measure(self, turns: int) -> float:
        size = self._scan.projections_per_turn
        numbers = np.flatnonzero(self._there[: turns * size])
        odd = (numbers // size) % 2 == 1
        halves = [numbers[~odd], numbers[odd]]
        if not all(len(half) for half in halves):
            raise InputError("a half of the turns has no projection")
        slices = [self._slices(half) for half in halves]
        return half_set_error(slices[0], slices[1], len(halves[0]) / len(numbers))

    def _slices(self, numbers: NDArray[np.int_]) -> NDArray[np.float32]:
        return reconstruct(
            self._sinograms[numbers],
            self._angles[numbers],
            self._centre,
            engine=self._settings.engine,
            filter_name=self._settings.filter,
        )
