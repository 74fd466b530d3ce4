"""What is done to the slabs of a volume while the next ones are still being made."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, RunCancelled
from apsber_bluesky.pipeline._context import RunContext

logger = logging.getLogger(__name__)

VOLUME = "volume"
"""Source of those that take slabs as they are reconstructed."""

# Slabs that may wait to be followed; then the reconstruction waits, for memory has an end.
WAITING_SLABS = 2
_LOOK_AGAIN_S = 0.1

Slab = tuple[int, NDArray[np.float32]]
"""First slice, and values of shape (slices, rows, columns) [1/pixel]."""


class SlabFollower(Protocol):
    """Takes the slabs of a volume in order, and may make slabs of its own of them.

    `begin` and `take` run in a thread of their own, `finish` and `abandon` when that has ended.

    Attributes
    ----------
    name : str
        Of its stage.
    source : str
        Whose slabs it takes: `VOLUME`, or the name of a follower before it.
    """

    @property
    def name(self) -> str:
        """Name of its stage."""
        ...

    @property
    def source(self) -> str:
        """Whose slabs it takes."""
        ...

    def prepare(self) -> None:
        """Load what takes time to load, before there is a run.

        Raises
        ------
        ApsberError
            If that cannot be; `begin` will tell again.
        """
        ...

    def begin(self, context: RunContext, shape: tuple[int, int, int]) -> None:
        """A volume begins; the findings have its central slices."""
        ...

    def take(self, start: int, slab: NDArray[np.float32]) -> Sequence[Slab]:
        """Take a slab [1/pixel], not to be changed; give what became whole of its own."""
        ...

    def finish(self, context: RunContext) -> Sequence[Slab]:
        """All slabs were taken: give the rest, keep the products and record what was done."""
        ...

    def abandon(self) -> None:
        """It failed or is not wanted any more: leave nothing half-written. Asked once or more."""
        ...


class Following:
    """Feeds slabs to followers, in a thread of its own, so that nobody waits for them.

    A follower that fails is abandoned, and so are those that live on it; the others go on.

    Parameters
    ----------
    context : RunContext
        The run; cancelling it ends the following.
    shape : tuple of int
        Shape of the volume.
    followers : sequence of SlabFollower
        Who takes what; each comes after its source.
    """

    def __init__(
        self, context: RunContext, shape: tuple[int, int, int], followers: Sequence[SlabFollower]
    ) -> None:
        self._context, self._shape = context, shape
        self._followers = tuple(followers)
        self._failed: dict[str, Exception] = {}
        self._queue: queue.Queue[Slab | None] = queue.Queue(WAITING_SLABS)
        self._stopped = threading.Event()
        for follower in self._followers:
            context.begin_early(follower.name)
        self._thread = threading.Thread(target=self._work, name="followers", daemon=True)
        self._thread.start()

    def take(self, start: int, slab: NDArray[np.float32]) -> None:
        """Hand on a slab, which nobody may change any more; waits while too many wait."""
        self._put((start, slab))

    def wait(self) -> None:
        """No more slabs come: wait until all were taken.

        Raises
        ------
        RunCancelled
            If the run was cancelled meanwhile; the followers have been abandoned.
        """
        self._put(None)
        self._thread.join()
        if self._stopped.is_set():
            raise RunCancelled("cancelled while the volume was followed")

    def finish(self, name: str) -> None:
        """Let one of them finish, after `wait` and after its source.

        Raises
        ------
        Exception
            Whatever it failed with, now or before.
        """
        follower = next((own for own in self._followers if own.name == name), None)
        if follower is None:
            raise InputError(f"nothing called {name!r} follows this volume")
        slabs: list[Slab] = []
        self._attempt(follower, lambda: slabs.extend(follower.finish(self._context)))
        if name in self._failed:
            raise self._failed[name]
        self._feed(name, slabs)

    def abandon(self) -> None:
        """The volume will not become whole."""
        self._stopped.set()
        self._thread.join()
        self._abandon_all()

    # -- in the thread

    def _work(self) -> None:
        for follower in self._followers:
            begin = functools.partial(follower.begin, self._context, self._shape)
            self._attempt(follower, begin)
        while not self._is_over():
            try:
                slab = self._queue.get(timeout=_LOOK_AGAIN_S)
            except queue.Empty:
                continue
            if slab is None:
                return
            self._feed(VOLUME, [slab])
        self._abandon_all()

    def _is_over(self) -> bool:
        if self._context.cancelled.is_set():
            self._stopped.set()
        return self._stopped.is_set()

    def _feed(self, source: str, slabs: Iterable[Slab]) -> None:
        for start, slab in slabs:
            for follower in self._followers:
                if follower.source == source and not self._is_over():
                    self._feed(follower.name, self._made_by(follower, start, slab))

    def _made_by(self, follower: SlabFollower, start: int, slab: NDArray[np.float32]) -> list[Slab]:
        made: list[Slab] = []
        self._attempt(follower, lambda: made.extend(follower.take(start, slab)))
        return made

    def _attempt(self, follower: SlabFollower, work: Callable[[], Any]) -> None:
        """Do something for a follower that has not failed yet, and keep what goes wrong."""
        if follower.name in self._failed:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - its stage raises it
            self._fail(follower, error)

    def _fail(self, failed: SlabFollower, error: Exception) -> None:
        logger.info("%s failed: %s", failed.name, error)
        self._failed[failed.name] = error
        failed.abandon()
        source = failed.name
        for follower in self._followers:
            if follower.source == source and follower.name not in self._failed:
                why = InputError(f"{source} failed, whose slices {follower.name} takes")
                self._fail(follower, why)

    # -- outside

    def _put(self, slab: Slab | None) -> None:
        while self._thread.is_alive() and not self._is_over():
            try:
                self._queue.put(slab, timeout=_LOOK_AGAIN_S)
            except queue.Full:
                continue
            return

    def _abandon_all(self) -> None:
        for follower in self._followers:
            follower.abandon()


class FinishFollower:
    """The stage of a follower: waits for it, lets it finish, and tells if it failed.

    Parameters
    ----------
    name : str
        Of the follower, and of the stage.
    """

    essential = False

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, context: RunContext) -> None:
        """Wait for the follower, and let it keep its products."""
        following = context.following
        if following is None:
            raise InputError(f"no volume was made that {self.name} could follow")
        following.wait()
        following.finish(self.name)
