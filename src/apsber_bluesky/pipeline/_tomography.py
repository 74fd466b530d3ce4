"""A run from its first frame to its last stage."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from apsber_bluesky.core import (
    ApsberError,
    FrameRange,
    FrameSource,
    InputError,
    ProcessingSettings,
    RunCancelled,
    RunDescription,
    RunFolder,
    RunLedger,
    RunState,
    StageProgress,
    StorageError,
    Verdict,
)
from apsber_bluesky.pipeline._accumulation import Accumulation
from apsber_bluesky.pipeline._context import RunContext, Stage
from apsber_bluesky.pipeline._energy_frames import FrameCalibration
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.processing import prepare_engine

logger = logging.getLogger(__name__)


class TomographyPipeline:
    """Process tomography runs; implements `apsber_bluesky.core.FrameConsumer`.

    A run that fails is marked so, keeps what it has, and does not hold up the next.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    source : FrameSource
        Where frames are read.
    settings : ProcessingSettings
        Engine, filter, chunk and slab sizes.
    stages : sequence of Stage
        What happens after the last frame, in order.
    progress : StageProgress
        Who is told.
    calibration : FrameCalibration, optional
        What turns raw frames into those that are normalised.
    live : LiveSlices, optional
        Shows slices of the volume while frames come; closed by who made it.
    """

    def __init__(
        self,
        data_root: Path,
        source: FrameSource,
        settings: ProcessingSettings,
        stages: Sequence[Stage],
        progress: StageProgress,
        calibration: FrameCalibration | None = None,
        live: LiveSlices | None = None,
    ) -> None:
        self._data_root = data_root
        self._source = source
        self._settings = settings
        self._stages = tuple(stages)
        self._progress = progress
        self._calibration = calibration
        self._live = live
        self._cancelled = threading.Event()
        self._context: RunContext | None = None
        self._accumulation: Accumulation | None = None
        self._failed: str | None = None
        self._refused: tuple[RunDescription, str] | None = None

    def prepare(self) -> None:
        """Load and compile the engine, so that the first run does not wait for that."""
        try:
            prepare_engine(self._settings.engine)
        except InputError as error:
            # Each run that needs it will fail and say so.
            logger.warning("%s", error)

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
            self._accumulation = Accumulation(
                self._context, self._source, self._settings, self._calibration, self._live
            )
            if self._live is not None:
                self._live.begin_run(run)

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
        self._accumulation = None
        if context is not None:
            with contextlib.closing(context.ledger) as ledger:
                ledger.set_state(RunState.ABORTED, reason)
            self._source.close()

    def frames(self, frames: FrameRange) -> None:
        """Use frames that were announced."""
        context, accumulation = self._context, self._accumulation
        if context is None or accumulation is None or frames.run_uid != context.run.uid:
            logger.warning("frames of unknown run %s ignored", frames.run_uid)
            return
        # After a failure the run goes on being recorded; it is only not processed.
        if self._failed is None:
            self._failed = self._attempt(context, lambda: accumulation.add(frames))

    def close(self) -> None:
        """Mark a run that never ended as aborted, and let go of its files."""
        self._abandon("the session ended during the scan")
        self._source.close()

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """Take the run through its stages, and tell what came of it."""
        context, accumulation = self._context, self._accumulation
        if self._refused is not None and run_uid == self._refused[0].uid:
            self._progress.message(run_uid, "finished", self._summary_of_refused(*self._refused))
            return
        if context is None or accumulation is None or run_uid != context.run.uid:
            logger.warning("end of unknown run %s ignored", run_uid)
            return
        self._context = self._accumulation = None
        context.exit_status = exit_status
        try:
            unwritten = None
            try:
                self._finish(context, accumulation, reason)
            except StorageError as error:
                logger.error("run %s: %s", run_uid, error)  # noqa: TRY400
                unwritten = str(error)
            self._tell(context, unwritten)
        finally:
            self._end_live(context)
            context.ledger.close()
            self._source.close()

    def _end_live(self, context: RunContext) -> None:
        centre = context.findings.centre_px
        if self._live is None:
            return
        self._live.frames_over(context.run.uid)
        if centre is not None:
            self._live.remember_centre(context.run.scan.columns, centre)

    def _finish(self, context: RunContext, accumulation: Accumulation, reason: str) -> None:
        ledger = context.ledger
        if context.exit_status != "success":
            state = RunState.ABORTED if context.exit_status == "abort" else RunState.FAILED
            ledger.set_state(state, reason or f"the plan ended with {context.exit_status!r}")
            return
        if self._failed is None:
            ledger.set_state(RunState.PROCESSING)
            self._failed = self._attempt(context, lambda: self._process(context, accumulation))
        if self._failed is not None:
            state = RunState.ABORTED if self._cancelled.is_set() else RunState.FAILED
            ledger.set_state(state, self._failed)
        elif context.findings.books.complete:
            ledger.set_state(RunState.COMPLETE)
        else:
            ledger.set_state(RunState.INCOMPLETE, context.findings.books.fault)

    def _process(self, context: RunContext, accumulation: Accumulation) -> None:
        with context.stage("accumulate"):
            accumulation.finish()
        if self._live is not None:
            self._live.frames_over(context.run.uid)
        context.seconds["accumulate"] = accumulation.busy_s
        for stage in self._stages:
            try:
                with context.stage(stage.name):
                    stage.run(context)
            except RunCancelled:
                raise
            except Exception as error:
                if stage.essential:
                    raise
                logger.exception("run %s: stage %s failed", context.run.uid, stage.name)
                kind = "" if isinstance(error, ApsberError) else f"{type(error).__name__}: "
                details = {"stage": stage.name, "message": f"{kind}{error}"}
                self._progress.message(context.run.uid, "warning", details)

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
