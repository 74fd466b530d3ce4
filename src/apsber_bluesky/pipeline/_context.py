"""What the stages of one run share, and what they have found out so far."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import DetectorFrames
from apsber_bluesky.core import (
    ApsberError,
    Cancellation,
    FrameBooks,
    FrameRange,
    FrameSource,
    ProcessRecord,
    QualityMetric,
    ReconstructionEngine,
    RunCancelled,
    RunDescription,
    RunFolder,
    RunLedger,
    StageProgress,
)

if TYPE_CHECKING:
    from apsber_bluesky.pipeline._followers import Following

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """What is known about a run; each stage adds to it.

    Attributes
    ----------
    books : FrameBooks
        What became of every frame.
    centre_px : float or None
        Rotation centre [pixel].
    engine : ReconstructionEngine or None
        Engine with all projections accumulated.
    projections_checksum : str
        `array_checksum` of the projections as they came from the detector; missing ones are zeros.
    sinograms : ndarray or None
        Line integrals of the central rows, shape ``(projections, rows, columns)`` float32.
    angles_deg : ndarray or None
        Angle of each row of `sinograms` [deg].
    volume_shape : tuple of int or None
        Shape of the volume.
    ortho_slices : dict of str to ndarray
        The three central slices ``xy``, ``xz``, ``yz`` [1/pixel].
    central_slices : ndarray or None
        The slices that `sinograms` belong to, shape ``(rows, size, size)`` [1/pixel].
    frame_sums : DetectorFrames or None
        What was gathered from raw frames, to judge detector and beam by.
    quality : list of QualityMetric
        Quality numbers.
    processes : list of ProcessRecord
        The chain of transformations.
    frames : list of FrameRange
        What was announced, of runs other than tomography.
    source : FrameSource or None
        Where the stages of such a run read them.
    level_per_pixel : float or None
        Attenuation of the object's usual voxel [1/pixel], if a model asked for it.
    classes : tuple of str
        What the labels stand for.
    central_labels, central_uncertainty : ndarray or None
        Labels (uint8, 255 for the unknown) and their uncertainty (float16, 0 to 1) of
        `central_slices`.
    inference : dict
        What other models say of the run, by their names; plain JSON values.
    notes : list of str
        What a reader of the record should know, such as what could not be done.
    """

    books: FrameBooks = field(default_factory=FrameBooks)
    centre_px: float | None = None
    engine: ReconstructionEngine | None = None
    projections_checksum: str = ""
    sinograms: NDArray[np.float32] | None = None
    angles_deg: NDArray[np.float64] | None = None
    volume_shape: tuple[int, int, int] | None = None
    ortho_slices: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    central_slices: NDArray[np.float32] | None = None
    frame_sums: DetectorFrames | None = None
    quality: list[QualityMetric] = field(default_factory=list)
    processes: list[ProcessRecord] = field(default_factory=list)
    frames: list[FrameRange] = field(default_factory=list)
    source: FrameSource | None = None
    level_per_pixel: float | None = None
    classes: tuple[str, ...] = ()
    central_labels: NDArray[np.uint8] | None = None
    central_uncertainty: NDArray[np.float16] | None = None
    inference: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RunContext:
    """One run on its way through the stages."""

    run: RunDescription
    folder: RunFolder
    ledger: RunLedger
    cancelled: Cancellation
    progress: StageProgress
    exit_status: str = "success"
    findings: Findings = field(default_factory=Findings)
    seconds: dict[str, float] = field(default_factory=dict)
    following: Following | None = None
    _early: dict[str, float] = field(default_factory=dict)

    def check_cancelled(self, stage: str) -> None:
        """Stop here if somebody asked for it.

        Raises
        ------
        RunCancelled
            If so.
        """
        if self.cancelled.is_set():
            raise RunCancelled(f"cancelled during {stage}")

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        self.progress.stage(self.run.uid, stage, done, total)

    def record(
        self,
        name: str,
        started_s: float,
        parameters: dict[str, Any],
        *,
        inputs: dict[str, str] | None = None,
        outputs: dict[str, str] | None = None,
    ) -> ProcessRecord:
        """Append one transformation to the provenance of the run."""
        record = ProcessRecord(
            name=name,
            sequence_index=len(self.findings.processes) + 1,
            parameters=parameters,
            inputs=inputs or {},
            outputs=outputs or {},
            started_s=started_s,
            finished_s=time.time(),
        )
        self.findings.processes.append(record)
        return record

    def begin_early(self, name: str) -> None:
        """Enter a stage in the ledger that is worked on before its turn."""
        self.ledger.start_stage(name)
        self._early[name] = time.monotonic()

    def let_go(self) -> None:
        """No stage comes any more: whatever still follows the volume leaves nothing half-made."""
        if self.following is not None:
            self.following.abandon()
            self.following = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Enter a stage in the ledger, with how it ends and how long it takes."""
        self.check_cancelled(name)
        started = self._early.pop(name, None)
        if started is None:
            self.ledger.start_stage(name)
            started = time.monotonic()
        known = len(self.findings.processes)
        state = "failed"
        try:
            yield
            state = "done"
        except RunCancelled:
            state = "cancelled"
            raise
        finally:
            self.seconds[name] = time.monotonic() - started
            records = [record.to_dict() for record in self.findings.processes[known:]]
            self.ledger.finish_stage(name, state, {"processes": records})


@contextmanager
def excused(context: RunContext, stage: Stage) -> Iterator[None]:
    """Let a stage that is not essential fail: the user is warned, and the record has a note."""
    try:
        yield
    except RunCancelled:
        raise
    except Exception as error:
        if stage.essential:
            raise
        logger.exception("run %s: stage %s failed", context.run.uid, stage.name)
        kind = "" if isinstance(error, ApsberError) else f"{type(error).__name__}: "
        context.findings.notes.append(f"{stage.name}: {kind}{error}")
        details = {"stage": stage.name, "message": f"{kind}{error}"}
        context.progress.message(context.run.uid, "warning", details)


class Stage(Protocol):
    """One step that a run takes after its last frame.

    Attributes
    ----------
    name : str
        As the ledger and the progress display show it.
    essential : bool
        Whether the run has failed when the stage fails; otherwise the user is warned.
    """

    @property
    def name(self) -> str:
        """Name of the stage."""
        ...

    @property
    def essential(self) -> bool:
        """Whether the run has failed when the stage fails."""
        ...

    def run(self, context: RunContext) -> None:
        """Do it; what it finds goes into ``context.findings``.

        Raises
        ------
        ApsberError
            If it cannot be done; the run is then marked failed and keeps what it has.
        RunCancelled
            If it was told to stop; nothing half-written is left.
        """
        ...


class VolumeSink(Protocol):
    """Where slabs of the volume go; a context manager that keeps all or nothing."""

    checksum: str

    def write(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel]."""
        ...


OpenVolume = Callable[[RunFolder, tuple[int, int, int], float | None], Any]
"""(folder, shape, voxel size [um]) -> context manager that yields a `VolumeSink`."""
