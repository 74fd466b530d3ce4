"""Work of a device that takes time, and that may be given up at any instant."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ophyd.status import Status, WaitTimeoutError

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.1

Result = TypeVar("Result")


class GivenUp(Exception):
    """The work is not wanted any more."""


class Attempt:
    """One attempt at something; given up when a scan is paused, and followed by another.

    A status of work that was given up is finished, not failed: bluesky would throw the failure
    into the plan long after it has gone on.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._given_up = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def is_given_up(self) -> bool:
        """Whether the work is not wanted any more."""
        return self._given_up.is_set()

    def run(self, work: Callable[[], None], owner: Any) -> Status:
        """Do some work in a thread.

        Parameters
        ----------
        work : callable
            What to do; an exception it raises becomes the status', unless the attempt was given
            up meanwhile.
        owner : object
            Device that the status belongs to.

        Returns
        -------
        Status
            Finished when `work` has returned, or the attempt was given up and `work` has ended.
        """
        status = Status(obj=owner)

        def attend() -> None:
            try:
                work()
            except GivenUp:
                pass
            except Exception as error:  # noqa: BLE001 - handed on to whoever waits
                if not self.is_given_up:
                    status.set_exception(error)
                    return
                logger.info("%s: given up, with %s", owner.name, error)
            status.set_finished()

        thread = threading.Thread(target=attend, name=f"{owner.name}-work", daemon=True)
        self._threads.append(thread)
        thread.start()
        return status

    def step(self, work: Callable[[], Result]) -> Result:
        """Do what starts something: wholly before the attempt is given up, or not at all.

        Raises
        ------
        GivenUp
            If it has been.
        """
        with self._lock:
            if self.is_given_up:
                raise GivenUp
            return work()

    def wait(self, status: Status) -> None:
        """Wait for a status.

        Raises
        ------
        GivenUp
            If the attempt is given up meanwhile.
        """
        while True:
            with contextlib.suppress(WaitTimeoutError):
                status.wait(timeout=_POLL_S)
            if self.is_given_up:
                raise GivenUp
            if status.done:
                return

    def give_up(self) -> None:
        """Start nothing more; when this returns no step is being done."""
        self._given_up.set()
        with self._lock:
            pass

    def join(self, timeout_s: float) -> bool:
        """Wait until all its work has ended, by itself or given up; whether it has."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)
