"""Tasks that fail are begun again, not for ever; those that somebody stops end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from apsber_bluesky.core import ConfigurationError, InputError, RunCancelled, ServiceError
from apsber_bluesky.pipeline import local_processes, named_executor, run_tasks
from apsber_bluesky.pipeline._executors import stop_of_this_worker


@dataclass
class Chore:
    number: int
    folder: Path
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"chore {self.number}"


def attempts(chore: Chore) -> int:
    return len(list(chore.folder.glob(f"{chore.number}-*")))


def begin(chore: Chore) -> int:
    number = attempts(chore)
    (chore.folder / f"{chore.number}-{number}").touch()
    return number


def do(chore: Chore) -> int:
    if begin(chore) < chore.failures.get(chore.number, 0):
        raise OSError(f"no luck with {chore.number}")
    return chore.number * 10


def die(chore: Chore) -> int:
    """End the whole process, as a worker that runs out of memory."""
    if begin(chore) < chore.failures.get(chore.number, 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return chore.number * 10


def refuse(chore: Chore) -> int:
    begin(chore)
    raise InputError("this will never do")


def wait_for_the_end(chore: Chore) -> int:
    begin(chore)
    stop = stop_of_this_worker()
    assert stop is not None
    while not stop.is_set():
        time.sleep(0.01)
    raise RunCancelled("told to stop")


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def run(work, folder, *, count=6, failures=None, executor=threads, cancelled=None):
    chores = [Chore(number, folder, failures or {}) for number in range(count)]
    cancelled = cancelled or threading.Event()
    return list(run_tasks(executor, work, chores, at_once=3, cancelled=cancelled))


def test_every_task_is_done_once(tmp_path):
    assert sorted(run(do, tmp_path)) == [0, 10, 20, 30, 40, 50]
    assert len(list(tmp_path.iterdir())) == 6


def test_a_task_that_fails_is_begun_again(tmp_path):
    assert sorted(run(do, tmp_path, failures={1: 1, 4: 2})) == [0, 10, 20, 30, 40, 50]
    assert len(list(tmp_path.iterdir())) == 9


def test_a_task_that_fails_for_ever_is_named(tmp_path):
    with pytest.raises(
        ServiceError, match=r"chore 2 failed 3 times, at last with OSError: no luck"
    ):
        run(do, tmp_path, failures={2: 99})
    assert len(list(tmp_path.glob("2-*"))) == 3


def test_wrong_input_is_not_tried_again(tmp_path):
    with pytest.raises(InputError, match="never do"):
        run(refuse, tmp_path, count=1)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_worker_that_dies_takes_no_task_along(tmp_path):
    cancelled = threading.Event()
    executor = partial(local_processes, 2, cancelled)
    done = run(die, tmp_path, count=4, failures={2: 1}, executor=executor, cancelled=cancelled)
    assert sorted(done) == [0, 10, 20, 30]
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_a_task_that_kills_every_worker_is_named(tmp_path):
    cancelled = threading.Event()
    executor = partial(local_processes, 1, cancelled)
    with pytest.raises(
        ServiceError, match="chore 0 failed 3 times, at last with BrokenProcessPool"
    ):
        run(die, tmp_path, count=1, failures={0: 99}, executor=executor, cancelled=cancelled)
    assert len(list(tmp_path.iterdir())) == 3


def test_workers_are_told_to_stop(tmp_path):
    cancelled = threading.Event()
    executor = partial(local_processes, 1, cancelled)

    def stop_when_begun() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        cancelled.set()

    watcher = threading.Thread(target=stop_when_begun)
    watcher.start()
    with pytest.raises(RunCancelled):
        run(wait_for_the_end, tmp_path, count=2, executor=executor, cancelled=cancelled)
    watcher.join()


def test_threads_of_libraries_do_not_fight(tmp_path):
    cancelled = threading.Event()
    before = os.environ.get("OMP_NUM_THREADS")
    with local_processes(1, cancelled) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("nowhere:made", "no executor 'nowhere:made'"),
        ("os:no_such", "name a function as module:function"),
        ("", "no executor ''"),
        ("builtins:dict", "made dict, which is no executor"),
    ],
)
def test_an_executor_that_cannot_be_made_is_refused(entry, words):
    with pytest.raises(ConfigurationError, match=words), named_executor(entry):
        pass
