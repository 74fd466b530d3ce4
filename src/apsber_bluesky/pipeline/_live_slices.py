"""Slices of the volume for whoever looks on while the scan runs; nothing waits for them."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ApsberError,
    FrameRange,
    ImageKey,
    LiveView,
    ProcessingSettings,
    RunDescription,
    StageProgress,
)
from apsber_bluesky.pipeline._live_frame import (
    LiveFrame,
    LiveSums,
    choose_binning,
    provisional_centre,
)
from apsber_bluesky.processing import OrthoSlices, bin_images

logger = logging.getLogger(__name__)

STAGE = "live_slices"

#: Projections that may wait to be added [byte]; beyond it the oldest are left out.
_MOST_WAITING = 64_000_000
#: Time of one pixel of a projection on one core, before it has been measured [s].
_SECONDS_PER_PIXEL = 15e-9
#: A run of fewer pixels says too little of the speed.
_MEASURABLE_PIXELS = 1_000_000
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class _Chunk:
    first: int
    projections: NDArray[np.float32]
    arrived_s: float


class _Run:
    """One run as the thread sees it; what is mutable is guarded by the lock of `LiveSlices`."""

    def __init__(self, run: RunDescription, frame: LiveFrame, sums: LiveSums) -> None:
        self.uid, self.total = run.uid, run.scan.num_projections
        self.frame, self.sums = frame, sums
        self.waiting: deque[_Chunk] = deque()
        self.dropped = 0
        self.is_over = False
        # Of the thread alone.
        self.busy_s, self.pixels = 0.0, 0
        self.newest_s = 0.0
        self.unseen = False


class LiveSlices:
    """Add projections to three slices in a thread of its own, and show them now and then.

    Chunks wait in a queue of bounded size; when the thread falls behind, the oldest are left out
    and the slices are made of the others. The reconstruction only bins and copies.

    Parameters
    ----------
    settings : ProcessingSettings
        ``live_slices``, and the centre and filter of the reconstruction.
    show : callable
        Given each `LiveView`, in the thread; must not wait for anybody.
    progress : StageProgress
        Told of each view (event ``live_slices``), and once per run if it fails (``warning``).
    """

    def __init__(
        self,
        settings: ProcessingSettings,
        show: Callable[[LiveView], None],
        progress: StageProgress,
    ) -> None:
        self._settings = settings
        self._show = show
        self._progress = progress
        self._changed = threading.Condition()
        self._run: _Run | None = None
        self._announced: deque[tuple[str, int, float]] = deque()
        self._last_centre: tuple[int, float] | None = None
        self._seconds_per_pixel = _SECONDS_PER_PIXEL
        self._closed = False
        self._shown_s = 0.0
        self._thread = threading.Thread(target=self._serve, name="live-slices", daemon=True)
        self._thread.start()

    def announced(self, frames: FrameRange) -> None:
        """Frames can be read from now on; from any thread, before the pipeline hears of them."""
        if frames.image_key is ImageKey.PROJECTION:
            with self._changed:
                self._announced.append((frames.run_uid, frames.stop, time.monotonic()))

    def begin_run(self, run: RunDescription) -> None:
        """Show another run from now on; whatever still waits of the last one is left out."""
        settings, scan = self._settings, run.scan
        with self._changed:
            self._run = None
            while self._announced and self._announced[0][0] != run.uid:
                self._announced.popleft()
        try:
            binning = choose_binning(scan, settings.live_slices, self._seconds_per_pixel)
            centre, source = provisional_centre(scan, settings.centre, self._last_centre)
            frame = LiveFrame(scan, binning, centre, source, settings.filter)
            begun = _Run(run, frame, frame.begin(settings.live_slices))
        except ApsberError as error:
            self._warn(run.uid, str(error))
            return
        with self._changed:
            self._run = begun

    def add(self, run_uid: str, projections: NDArray[np.float32], first: int) -> None:
        """Projections of the run were normalised; they are copied, and may be overwritten then.

        Parameters
        ----------
        run_uid : str
            The run.
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.
        first : int
            Number of the first of them in the scan.
        """
        run = self._run
        if run is None or run.uid != run_uid:
            return
        binning = run.frame.binning
        own = bin_images(projections, binning) if binning > 1 else projections.copy()
        with self._changed:
            chunk = _Chunk(first, own, self._arrival(run_uid, first + len(own)))
            run.waiting.append(chunk)
            while sum(c.projections.nbytes for c in run.waiting) > max(_MOST_WAITING, own.nbytes):
                run.dropped += len(run.waiting.popleft().projections)
            self._changed.notify_all()

    def frames_over(self, run_uid: str) -> None:
        """No more projections will come; the last view is shown as soon as it is ready."""
        with self._changed:
            if self._run is not None and self._run.uid == run_uid:
                self._run.is_over = True
                self._changed.notify_all()

    def remember_centre(self, columns: int, centre_px: float) -> None:
        """The centre of a run is known; the next one with frames so wide begins with it."""
        self._last_centre = columns, centre_px

    def close(self) -> None:
        """End the thread; what waits is left out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _arrival(self, run_uid: str, stop: int) -> float:
        """When the projections up to `stop` had been announced [s]; the lock is held."""
        while self._announced and self._announced[0][0] == run_uid:
            _, announced, arrived_s = self._announced[0]
            if announced >= stop:
                return arrived_s
            self._announced.popleft()
        # Without announcements it is the pipeline that says so.
        return time.monotonic()

    def _serve(self) -> None:
        # A display may be late; the threads that keep up with the detector may not.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _own_niceness())
        _warm_up()
        while not self._closed:
            run, chunk = self._next()
            if run is None:
                continue
            try:
                self._advance(run, chunk)
            except Exception as error:
                # Whatever it is, it must not harm the reconstruction; its story is in the log.
                logger.exception("live slices of run %s failed", run.uid)
                self._drop(run)
                self._warn(run.uid, f"{type(error).__name__}: {error}")

    def _next(self) -> tuple[_Run | None, _Chunk | None]:
        """Wait for something to do: a chunk to add, or a view whose time has come."""
        with self._changed:
            run = self._run
            if run is not None and run.waiting:
                return run, run.waiting.popleft()
            if run is not None and run.unseen and (run.is_over or self._wait_s() <= 0):
                return run, None
            if not self._closed:
                unseen = run is not None and run.unseen
                self._changed.wait(self._wait_s() if unseen else None)
            return None, None

    def _wait_s(self) -> float:
        return self._shown_s + 1 / self._settings.live_slices.hz - time.monotonic()

    def _advance(self, run: _Run, chunk: _Chunk | None) -> None:
        if chunk is not None:
            began = time.monotonic()
            run.sums.add(chunk.projections, chunk.first)
            run.busy_s += time.monotonic() - began
            run.pixels += chunk.projections.size
            run.newest_s, run.unseen = chunk.arrived_s, True
            if run.pixels >= _MEASURABLE_PIXELS:
                self._seconds_per_pixel = run.busy_s / run.pixels
        with self._changed:
            last = run.is_over and not run.waiting
        if run.unseen and (last or self._wait_s() <= 0):
            self._emit(run)

    def _emit(self, run: _Run) -> None:
        planes, used = run.sums.planes()
        run.unseen = False
        frame, self._shown_s = run.frame, time.monotonic()
        view = LiveView(
            run_uid=run.uid,
            planes=planes,
            used=used,
            dropped=run.dropped,
            total=run.total,
            centre_px=frame.centre_px,
            centre_from=frame.centre_from,
            binning=frame.binning,
            window_deg=frame.window_deg,
            latency_s=time.monotonic() - run.newest_s,
        )
        self._show(view)
        self._progress.message(run.uid, STAGE, view.details())

    def _drop(self, run: _Run) -> None:
        with self._changed:
            if self._run is run:
                self._run = None

    def _warn(self, run_uid: str, message: str) -> None:
        details: dict[str, Any] = {"stage": STAGE, "message": message}
        self._progress.message(run_uid, "warning", details)


def _own_niceness() -> int:
    return min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)


def _warm_up() -> None:
    """Have everything compiled and imported before the first projection comes."""
    slices = OrthoSlices(1, 4, [0.0], centre=1.5)
    slices.add(np.zeros((1, 1, 4), np.float32), 0)
    slices.snapshot()
