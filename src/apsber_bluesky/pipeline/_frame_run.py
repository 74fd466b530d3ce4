"""Runs that are no tomography: frames are accounted for, then their technique's stages run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from apsber_bluesky.core import (
    FrameConsumer,
    FrameRange,
    FrameSource,
    RunDescription,
    SeriesBooks,
    StageProgress,
    Technique,
    book_name,
)
from apsber_bluesky.pipeline._context import RunContext, Stage
from apsber_bluesky.pipeline._run_pipeline import Gathering, RunPipeline


@runtime_checkable
class LiveStage(Stage, Protocol):
    """A stage that begins its work while frames come."""

    def frames(self, context: RunContext, frames: FrameRange) -> None:
        """More frames are on disk; what goes wrong is kept for `run` to raise."""
        ...

    def over(self) -> None:
        """The run is over, whether or not `run` was called; let go of what is unfinished."""
        ...


class _Announced:
    """Keeps what was announced, for the stages to read; live ones get it at once."""

    def __init__(self, context: RunContext, live: Sequence[LiveStage]) -> None:
        self._context = context
        self._live = live
        self.busy_s = 0.0

    def add(self, frames: FrameRange) -> None:
        self._context.findings.frames.append(frames)
        begun_s = time.monotonic()
        for stage in self._live:
            stage.frames(self._context, frames)
        self.busy_s += time.monotonic() - begun_s
        # Its total is known to the plan and the receiver alone.
        self._context.report("accumulate", frames.stop, frames.stop)

    def finish(self) -> None:
        findings = self._context.findings
        findings.books = self._context.ledger.books
        kept = set(findings.books.streams)
        for frames in findings.frames:
            name = next(
                (n for n in _names(frames) if n in findings.books.streams), _names(frames)[-1]
            )
            books = findings.books.streams.setdefault(name, SeriesBooks())
            if name not in kept and books.written < frames.stop:
                # A detector without a receiver: what was announced is what there is.
                books.expected = books.received = books.written = frames.stop
                self._context.ledger.set_books(name, books)


def _names(frames: FrameRange) -> tuple[str, str]:
    return book_name(frames.stream, frames.detector), frames.stream


class FrameRunPipeline(RunPipeline):
    """Process runs of any technique, each through its own stages.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    source : FrameSource
        Where frames are read.
    stages : mapping of str to sequence of Stage
        What happens after the last frame, by technique.
    progress : StageProgress
        Who is told.
    """

    def __init__(
        self,
        data_root: Path,
        source: FrameSource,
        stages: Mapping[Technique, Sequence[Stage]],
        progress: StageProgress,
    ) -> None:
        super().__init__(data_root, source, progress)
        self._stages = dict(stages)

    def _gather(self, context: RunContext) -> Gathering:
        context.findings.source = self._source
        return _Announced(context, self._live_stages(context.run))

    def _live_stages(self, run: RunDescription) -> list[LiveStage]:
        return [stage for stage in self._stages_of(run) if isinstance(stage, LiveStage)]

    def _run_over(self, context: RunContext) -> None:
        for stage in self._live_stages(context.run):
            stage.over()

    def _stages_of(self, run: RunDescription) -> Sequence[Stage]:
        return self._stages.get(run.technique, ())


class PipelineByTechnique:
    """Send each run to the pipeline of its technique; a `apsber_bluesky.core.FrameConsumer`.

    Parameters
    ----------
    tomography : FrameConsumer
        Takes tomography runs.
    others : FrameConsumer
        Takes all others.
    """

    def __init__(self, tomography: FrameConsumer, others: FrameConsumer) -> None:
        self._tomography = tomography
        self._others = others
        self._current = tomography

    def begin_run(self, run: RunDescription) -> None:
        """A run has opened."""
        self._current = self._tomography if run.technique == "tomography" else self._others
        self._current.begin_run(run)

    def frames(self, frames: FrameRange) -> None:
        """More frames of it are on disk."""
        self._current.frames(frames)

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """Some of its projections are to be one volume."""
        self._current.capture(run_uid, start, stop)

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """It has closed."""
        self._current.end_run(run_uid, exit_status, reason)
