"""Locks of the ring's slots, held by the kernel so that they end with the process that has them.

A lock is a byte range of the ring's own memory file (open file description locks, fcntl(2)). They
belong to the description, so each `SlotLocks` opens the file anew: one that was inherited is shared
with the parent and its locks would not conflict. Threads of one process share a `SlotLocks`, which
therefore counts who reads what.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from contextlib import suppress
from typing import Final

#: As many slots as can be locked.
MAXIMUM_SLOTS: Final = 4096

# struct flock with 64-bit offsets: type, whence, start, length, pid (0 for these locks).
_FLOCK: Final = struct.Struct("hhqqi4x")
_WRITER: Final = -1


class SlotLocks:
    """Shared and exclusive locks of slots, never waited for.

    Parameters
    ----------
    descriptor : int
        The ring's memory.

    Attributes
    ----------
    between_processes : bool
        Whether other processes see the locks. Not where the system has no such locks (macOS) or no
        ``/proc``; there only the threads of this process see them.
    """

    def __init__(self, descriptor: int) -> None:
        self._command: int | None = getattr(fcntl, "F_OFD_SETLK", None)
        self._file = -1
        if self._command is not None:
            with suppress(FileNotFoundError):
                self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        self.between_processes = self._file >= 0
        # Readers of each slot among the threads of this process, or _WRITER.
        self._holders = [0] * MAXIMUM_SLOTS
        self._mutex = threading.Lock()

    def share(self, first: int, count: int) -> bool:
        """Lock slots for reading: all of them, or none if one is being written."""
        with self._mutex:
            held = self._holders[first : first + count]
            if _WRITER in held or not self._ask(fcntl.F_RDLCK, first, count):
                return False
            self._holders[first : first + count] = [readers + 1 for readers in held]
            return True

    def unshare(self, first: int, count: int) -> None:
        """Give back what `share` locked."""
        with self._mutex:
            left = [readers - 1 for readers in self._holders[first : first + count]]
            self._holders[first : first + count] = left
            if not any(left):
                self._ask(fcntl.F_UNLCK, first, count)
                return
            for slot, readers in enumerate(left, first):
                if not readers:
                    self._ask(fcntl.F_UNLCK, slot, 1)

    def own(self, first: int, count: int) -> bool:
        """Lock slots for writing: all of them, or none if anybody has one."""
        with self._mutex:
            if any(self._holders[first : first + count]):
                return False
            if not self._ask(fcntl.F_WRLCK, first, count):
                return False
            self._holders[first : first + count] = [_WRITER] * count
            return True

    def disown(self, first: int, count: int) -> None:
        """Give back what `own` locked."""
        with self._mutex:
            self._holders[first : first + count] = [0] * count
            self._ask(fcntl.F_UNLCK, first, count)

    def _ask(self, kind: int, first: int, count: int) -> bool:
        if self._command is None or not self.between_processes:
            return True
        try:
            fcntl.fcntl(self._file, self._command, _FLOCK.pack(kind, os.SEEK_SET, first, count, 0))
        # What fcntl(2) says when somebody else has a lock that conflicts.
        except (BlockingIOError, PermissionError):
            return False
        return True

    def close(self) -> None:
        """Give back all locks."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.between_processes = False
