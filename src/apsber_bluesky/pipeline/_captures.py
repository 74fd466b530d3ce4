"""Scans that turn on and on: slices for whoever looks on, volumes of what was captured."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apsber_bluesky.core import (
    FrameRange,
    FrameSource,
    FrameState,
    ImageKey,
    InputError,
    ProcessingSettings,
    ProcessRecord,
    RunDescription,
    RunFolder,
    write_json,
)
from apsber_bluesky.pipeline._accumulation import STAGE, Accumulation
from apsber_bluesky.pipeline._context import RunContext, Stage, excused
from apsber_bluesky.pipeline._energy_frames import FrameCalibration
from apsber_bluesky.pipeline._live_slices import LiveSlices

#: Folder in that of the run with the captures but the last, whose volume is the run's own.
CAPTURES_FOLDER = "captures"


@dataclass(frozen=True, slots=True)
class _References:
    """The darks and flats that were the newest from some projection on."""

    since: int
    series: tuple[FrameRange, ...]


class Captures:
    """Take the frames of a run that turns until it is ended; a `CaptureGathering`.

    All projections are normalised with the newest darks and flats and shown. A capture becomes a
    volume with those that were the newest when it began: the last one that of the run, those
    before it ``captures/0001`` and so on, each as soon as the next has been asked for. A run
    without any has its last projections for a capture.

    Parameters
    ----------
    context : RunContext
        The run.
    stages : sequence of Stage
        What makes a volume of a capture, and judges it.
    source : FrameSource
        Where frames are read.
    settings : ProcessingSettings
        Engine, filter and chunk size.
    calibration : FrameCalibration, optional
        What turns raw frames into those that are normalised.
    live : LiveSlices, optional
        Given the normalised projections.

    Attributes
    ----------
    busy_s : float
        Time spent so far [s].
    """

    def __init__(
        self,
        context: RunContext,
        stages: Sequence[Stage],
        source: FrameSource,
        settings: ProcessingSettings,
        calibration: FrameCalibration | None = None,
        live: LiveSlices | None = None,
    ) -> None:
        self._context, self._stages = context, tuple(stages)
        self._source, self._settings = source, settings
        self._calibration, self._live = calibration, live
        self._announced: FrameRange | None = None
        self._newest: dict[ImageKey, FrameRange] = {}
        self._references: list[_References] = []
        self._shown_with: tuple[_References, Accumulation] | None = None
        self._shown = self._end = self._made = 0
        self._waiting: list[tuple[int, int]] = []
        self.busy_s = 0.0

    def add(self, frames: FrameRange) -> None:
        """Frames were announced: show them, and make volumes of captures that are whole."""
        began = time.monotonic()
        if frames.image_key is ImageKey.PROJECTION:
            self._announced, self._end = frames, max(self._end, frames.stop)
            self._show()
            self._make_volumes()
            total = self._context.run.scan.num_projections
            self._context.report(STAGE, self._end, total)
        else:
            self._add_references(frames)
        self.busy_s += time.monotonic() - began

    def capture(self, start: int, stop: int) -> None:
        """Projections `start` to `stop` (excluded) are to be one volume."""
        if not 0 <= start < stop:
            raise InputError(f"projections {start} to {stop} are no capture")
        self._waiting.append((start, stop))
        began = time.monotonic()
        self._make_volumes()
        self.busy_s += time.monotonic() - began

    def finish(self) -> None:
        """No more frames will come: the last capture becomes what the run has found."""
        began = time.monotonic()
        self._show()
        size = self._context.run.scan.capture_projections or self._end
        whole = [(start, min(stop, self._end)) for start, stop in self._waiting]
        whole = [(start, stop) for start, stop in whole if start < stop]
        *before, last = whole or [(max(0, self._end - size), self._end)]
        self._waiting = []
        for start, stop in before:
            self._make_volume(start, stop)
        if last[0] == last[1]:
            raise InputError("the run has no projections; there is nothing to reconstruct")
        started_s = time.time()
        capture = self._accumulate(*last, self._context.folder)
        self._context.findings = capture.findings
        parameters = {"first_projection": last[0], "projections": last[1] - last[0]}
        self._context.record(
            "capture", started_s, parameters | {"captures": self._made + 1, **_angles(capture.run)}
        )
        self._enter_used()
        self.busy_s += time.monotonic() - began

    # -- references

    def _add_references(self, frames: FrameRange) -> None:
        scan, key = self._context.run.scan, frames.image_key
        size = scan.num_darks if key is ImageKey.DARK else scan.num_flats
        # They come in series of one size; one counts when it is whole.
        if not size or frames.stop % size:
            return
        self._newest[key] = dataclasses.replace(frames, start=frames.stop - size)
        if ImageKey.FLAT in self._newest and (not scan.num_darks or ImageKey.DARK in self._newest):
            series = tuple(self._newest.values())
            self._references.append(_References(self._end, series))

    def _references_of(self, start: int) -> _References:
        """Those that were the newest when projection `start` was taken."""
        known = [one for one in self._references if one.since <= start]
        if not known:
            raise InputError(
                "the run has no flats from before its projections, so they cannot be normalised"
            )
        return known[-1]

    # -- projections

    def _range(self, start: int, stop: int) -> FrameRange:
        if self._announced is None:
            raise InputError("the run has no projections; there is nothing to reconstruct")
        return dataclasses.replace(self._announced, start=start, stop=stop)

    def _show(self) -> None:
        """Give the slices what has come since."""
        if self._live is None or not self._references:
            self._shown = self._end
            return
        while self._shown < self._end:
            self._context.check_cancelled(STAGE)
            stop = min(self._shown + self._settings.chunk_projections, self._end)
            frames = self._range(self._shown, stop)
            for lines, first in self._preparer(self._shown).line_integrals(frames):
                self._live.add(self._context.run.uid, lines, first)
            self._shown = stop

    def _preparer(self, start: int) -> Accumulation:
        references = self._references_of(start)
        if self._shown_with is None or self._shown_with[0] is not references:
            made = self._begin(start, start + 1, self._context.folder, references)
            self._shown_with = references, made[1]
        return self._shown_with[1]

    def _begin(
        self, start: int, stop: int, folder: RunFolder, references: _References
    ) -> tuple[RunContext, Accumulation]:
        outer = self._context
        scan = outer.run.scan.capture(start, stop)
        run = outer.run.model_copy(update={"tomography": scan, "flat_mode": "start"})
        context = RunContext(run, folder, outer.ledger, outer.cancelled, outer.progress)
        made = Accumulation(
            context, self._source, self._settings, self._calibration, None, first=start
        )
        for series in references.series:
            made.add(series)
        return context, made

    # -- captures

    def _make_volumes(self) -> None:
        # The last one stays for the run itself, and nobody knows yet which one that is.
        while len(self._waiting) > 1 and self._waiting[0][1] <= self._end:
            self._make_volume(*self._waiting.pop(0))

    def _make_volume(self, start: int, stop: int) -> None:
        self._made += 1
        folder = RunFolder(self._context.folder.path / CAPTURES_FOLDER / f"{self._made:04d}")
        capture = self._accumulate(start, stop, folder.create())
        try:
            for stage in self._stages:
                with excused(capture, stage):
                    stage.run(capture)
        finally:
            capture.let_go()
        findings = capture.findings
        write_json(
            folder.path / "capture.json",
            {
                "run_uid": capture.run.uid,
                "first_projection": start,
                "projections": stop - start,
                **_angles(capture.run),
                "centre_px": findings.centre_px,
                "processes": [_told(record) for record in findings.processes],
            },
        )

    def _accumulate(self, start: int, stop: int, folder: RunFolder) -> RunContext:
        context, made = self._begin(start, stop, folder, self._references_of(start))
        made.add(self._range(start, stop))
        made.finish()
        return context

    def _enter_used(self) -> None:
        """Enter in the books what all captures used, each frame once."""
        ledger, books = self._context.ledger, self._context.findings.books
        for stream, own in books.streams.items():
            states = ledger.frame_states(stream)
            own.used = int(np.count_nonzero(states & FrameState.USED))
            ledger.set_used(stream, own.used)


def _told(record: ProcessRecord) -> dict[str, Any]:
    """A record as JSON has it: what nobody knows is null, not NaN."""
    value = record.to_dict()
    unknown = [
        name
        for name, own in value["parameters"].items()
        if isinstance(own, float) and not math.isfinite(own)
    ]
    return {**value, "parameters": {**value["parameters"], **dict.fromkeys(unknown)}}


def _angles(run: RunDescription) -> dict[str, float]:
    return {
        "rotation_start_deg": run.scan.rotation_start_deg,
        "rotation_stop_deg": run.scan.rotation_stop_deg,
    }
