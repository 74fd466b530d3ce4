"""Where tasks run: processes here, a Dask cluster, or any executor that somebody names."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from apsber_bluesky.core import (
    Cancellation,
    ConfigurationError,
    ServiceError,
    die_with_parent,
)

_CONNECT_TIMEOUT_S = 30
# Each worker works on a slab of its own; libraries that start a thread for every processor would
# only fight.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_stop: Cancellation | None = None


def stop_of_this_worker() -> Cancellation | None:
    """What tells a worker of `LocalProcesses` to stop; None anywhere else."""
    return _stop


def _begin_worker(parent_pid: int, stop: Cancellation) -> None:
    global _stop  # a pool has no other way to hand a thing to its tasks
    die_with_parent(parent_pid)
    # Ctrl-C reaches every process of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop = stop


class InThisProcess(Executor):
    """An executor that does each task when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it, as in any executor
            future.set_exception(error)
        return future


@contextmanager
def local_processes(count: int, cancelled: Cancellation) -> Iterator[Executor]:
    """Processes of this machine, of one thread each; they end with this one.

    Parameters
    ----------
    count : int
        How many.
    cancelled : Cancellation
        Asked when the context is left: what is under way is then not waited for.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(), stop)
    )
    try:
        yield pool
    except BaseException:
        stop.set()
        raise
    finally:
        if cancelled.is_set():
            stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class DaskCluster:
    """A Dask cluster that is running somewhere.

    Parameters
    ----------
    address : str
        Of its scheduler, e.g. ``tcp://host:8786``.

    Raises
    ------
    ConfigurationError
        If Dask distributed is not installed.
    ServiceError
        If nobody answers, or the cluster has no worker.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ConfigurationError(
                "a Dask cluster needs Dask distributed; install apsber_bluesky[cluster]"
            ) from error
        try:
            self._client = Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise ServiceError(
                f"no Dask cluster with workers at {address}: {error}; start it, or correct the"
                " address"
            ) from error
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        self.workers = sum(int(worker["nthreads"]) for worker in workers)
        limits = [int(w["memory_limit"]) // int(w["nthreads"]) for w in workers]
        #: Memory that the smallest worker has for a task [byte]; 0 if there is no limit.
        self.task_bytes = min((limit for limit in limits if limit), default=0)

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """Its executor."""
        # Dask gives each task to another worker when one dies, and counts how often.
        with self._client.get_executor(pure=False) as executor:
            yield executor

    def close(self) -> None:
        """Leave the cluster as it is."""
        self._client.close()


@contextmanager
def named_executor(entry: str) -> Iterator[Executor]:
    """An executor made by a function that is named as ``module:function``.

    Raises
    ------
    ConfigurationError
        If there is no such function, or it makes something else.
    """
    module, _, name = entry.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"no executor {entry!r}: {error}; name a function as module:function"
        ) from error
    executor = factory()
    # Globus Compute's has all of the interface, but another ancestor in some versions.
    if not callable(getattr(executor, "submit", None)):
        raise ConfigurationError(f"{entry} made {type(executor).__name__}, which is no executor")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
