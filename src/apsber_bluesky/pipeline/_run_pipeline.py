"""A run from its first frame to its last stage, whatever it measures."""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from apsber_bluesky.core import (
    ApsberError,
    FrameRange,
    FrameSource,
    RunCancelled,
    RunDescription,
    RunFolder,
    RunLedger,
    RunState,
    StageProgress,
    StorageError,
    Verdict,
)
from apsber_bluesky.pipeline._context import RunContext, Stage, excused

logger = logging.getLogger(__name__)


class Gathering(Protocol):
    """What becomes of the frames of a run while they come.

    Attributes
    ----------
    busy_s : float
        Time spent so far [s].
    """

    busy_s: float

    def add(self, frames: FrameRange) -> None:
        """Frames were announced."""
        ...

    def finish(self) -> None:
        """No more will come; leaves what it found out in the findings of the run."""
        ...


@runtime_checkable
class CaptureGathering(Gathering, Protocol):
    """One that makes volumes of some of its frames."""

    def capture(self, start: int, stop: int) -> None:
        """Projections `start` to `stop` (excluded) are to be one volume."""
        ...


class RunPipeline(ABC):
    """Process runs, one after another; implements `apsber_bluesky.core.FrameConsumer`.

    A run that fails is marked so, keeps what it has, and does not hold up the next.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    source : FrameSource
        Where frames are read.
    progress : StageProgress
        Who is told.
    """

    def __init__(self, data_root: Path, source: FrameSource, progress: StageProgress) -> None:
        self._data_root = data_root
        self._source = source
        self._progress = progress
        self._cancelled = threading.Event()
        self._context: RunContext | None = None
        self._gathering: Gathering | None = None
        self._failed: str | None = None
        self._refused: tuple[RunDescription, str] | None = None

    @abstractmethod
    def _gather(self, context: RunContext) -> Gathering:
        """What takes the frames of a run that begins."""

    @abstractmethod
    def _stages_of(self, run: RunDescription) -> Sequence[Stage]:
        """What happens after the last frame, in order."""

    def _frames_over(self, context: RunContext) -> None:
        """All frames have been gathered; for who wants to know."""
        del context

    def _run_over(self, context: RunContext) -> None:
        """The run is through its stages, or was given up; for who wants to know."""
        del context

    def cancel(self) -> None:
        """Stop the run in progress as soon as its current chunk is done; from any thread."""
        self._cancelled.set()

    def begin_run(self, run: RunDescription) -> None:
        """Open the ledger of a run; one that is still open is marked aborted."""
        self._abandon("another run began before this one had ended")
        self._cancelled.clear()
        self._failed = self._refused = None
        try:
            self._context = self._open(run)
        except ApsberError as error:
            # Without a folder there is nothing to write to; the end of the run tells.
            logger.error("run %s: %s", run.uid, error)  # noqa: TRY400
            self._refused = run, str(error)
        else:
            self._gathering = self._gather(self._context)

    def _open(self, run: RunDescription) -> RunContext:
        folder = RunFolder.of(self._data_root, run.proposal, run.uid).create()
        ledger = RunLedger(folder.ledger, create=True)
        try:
            ledger.set_state(RunState.ACQUIRING)
            ledger.describe(run.model_dump(mode="json"))
        except StorageError:
            ledger.close()
            raise
        return RunContext(run, folder, ledger, self._cancelled, self._progress)

    def _abandon(self, reason: str) -> None:
        context, self._context = self._context, None
        self._gathering = None
        if context is not None:
            with contextlib.closing(context.ledger) as ledger:
                ledger.set_state(RunState.ABORTED, reason)
            self._source.close()

    def frames(self, frames: FrameRange) -> None:
        """Use frames that were announced."""
        context, gathering = self._context, self._gathering
        if context is None or gathering is None or frames.run_uid != context.run.uid:
            logger.warning("frames of unknown run %s ignored", frames.run_uid)
            return
        # After a failure the run goes on being recorded; it is only not processed.
        if self._failed is None:
            self._failed = self._attempt(context, lambda: gathering.add(frames))

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """Some projections are to be one volume, of a run that knows of captures."""
        context, gathering = self._context, self._gathering
        if context is None or run_uid != context.run.uid or self._failed is not None:
            return
        if isinstance(gathering, CaptureGathering):
            self._failed = self._attempt(context, lambda: gathering.capture(start, stop))

    def close(self) -> None:
        """Mark a run that never ended as aborted, and let go of its files."""
        self._abandon("the session ended during the scan")
        self._source.close()

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """Take the run through its stages, and tell what came of it."""
        context, gathering = self._context, self._gathering
        if self._refused is not None and run_uid == self._refused[0].uid:
            self._progress.message(run_uid, "finished", self._summary_of_refused(*self._refused))
            return
        if context is None or gathering is None or run_uid != context.run.uid:
            logger.warning("end of unknown run %s ignored", run_uid)
            return
        self._context = self._gathering = None
        context.exit_status = exit_status
        try:
            unwritten = None
            try:
                self._finish(context, gathering, reason)
            except StorageError as error:
                logger.error("run %s: %s", run_uid, error)  # noqa: TRY400
                unwritten = str(error)
            self._tell(context, unwritten)
        finally:
            self._run_over(context)
            context.ledger.close()
            self._source.close()

    def _finish(self, context: RunContext, gathering: Gathering, reason: str) -> None:
        ledger = context.ledger
        if context.exit_status != "success":
            state = RunState.ABORTED if context.exit_status == "abort" else RunState.FAILED
            ledger.set_state(state, reason or f"the plan ended with {context.exit_status!r}")
            return
        if self._failed is None:
            ledger.set_state(RunState.PROCESSING)
            self._failed = self._attempt(context, lambda: self._process(context, gathering))
        if self._failed is not None:
            state = RunState.ABORTED if self._cancelled.is_set() else RunState.FAILED
            ledger.set_state(state, self._failed)
        elif context.findings.books.complete:
            ledger.set_state(RunState.COMPLETE)
        else:
            ledger.set_state(RunState.INCOMPLETE, context.findings.books.fault)

    def _process(self, context: RunContext, gathering: Gathering) -> None:
        with context.stage("accumulate"):
            gathering.finish()
        self._frames_over(context)
        context.seconds["accumulate"] = gathering.busy_s
        try:
            for stage in self._stages_of(context.run):
                with excused(context, stage), context.stage(stage.name):
                    stage.run(context)
        finally:
            context.let_go()

    def _attempt(self, context: RunContext, work: Callable[[], None]) -> str | None:
        """Do some work; what went wrong, if anything did."""
        try:
            work()
        except RunCancelled as cancelled:
            return str(cancelled)
        except ApsberError as error:
            logger.error("run %s: %s", context.run.uid, error)  # noqa: TRY400
            return str(error)
        except Exception as error:
            # One poisoned run must not end the service; the whole story is in its log.
            logger.exception("run %s failed", context.run.uid)
            return f"{type(error).__name__}: {error}"
        return None

    def _tell(self, context: RunContext, unwritten: str | None) -> None:
        summary = summarise(context)
        if unwritten is not None:
            # The ledger could not take the last word.
            summary |= {"state": str(RunState.FAILED), "reason": unwritten}
        self._progress.message(context.run.uid, "finished", summary)

    def _summary_of_refused(self, run: RunDescription, reason: str) -> dict[str, Any]:
        return {
            "uid": run.uid,
            "scan_id": run.scan_id,
            "state": str(RunState.FAILED),
            "reason": reason,
            "folder": str(self._data_root),
            "volume_shape": None,
            "volume_checksum": None,
            "centre_px": None,
            "quality": {},
            "verdict": None,
            "frames": {"expected": 0, "received": 0, "written": 0, "used": 0},
            "seconds": {},
        }


def summarise(context: RunContext) -> dict[str, Any]:
    """What scripts want to know about a run, as plain JSON values."""
    findings, ledger = context.findings, context.ledger
    books = findings.books if findings.books.streams else ledger.books
    return {
        "uid": context.run.uid,
        "scan_id": context.run.scan_id,
        "state": str(ledger.state),
        "reason": ledger.reason,
        "folder": str(context.folder.path),
        "volume_shape": list(findings.volume_shape) if findings.volume_shape else None,
        "volume_checksum": next(
            (
                record.outputs[context.folder.volume.name]
                for record in findings.processes
                if context.folder.volume.name in record.outputs
            ),
            None,
        ),
        "centre_px": findings.centre_px,
        "quality": {metric.name: metric.to_dict() for metric in findings.quality},
        # A run that nobody judged has not passed.
        "verdict": (
            str(Verdict.worst([m.verdict for m in findings.quality])) if findings.quality else None
        ),
        "frames": {
            "expected": books.expected,
            "received": books.received,
            "written": books.written,
            "used": books.used,
        },
        "seconds": {name: round(value, 3) for name, value in context.seconds.items()},
    }
