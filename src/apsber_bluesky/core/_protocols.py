"""The seams of the suite: what one package expects of another, without importing it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core._books import FrameBooks
from apsber_bluesky.core._frames import FrameRange, SeriesRequest, SeriesTicket
from apsber_bluesky.core._tomography import RunDescription


@runtime_checkable
class FrameReceiver(Protocol):
    """What a camera asks of the one reader of its frame port (``streaming`` implements it)."""

    def begin_run(self, run: RunDescription) -> None:
        """A run has opened; its proposal names the folder."""
        ...

    def arm(self, request: SeriesRequest) -> SeriesTicket:
        """Get ready for a series; frames that arrive from now on belong to it."""
        ...

    def written(self, run_uid: str, stream: str) -> int:
        """Frames of the stream that are readable on disk so far."""
        ...

    def finish(
        self,
        run_uid: str,
        stream: str,
        *,
        timeout_s: float,
        given_up: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait for the end of the series; the number of frames of the stream on disk.

        When `given_up` says so it waits no longer, and leaves the series as it is.
        """
        ...

    def interrupt(self, run_uid: str) -> None:
        """Nothing that comes from now on is used, nor what came just before."""
        ...

    def missing(self, run_uid: str, stream: str, first: int, count: int) -> list[int]:
        """Which of `count` frames from index `first` on are not on disk."""
        ...

    def give_up(self, run_uid: str, stream: str) -> None:
        """Frames of the stream that are missing will not be asked for again."""
        ...

    def curtail(self, run_uid: str, stream: str) -> int:
        """End a stream behind its last frame on disk; how many places it has then."""
        ...

    def close_run(self, run_uid: str) -> FrameBooks:
        """Close the spool of a run and return its books."""
        ...


@runtime_checkable
class FrameConsumer(Protocol):
    """What listens to a run: the pipeline itself, or its proxy in another process."""

    def begin_run(self, run: RunDescription) -> None:
        """A run has opened."""
        ...

    def frames(self, frames: FrameRange) -> None:
        """More frames of the run are on disk."""
        ...

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """Projections `start` to `stop` (excluded) of the run are to be one volume."""
        ...

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """The run has closed; `exit_status` is ``success``, ``abort`` or ``fail``."""
        ...


@runtime_checkable
class FrameSource(Protocol):
    """Where a consumer reads frames: the shared-memory ring while they are there, else the file."""

    def read(self, frames: FrameRange) -> NDArray[Any]:
        """Read the frames, shape ``(stop - start, rows, columns)``, in the detector's dtype."""
        ...

    def borrow(self, frames: FrameRange) -> AbstractContextManager[NDArray[Any]]:
        """Lend the frames as `read` returns them, in place where that can be; not to be kept."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


@runtime_checkable
class ReconstructionEngine(Protocol):
    """Reconstruct a volume from projections that arrive in chunks.

    Pixel ``(row, column)`` of slice ``z`` lies at ``x = column - size // 2``,
    ``y = row - size // 2`` pixels from the rotation axis.
    """

    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(slices, size, size)`` of the volume."""
        ...

    @property
    def accumulated(self) -> int:
        """Projections seen so far."""
        ...

    @property
    def missing(self) -> list[int]:
        """Numbers of the projections that have not been accumulated."""
        ...

    def hold_centre(self, centre: float) -> None:
        """Add projections for this rotation centre alone, so that `finish` is quick.

        Optional, before the first of them; an engine that cannot do so still takes any centre.
        """
        ...

    def give_up_missing(self) -> list[int]:
        """Weigh the projections that are there as all there will be; those that are missing."""
        ...

    def accumulate(self, projections: NDArray[np.float32], first: int) -> None:
        """Take line integrals ``(n, rows, columns)`` of projections ``first`` to ``first + n``."""
        ...

    def finish(self, slices: slice, centre: float) -> NDArray[np.float32]:
        """Attenuation [1/pixel] of some slices, shape ``(n, size, size)``."""
        ...


@runtime_checkable
class Cancellation(Protocol):
    """Asked between chunks of work whether to stop (a `threading.Event` is one)."""

    def is_set(self) -> bool:
        """Whether somebody asked for the work to stop."""
        ...


@runtime_checkable
class StageProgress(Protocol):
    """Told how the stages of a run proceed."""

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        """`done` of `total` parts of a stage are finished."""
        ...

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        """Something worth telling the user happened."""
        ...
