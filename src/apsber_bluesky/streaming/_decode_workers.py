"""Compressed frames are decoded into the ring by processes beside the receiver.

Decoders hold the interpreter's lock and would hold up the receiver's other threads. A worker is
given frames that already lie in the spool, so nothing depends on it: what it does not decode, its
readers decode themselves.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from apsber_bluesky.streaming._decode_jobs import DecodeJob, unpack_result
from apsber_bluesky.streaming._decode_process import DecodeProcess
from apsber_bluesky.streaming._ring import FrameRing

logger = logging.getLogger(__name__)

# Readers wait half a second for a frame that is on its way; a queue should take less.
_QUEUED_JOBS: Final = 16
_RESULT_BYTES: Final = 64
_RESTART_S: Final = 0.1
_LONGEST_RESTART_S: Final = 5.0
_POLL_S: Final = 0.2


class DecodeWorkers:
    """Processes that decode frames into a ring, restarted when they die.

    They start in the background; frames that come earlier are left to their readers.

    Parameters
    ----------
    ring : FrameRing
        The ring of this process, which stays open until `close`.
    count : int
        Number of processes; 0 decodes nothing.

    Attributes
    ----------
    dropped : int
        Jobs that were not taken.
    restarts : int
        Workers that died and were replaced.
    """

    def __init__(self, ring: FrameRing, count: int) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._finished: list[int] = []
        self._failed: list[int] = []
        self._workers: list[DecodeProcess] = []
        # When each that is missing may be started.
        self._due_s = [0.0] * count
        self._deaths = 0
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()
        self._selector.register(self._alarm, selectors.EVENT_READ, lambda: None)
        self._closing = False
        self.dropped = 0
        self.restarts = 0
        # All are started by this thread: the kernel ends a child with the thread that started it.
        self._thread = threading.Thread(target=self._watch, name="decode workers", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> int:
        """Workers that take jobs now."""
        with self._lock:
            return sum(worker.is_ready for worker in self._workers)

    @property
    def backlog(self) -> int:
        """Frames that are being decoded or wait for it."""
        with self._lock:
            return sum(len(worker.outstanding) for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        with self._lock:
            return [worker.pid for worker in self._workers]

    def submit(self, job: DecodeJob) -> bool:
        """Have a frame decoded; never waits.

        Parameters
        ----------
        job : DecodeJob
            The frame, which must lie in the spool already.

        Returns
        -------
        bool
            False if it was not taken: all workers have enough to do, or the ring has no slots of
            the size. Its readers decode it then.

        Raises
        ------
        FrameError
            If the job cannot be put into words.
        """
        with self._lock:
            worker = min(
                (w for w in self._workers if w.is_ready and len(w.outstanding) < _QUEUED_JOBS),
                key=lambda worker: len(worker.outstanding),
                default=None,
            )
            if worker is not None and self._hand(worker, job):
                worker.outstanding.add(job.tag)
                return True
            self.dropped += 1
            return False

    def _hand(self, worker: DecodeProcess, job: DecodeJob) -> bool:
        generation = self._ring.expect(job.sequence, job.tag)
        if generation is None:
            return False
        sent = False
        try:
            # A worker that has just died is buried by the thread that watches it.
            with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                worker.jobs.send(job.pack(generation))
                sent = True
        finally:
            if not sent:
                self._ring.forget(job.tag)
        return sent

    def finished(self) -> list[int]:
        """Tags of the frames that were decoded since this was last asked.

        One that did not get into the ring, as its slot was read or had a newer one, is among them.
        """
        with self._lock:
            tags, self._finished = self._finished, []
            return tags

    def failed(self) -> list[int]:
        """Tags of the frames that no one can decode, since this was last asked."""
        with self._lock:
            tags, self._failed = self._failed, []
            return tags

    def _watch(self) -> None:
        while not self._closing:
            self._start_due()
            for key, _ in self._selector.select(_POLL_S):
                key.data()
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            self._bury(worker)

    def _start_due(self) -> None:
        now = time.monotonic()
        for due_s in [due_s for due_s in self._due_s if due_s <= now]:
            self._due_s.remove(due_s)
            try:
                worker = DecodeProcess(self._ring.descriptor)
            except OSError as error:
                logger.warning("a decode worker cannot be started: %s", error)
                self._due_s.append(now + _LONGEST_RESTART_S)
                continue
            self._selector.register(worker.jobs, selectors.EVENT_READ, self._reader(worker))
            self._selector.register(worker.stdout, selectors.EVENT_READ, self._listener(worker))
            with self._lock:
                self._workers.append(worker)

    def _listener(self, worker: DecodeProcess) -> Callable[[], None]:
        def listen() -> None:
            # It may have ended since the selector returned.
            if not worker.is_ended and not worker.listen():
                self._selector.unregister(worker.stdout)

        return listen

    def _reader(self, worker: DecodeProcess) -> Callable[[], None]:
        def read() -> None:
            if not worker.is_ended and not self._take_results(worker):
                self._replace(worker)

        return read

    def _take_results(self, worker: DecodeProcess) -> bool:
        """Read all results that are there; False if there will be no more."""
        while True:
            try:
                packet = worker.jobs.recv(_RESULT_BYTES)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not packet:
                return False
            tag, decoded = unpack_result(packet)
            self._deaths = 0
            with self._lock:
                worker.outstanding.discard(tag)
                (self._finished if decoded else self._failed).append(tag)

    def _replace(self, worker: DecodeProcess) -> None:
        with self._lock:
            self._workers.remove(worker)
        status = self._bury(worker)
        # One that cannot even start, or dies of every frame, is not started over and over.
        wait_s = min(_RESTART_S * 2**self._deaths, _LONGEST_RESTART_S)
        self._deaths = min(self._deaths + 1, 16)
        self._due_s.append(time.monotonic() + wait_s)
        self.restarts += 1
        logger.warning(
            "decode worker %d ended with status %d and %d frames; a new one starts in %.1f s",
            worker.pid,
            status,
            len(worker.outstanding),
            wait_s,
        )

    def _bury(self, worker: DecodeProcess) -> int:
        for stream in (worker.jobs, worker.stdout):
            with suppress(KeyError):
                self._selector.unregister(stream)
        for tag in worker.outstanding:
            self._ring.forget(tag)
        return worker.end()

    def close(self) -> None:
        """End the workers; frames that they still had are left to their readers."""
        if self._closing:
            return
        self._closing = True
        self._bell.send(b"\0")
        self._thread.join()
        self._selector.close()
        self._alarm.close()
        self._bell.close()
