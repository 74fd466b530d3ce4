"""Run independent tasks on any executor; one that fails is tried again, but not for ever."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from apsber_bluesky.core import ApsberError, Cancellation, RunCancelled, ServiceError

logger = logging.getLogger(__name__)

#: Times that a task is begun at most.
ATTEMPTS = 3
_LOOK_AGAIN_S = 0.2


class NamedTask(Protocol):
    """A task with a name for messages."""

    @property
    def name(self) -> str:
        """The name."""
        ...


Task = TypeVar("Task", bound=NamedTask)
Result = TypeVar("Result")


def run_tasks(
    open_executor: Callable[[], AbstractContextManager[Executor]],
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    at_once: int,
    cancelled: Cancellation,
) -> Iterator[Result]:
    """Run tasks and give their results as they come.

    A task that fails is begun again, three times in all; so are those that were under way when
    the executor broke, on a new one. An error that the suite itself raises, such as a damaged
    file, would only come again and ends all at once.

    Parameters
    ----------
    open_executor : callable
        Makes an executor; leaving its context ends it.
    work : callable
        What to do with a task; it must be importable by the workers.
    tasks : sequence
        The tasks.
    at_once : int
        Tasks that are handed to the executor at a time, so that results do not pile up.
    cancelled : Cancellation
        Asked a few times a second.

    Yields
    ------
    Result
        Of each task, in the order in which they end.

    Raises
    ------
    ServiceError
        If a task failed too often; it is named.
    RunCancelled
        If it was told to stop.
    ApsberError
        What a task raised of these.
    """
    waiting = deque((task, 1) for task in tasks)
    while waiting:
        with open_executor() as executor:
            round_ = _Round(executor, work, waiting, at_once, cancelled)
            try:
                yield from round_.results()
            finally:
                round_.abandon()


class _Round(Generic[Task, Result]):
    """What one executor does until all is done or it breaks."""

    def __init__(
        self,
        executor: Executor,
        work: Callable[[Task], Result],
        waiting: deque[tuple[Task, int]],
        at_once: int,
        cancelled: Cancellation,
    ) -> None:
        self._executor, self._work, self._waiting = executor, work, waiting
        self._at_once, self._cancelled = at_once, cancelled
        self._running: dict[Future[Result], tuple[Task, int]] = {}

    def results(self) -> Iterator[Result]:
        broken = False
        while self._running or (self._waiting and not broken):
            if self._cancelled.is_set():
                raise RunCancelled("cancelled during the reconstruction")
            broken = broken or not self._fill()
            done, _ = wait(self._running, timeout=_LOOK_AGAIN_S, return_when=FIRST_COMPLETED)
            for future in done:
                task, attempt = self._running.pop(future)
                try:
                    result = future.result()
                except ApsberError:
                    raise
                except (BrokenExecutor, CancelledError) as error:
                    broken = True
                    self._again(task, attempt, error)
                except Exception as error:  # noqa: BLE001 - whatever a worker may die of
                    self._again(task, attempt, error)
                else:
                    yield result

    def abandon(self) -> None:
        """Nobody wants the rest."""
        for future in self._running:
            future.cancel()

    def _fill(self) -> bool:
        while self._waiting and len(self._running) < self._at_once:
            task, attempt = self._waiting[0]
            try:
                future = self._executor.submit(self._work, task)
            except BrokenExecutor:
                return False
            self._waiting.popleft()
            self._running[future] = (task, attempt)
        return True

    def _again(self, task: Task, attempt: int, error: BaseException) -> None:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        if attempt >= ATTEMPTS:
            raise ServiceError(
                f"the {task.name} failed {attempt} times, at last with {what}; look at the memory"
                " and logs of the workers"
            ) from error
        logger.warning("the %s failed (%s) and is begun again", task.name, what)
        self._waiting.append((task, attempt + 1))
