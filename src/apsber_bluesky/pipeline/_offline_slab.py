"""One slab of a volume as a task of its own, in this process or in any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ArrayDigest,
    Cancellation,
    ImageKey,
    InputError,
    ReconstructionEngine,
    RunCancelled,
)
from apsber_bluesky.pipeline._offline_job import (
    OfflineJob,
    OpenedScan,
    References,
    saturation_of,
)
from apsber_bluesky.processing import FrameGeometry, Normaliser

#: Projections are read and normalised in chunks of about this size.
CHUNK_BYTES = 32 << 20

# A frame with more saturated pixels than this shows no sample.
_MOST_SATURATED = 0.5


class Deposit(Protocol):
    """Where a task may write its slices itself."""

    def put(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write slices [1/pixel]."""
        ...


@dataclass(frozen=True, slots=True)
class SlabTask:
    """Some slices of a job.

    Attributes
    ----------
    job : OfflineJob
        The job.
    references : References
        Of the rows that the slices need.
    first, stop : int
        Slices, the last not included.
    threads : int
        Threads to work with; the result does not depend on it.
    deposit : Deposit or None
        Where to write the slices; None gives them back.
    """

    job: OfflineJob
    references: References
    first: int
    stop: int
    threads: int = 1
    deposit: Deposit | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"slab of slices {self.first} to {self.stop - 1}"


@dataclass(frozen=True, slots=True)
class SlabResult:
    """What came of a `SlabTask`.

    Attributes
    ----------
    first, stop : int
        Slices.
    values : ndarray of float32 or None
        Attenuation [1/pixel], if it was not deposited.
    engine : str
        Engine that was used.
    checksum : str
        `array_checksum` of the pixels of the projections' rows as the file has them.
    rows : tuple of int
        Those rows, the last not included.
    saturated : ndarray of int64
        Saturated pixels in each projection.
    seconds : float
        How long it took [s].
    """

    first: int
    stop: int
    values: NDArray[np.float32] | None
    engine: str
    checksum: str
    rows: tuple[int, int]
    saturated: NDArray[np.int64]
    seconds: float


def reconstruct_slab(task: SlabTask, cancelled: Cancellation | None = None) -> SlabResult:
    """Read, normalise and reconstruct some slices.

    Parameters
    ----------
    task : SlabTask
        What to do.
    cancelled : Cancellation, optional
        Asked between chunks and iterations.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    InputError
        If a projection holds NaN, nothing but zeros or mostly saturated pixels, or memory would
        not suffice.
    RunCancelled
        If it was told to stop.
    """
    started, job = time.monotonic(), task.job
    source = PreparedRows(job, job.geometry, task.references, task.first, task.stop)
    engine = job.make_engine(task.stop - task.first, task.threads, cancelled)
    with job.scan.opened() as opened:
        for first, projections in source.chunks(opened):
            _check(cancelled, task)
            engine.accumulate(projections, first)
    values = _finish(task, engine, cancelled)
    return SlabResult(
        task.first,
        task.stop,
        values,
        engine.name,
        source.checksum,
        (task.references.rows.start, task.references.rows.stop),
        source.saturated,
        time.monotonic() - started,
    )


def _finish(
    task: SlabTask, engine: ReconstructionEngine, cancelled: Cancellation | None
) -> NDArray[np.float32] | None:
    job, count = task.job, task.stop - task.first
    kept = None if task.deposit is not None else np.empty((count, *job.shape[1:]), np.float32)
    step = job.slices_at_once(task.threads)
    for start in range(0, count, step):
        _check(cancelled, task)
        stop = min(start + step, count)
        block = job.keep(engine.finish(slice(start, stop), job.geometry.engine_centre_px))
        if kept is not None:
            kept[start:stop] = block
        elif task.deposit is not None:
            task.deposit.put(task.first + start, block)
    return kept


def _check(cancelled: Cancellation | None, task: SlabTask) -> None:
    if cancelled is not None and cancelled.is_set():
        raise RunCancelled(f"cancelled during the {task.name}")


def chunk_projections(rows: int, columns: int) -> int:
    """Projections of some rows that are taken at a time."""
    return max(1, CHUNK_BYTES // (rows * columns * 4))


class PreparedRows:
    """The projections of some slices, chunk by chunk, as an engine takes them.

    Parameters
    ----------
    job : OfflineJob
        Where the frames are.
    geometry : FrameGeometry
        What to make of them.
    references : References
        Of at least the rows that the slices need.
    first, stop : int
        Slices, the last not included.

    Attributes
    ----------
    saturated : ndarray of int64
        Saturated pixels in each projection seen so far.
    """

    def __init__(
        self,
        job: OfflineJob,
        geometry: FrameGeometry,
        references: References,
        first: int,
        stop: int,
    ) -> None:
        self._scan, self._geometry = job.scan, geometry
        self._first, self._stop = first, stop
        self._rows = references.rows
        self._wanted = geometry.recorded_rows(first, stop)
        self._normaliser = Normaliser(references.dark, references.flat, bad=references.bad)
        self._good = ~references.bad
        self._top = saturation_of(self._scan.dtype)
        self._numbers = self._scan.numbers(ImageKey.PROJECTION)
        count = len(self._numbers)
        self.saturated = np.zeros(count, np.int64)
        dtype = np.dtype(self._scan.dtype).newbyteorder("=")
        self._digest = ArrayDigest(dtype, (count, len(self._rows), self._scan.columns))

    @property
    def checksum(self) -> str:
        """`array_checksum` of the pixels, once all chunks are read."""
        return self._digest.checksum()

    def chunks(
        self, opened: OpenedScan, step: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Number of the first projection of each chunk, and the projections.

        Parameters
        ----------
        opened : OpenedScan
            The file.
        step : int, optional
            Projections of a chunk.

        Raises
        ------
        InputError
            If a projection holds NaN, nothing but zeros or mostly saturated pixels.
        DataFileError
            If the file cannot be read.
        """
        count = len(self._numbers)
        step = step or chunk_projections(len(self._rows), self._scan.columns)
        begin = self._wanted.start - self._rows.start
        wanted = slice(begin, begin + len(self._wanted))
        for first in range(0, count, step):
            raw = opened.read(ImageKey.PROJECTION, first, min(first + step, count), self._rows)
            self._digest.update(raw)
            self._look_at(raw, first)
            projections = self._normaliser(raw)[:, wanted]
            yield first, self._geometry.prepare(projections, self._first, self._stop)

    def _look_at(self, raw: NDArray[Any], first: int) -> None:
        """Refuse frames that would spoil the volume without anybody seeing why."""
        for number, frame in enumerate(raw, first):
            if self._top is None:
                if not np.isfinite(frame).all():
                    self._refuse(number, "holds NaN or infinite counts")
            elif frame.max() == self._top:
                many = int(np.count_nonzero((frame == self._top) & self._good))
                self.saturated[number] = many
                if many > _MOST_SATURATED * max(int(np.count_nonzero(self._good)), 1):
                    self._refuse(number, f"is saturated in {many} of {frame.size} pixels")
            if not frame.any():
                self._refuse(number, "holds nothing but zeros, as a lost frame does")

    def _refuse(self, number: int, what: str) -> None:
        name = int(self._numbers[number])
        raise InputError(
            f"projection {name} of {self._scan.path} {what} (rows {self._rows.start} to"
            f" {self._rows.stop - 1}); leave it out with --leave-out {name}"
        )
