"""What a process of the suite does to itself before anything else."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import struct
import sys
import threading
from _thread import start_new_thread
from typing import Any

_PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_IPC_LOCK = 14
_CAP_SYS_NICE = 23


def forgo_real_time() -> None:
    """Give up the right to real-time threads and locked memory, in this thread and those it starts.

    EPICS' C library gives its threads real-time priority when it may, and an IOC locks its memory;
    as root on a small machine that starves everything else. Call this before importing EPICS.
    Outside Linux it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget failed")
    drop = ~((1 << _CAP_IPC_LOCK) | (1 << _CAP_SYS_NICE)) & 0xFFFFFFFF
    effective, permitted, inheritable, *rest = struct.unpack("=6I", data.raw)
    data.raw = struct.pack("=6I", effective & drop, permitted & drop, inheritable & drop, *rest)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel end this process (SIGTERM) when the process that started it ends.

    Parameters
    ----------
    parent_pid : int
        Process id of the parent. If it has already gone, this process ends at once.
    """
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent_pid:
        raise SystemExit(f"parent process {parent_pid} has already gone")


def note_sigterm() -> threading.Event:
    """Have SIGTERM set an event, instead of ending this process. Call it in the main thread.

    Returns
    -------
    threading.Event
        Set by the first SIGTERM, and by those that follow.
    """
    stop = threading.Event()

    def handle(*_: object) -> None:
        # A handler runs between any two instructions of the main thread, which may hold the
        # event's lock: in `wait`, or in the handler of the SIGTERM before. Setting it here could
        # wait for that for ever.
        if not stop.is_set():
            start_new_thread(stop.set, ())

    signal.signal(signal.SIGTERM, handle)
    return stop


def begin_service() -> tuple[dict[str, Any], threading.Event]:
    """Do what every process of a session does first, in its main thread.

    It logs to standard error, reads its settings, one JSON object on the first line of standard
    input with ``parent_pid`` among them, ends with its parent, and leaves Ctrl-C to it.

    Returns
    -------
    dict
        The settings.
    threading.Event
        Set by SIGTERM: end in good order.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # One line for each request would be most of a log.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    die_with_parent(settings["parent_pid"])
    stop = note_sigterm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return settings, stop
