"""Looks at a scan's raw frames while they come, and tells what a plan may act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import (
    DEFAULT_LIMITS,
    DetectorFrames,
    NotApplicable,
    PixelSums,
    block_means,
    drift,
    flat_stability,
    sample_motion,
)
from apsber_bluesky.core import (
    DRIFT,
    FLAT_STABILITY,
    MISSING_FRAMES,
    SATURATED_PIXELS,
    FrameBooks,
    ImageKey,
    LiveMetric,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._feedback import FEEDBACK
from apsber_bluesky.pipeline._offline_scan import saturation_of

# The drift is worked out anew whenever this part of the projections is there.
_DRIFT_EVERY = 0.1


class FrameWatch:
    """Gathers from raw frames what quality is judged by, and tells it as far as it is known.

    Parameters
    ----------
    context : RunContext
        The run.
    full_scale : float or None
        Counts of a saturated pixel; None for the largest of the detector's dtype.

    Attributes
    ----------
    dead : ndarray of bool or None
        Pixels that do not answer to light; set by who normalises.
    """

    def __init__(self, context: RunContext, full_scale: float | None = None) -> None:
        self._context = context
        scan = context.run.scan
        self._sums = PixelSums(saturation_of(scan.dtype) if full_scale is None else full_scale)
        self._darks: list[NDArray[np.float64]] = []
        self._flats: tuple[list[NDArray[np.float64]], ...] = ([], [])
        self._there = np.zeros(scan.num_projections, np.bool_)
        self._told: dict[str, float] = {}
        self._followed = 0
        self._warned = False
        self.dead: NDArray[np.bool_] | None = None

    @property
    def frames(self) -> DetectorFrames:
        """What was gathered so far."""
        flats = [np.concatenate(blocks) for blocks in self._flats if blocks]
        dark = np.concatenate(self._darks).mean(axis=0) if self._darks else None
        return DetectorFrames(self._sums, flats, dark, self.dead)

    def references(self, key: ImageKey, frames: NDArray[Any], numbers: list[int]) -> None:
        """Look at darks or flats that came; `numbers` are theirs within the stream."""
        if key is ImageKey.DARK:
            self._darks.append(block_means(frames))
            return
        run = self._context.run
        half = run.scan.num_flats // 2 if run.flat_mode == "both" else run.scan.num_flats
        late = np.array(numbers, dtype=int) >= half
        for blocks, own in zip(self._flats, (~late, late), strict=True):
            if own.any():
                blocks.append(block_means(frames[own]))
        self._sums.take(frames)
        self._tell(SATURATED_PIXELS, self._sums.saturated_part, 0)
        known = self.frames
        self._tell_if(FLAT_STABILITY, lambda: flat_stability(known.flats, known.dark).value, 0)

    def projections(self, frames: NDArray[Any], done: int) -> None:
        """Look at projections; none before `done` will come any more."""
        self._sums.take(frames)
        self._tell(SATURATED_PIXELS, self._sums.saturated_part, done)

    def sinograms(self, lines: NDArray[np.float32], numbers: list[int], done: int) -> None:
        """Follow the sample by what came of all projections so far, of which `numbers` are new."""
        self._there[numbers] = True
        total = len(self._there)
        if done - self._followed < _DRIFT_EVERY * total:
            return
        self._followed = done
        there = np.flatnonzero(self._there)
        angles = self._context.run.scan.angles_deg[there]
        middle = (lines.shape[2] - 1) / 2
        self._tell_if(DRIFT, lambda: drift(sample_motion(lines[there], angles, middle)).value, done)

    def books(self, books: FrameBooks, done: int) -> None:
        """Tell how many frames are missing so far."""
        lost = books.num_missing + books.num_incomplete
        if lost and books.expected:
            self._tell(MISSING_FRAMES, lost / books.expected, done)

    def _tell_if(self, name: str, measure: Callable[[], float], done: int) -> None:
        try:
            self._tell(name, measure(), done)
        except NotApplicable:
            # Not yet, or never; the plan goes on without.
            return

    def _tell(self, name: str, value: float, done: int) -> None:
        """Tell a number that has changed; what the last one was stays true until then."""
        if self._told.get(name) == value:
            return
        self._told[name] = value
        context = self._context
        metric = LiveMetric(name, value, done)
        context.progress.message(context.run.uid, FEEDBACK, metric.to_dict())
        limit = DEFAULT_LIMITS[SATURATED_PIXELS].warn
        if name == SATURATED_PIXELS and value > limit and not self._warned:
            self._warned = True
            text = f"{value:.2%} of the pixels are saturated; shorten the exposure or add a filter"
            details = {"stage": "accumulate", "message": text}
            context.progress.message(context.run.uid, "warning", details)
