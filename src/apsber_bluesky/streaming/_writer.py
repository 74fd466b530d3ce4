"""The thread that puts accepted frames into the ring and on disk.

The receiver's own thread only reads sockets and keeps the books; copying and writing let it run,
for both are done without Python's lock. There is one writer, for a file system lets only one
write into a file at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from apsber_bluesky.core import ApsberError, FrameError, StorageError
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._decode_jobs import DecodeJob
from apsber_bluesky.streaming._decode_workers import DecodeWorkers
from apsber_bluesky.streaming._ring import FrameRing
from apsber_bluesky.streaming._series_messages import Frame
from apsber_bluesky.streaming._spool import Spool

_BATCH_FRAMES: Final = 16


@dataclass(frozen=True, slots=True)
class Job:
    """A frame that is to be stored.

    Attributes
    ----------
    series : Series
        What it belongs to; the index in the stream is that of the series and its number.
    frame : Frame
        The frame.
    sequence, tag : int
        Its place and its name in the ring.
    """

    series: Series
    frame: Frame
    sequence: int
    tag: int


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job: the frame is on disk, unless there is a failure."""

    job: Job
    in_ring: bool
    failure: ApsberError | None = None


class FrameWriter:
    """Write frames in a thread of its own.

    Parameters
    ----------
    ring : FrameRing
        Where consumers find the newest frames.
    wake : callable
        Called from the thread whenever `collect` has something.
    backlog_bytes : int
        Frames that may wait for the disk [byte].
    decoders : DecodeWorkers, optional
        Who decodes compressed frames into the ring; without, their readers do.
    """

    def __init__(
        self,
        ring: FrameRing,
        wake: Callable[[], None],
        *,
        backlog_bytes: int,
        decoders: DecodeWorkers | None = None,
    ) -> None:
        self._ring = ring
        self._wake = wake
        self._decoders = decoders
        self._backlog_bytes = backlog_bytes
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._done: list[Done] = []
        self._waiting_frames = 0
        self._waiting_bytes = 0
        self.spool: Spool | None = None
        self._thread = threading.Thread(target=self._run, name="frame-writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Frames that are not on disk yet."""
        return self._waiting_frames

    @property
    def has_room(self) -> bool:
        """Whether another frame may be put; one always may when none waits."""
        return self._waiting_frames == 0 or self._waiting_bytes < self._backlog_bytes

    def put(self, job: Job) -> None:
        """Store a frame, soon."""
        with self._lock:
            self._waiting_frames += 1
            self._waiting_bytes += len(job.frame.pixels)
        self._jobs.put(job)

    def collect(self) -> list[Done]:
        """What was done since the last call."""
        with self._lock:
            done, self._done = self._done, []
        return done

    def drain(self) -> None:
        """Wait until all that was put is done; only then may another thread use the spool."""
        with self._idle:
            self._idle.wait_for(lambda: self._waiting_frames == 0)

    def close(self) -> None:
        """Finish what was put, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [self._store(job)]
            while len(batch) < _BATCH_FRAMES and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    self._finish(batch)
                    return
                batch.append(self._store(job))
            self._finish(batch)

    def _store(self, job: Job) -> Done:
        spool, frame, series = self.spool, job.frame, job.series
        index, stream = series.first_index + frame.number, series.request.stream
        try:
            if spool is None:
                raise FrameError(f"frame {frame.number} without an open spool")
            # Into the ring first: then the bytes are in the processor's cache when they are
            # written, and consumers have them soonest.
            in_ring = (
                frame.codec == "none"
                and frame.channel == 0
                and self._ring.put(job.sequence, job.tag, frame.pixels)
            )
            spool.write(stream, index, frame)
            if frame.codec != "none" and frame.channel == 0 and self._decoders is not None:
                self._decoders.submit(_decode_job(job, spool))
        except (FrameError, StorageError) as error:
            return Done(job, in_ring=False, failure=error)
        return Done(job, in_ring)

    def _finish(self, batch: list[Done]) -> None:
        try:
            if self.spool is not None:
                self.spool.flush()
        except StorageError as error:
            # None of them can be relied on.
            batch = [Done(done.job, in_ring=False, failure=done.failure or error) for done in batch]
        with self._idle:
            self._done.extend(batch)
            self._waiting_frames -= len(batch)
            self._waiting_bytes -= sum(len(done.job.frame.pixels) for done in batch)
            self._idle.notify_all()
        self._wake()


def _decode_job(job: Job, spool: Spool) -> DecodeJob:
    frame, request = job.frame, job.series.request
    offset, size = spool.last_stored
    return DecodeJob(
        path=spool.path,
        offset=offset,
        size=size,
        codec=frame.codec,
        rows=request.rows,
        columns=request.columns,
        dtype=request.dtype,
        sequence=job.sequence,
        tag=job.tag,
        checksum=frame.checksum,
    )
