"""Judge a run that is no tomography by its frames: missing, saturated, without an answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from apsber_bluesky.analysis import (
    Assessment,
    NotApplicable,
    PixelSums,
    check_limits,
    dead_pixels,
    missing_frames,
)
from apsber_bluesky.core import (
    SATURATED_PIXELS,
    AnalysisSettings,
    FrameRange,
    LiveMetric,
    QualityMetric,
    book_name,
)
from apsber_bluesky.pipeline._assess import write_assessment
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._feedback import FEEDBACK
from apsber_bluesky.pipeline._offline_scan import saturation_of
from apsber_bluesky.pipeline._series_energies import SERIES_RUN

# Of each announcement; reading them all again would keep a fast detector waiting.
_MOST_FRAMES: Final = 4


class AssessFrames:
    """Look at some frames while they come; a `LiveStage`.

    Of each announcement at most 4 frames of stream ``primary`` are looked at, spread over it. Raw
    frames of a Jungfrau are not: their gain bits mean nothing before they are energies.

    Parameters
    ----------
    analysis : AnalysisSettings
        Limits.
    full_scale : float or None
        Counts of a saturated pixel; None for the largest of the frames' dtype.

    Raises
    ------
    InputError
        If limits name an unknown quality number.
    """

    name = "quality"
    essential = False

    def __init__(self, analysis: AnalysisSettings, full_scale: float | None = None) -> None:
        check_limits(analysis.limits)
        self._limits, self._full_scale = analysis.limits, full_scale
        self._uid, self._started_s = "", 0.0
        self._sums: dict[str, PixelSums] = {}
        self._failure: Exception | None = None

    def frames(self, context: RunContext, frames: FrameRange) -> None:
        """Look at some of the frames that were announced; what goes wrong is told by `run`."""
        if self._uid != context.run.uid:
            self.over()
            self._uid, self._started_s = context.run.uid, time.time()
        if frames.stream != "primary" or self._failure is not None:
            return
        if context.run.conditions.get("kind") == SERIES_RUN:
            return
        try:
            self._look(context, frames)
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._failure = error

    def run(self, context: RunContext) -> None:
        """Write the quality numbers down.

        Raises
        ------
        ApsberError
            If frames could not be read.
        """
        try:
            if self._failure is not None:
                raise self._failure
            done = Assessment()
            books = context.findings.books
            done.add("missing_frames", lambda: missing_frames(books, limits=self._limits))
            done.add("saturated_pixels", lambda: self._worst(self._saturation))
            done.add("dead_pixels", lambda: self._worst(self._dead))
            write_assessment(context, done, self.name, self._started_s or time.time())
        finally:
            self.over()

    def over(self) -> None:
        """Forget the run."""
        self._uid, self._sums, self._failure = "", {}, None

    def _look(self, context: RunContext, frames: FrameRange) -> None:
        source = context.findings.source
        name = book_name(frames.stream, frames.detector)
        books = context.ledger.books.streams.get(name)
        lost = books.unusable if books is not None else frozenset()
        there = [number for number in range(frames.start, frames.stop) if number not in lost]
        if source is None or not there:
            return
        for place in np.unique(np.linspace(0, len(there) - 1, _MOST_FRAMES).round().astype(int)):
            number = there[place]
            images = source.read(replace(frames, start=number, stop=number + 1))
            sums = self._sums.get(frames.detector)
            if sums is None:
                own = self._full_scale
                full_scale = saturation_of(images.dtype.str) if own is None else own
                sums = self._sums[frames.detector] = PixelSums(full_scale)
            sums.take(images, single=True)
        told = max(sums.saturated_part for sums in self._sums.values())
        metric = LiveMetric(SATURATED_PIXELS, told, frames.stop)
        context.progress.message(context.run.uid, FEEDBACK, metric.to_dict())

    def _saturation(self, sums: PixelSums) -> QualityMetric:
        return sums.saturation(limits=self._limits)

    def _dead(self, sums: PixelSums) -> QualityMetric:
        return dead_pixels(sums.stuck, from_flats=False, limits=self._limits)

    def _worst(self, measure: Callable[[PixelSums], QualityMetric]) -> QualityMetric:
        """The number of the detector that has most of it."""
        if not self._sums:
            raise NotApplicable("no frame was looked at that shows counts")
        found = {name: measure(sums) for name, sums in self._sums.items()}
        name = max(found, key=lambda each: found[each].value)
        about = f"{name}: " if len(found) > 1 else ""
        looked = f"{self._sums[name].frames} frames were looked at"
        return replace(found[name], note=f"{about}{found[name].note}; {looked}")
