"""The memory of a ring: what stands where in it, and how it is made and mapped."""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.streaming._ring_locks import MAXIMUM_SLOTS

_HEADER_BYTES: Final = 4096
_TABLE_BYTES: Final = MAXIMUM_SLOTS * 8
# Header and tables of tags, sequences and expected tags; whole pages, so that frames are aligned.
_BOOKS_BYTES: Final = _HEADER_BYTES + 3 * _TABLE_BYTES

# Places in the header: the layout's three, then this.
_CONSUMED: Final = 3

NO_SEQUENCE: Final = -1

# MADV_POPULATE_WRITE of madvise(2), which `mmap` has no name for.
_POPULATE_WRITE: Final = 23


class Layout(NamedTuple):
    """How the room is divided."""

    frame_bytes: int
    slots: int
    generation: int


def create_ring_memory(size_bytes: int) -> int:
    """Make the anonymous memory of a ring.

    Parameters
    ----------
    size_bytes : int
        Room for frames [byte].

    Returns
    -------
    int
        A file descriptor that child processes can inherit; close it when they have it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("apsber-frame-ring", 0)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _BOOKS_BYTES + size_bytes)
    os.set_inheritable(descriptor, True)
    return descriptor


class RingMemory:
    """The memory of a ring as this process sees it; nothing here is locked.

    Parameters
    ----------
    descriptor : int
        From `create_ring_memory`.

    Attributes
    ----------
    tags, expected : ndarray of uint64, shape (MAXIMUM_SLOTS,)
        The frame that lies in each slot, and the one that is on its way into it; 0 for none.
    sequences : ndarray of int64, shape (MAXIMUM_SLOTS,)
        Sequence of the frame for which each slot was last claimed.

    Raises
    ------
    InputError
        If it has no room for frames.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._room = size - _BOOKS_BYTES
        if self._room <= 0:
            raise InputError(f"a frame ring of {size} bytes has no room for frames")
        self._map = mmap.mmap(descriptor, size)
        # Single values are read and written many times faster through a memoryview.
        self._header = memoryview(self._map)[:_HEADER_BYTES].cast("q")
        self.tags = self._table(np.uint64, 0)
        self.expected = self._table(np.uint64, 1)
        self.sequences = self._table(np.int64, 2)
        self._data = np.frombuffer(self._map, np.uint8, self._room, _BOOKS_BYTES)

    def _table(self, dtype: Any, number: int) -> NDArray[Any]:
        begin = _HEADER_BYTES + number * _TABLE_BYTES
        return np.frombuffer(self._map, dtype, MAXIMUM_SLOTS, begin)

    @property
    def layout(self) -> Layout:
        """The present layout."""
        return Layout(*self._header[: len(Layout._fields)].tolist())

    @property
    def consumed(self) -> int:
        """Highest sequence that was read in this layout."""
        return self._header[_CONSUMED]

    @consumed.setter
    def consumed(self, sequence: int) -> None:
        self._header[_CONSUMED] = sequence

    def lay_out(self, frame_bytes: int) -> None:
        """Divide the room into slots of a size, and forget what lay in it."""
        self.tags[:] = self.expected[:] = 0
        self.sequences[:] = self.consumed = NO_SEQUENCE
        slots = min(self._room // frame_bytes, MAXIMUM_SLOTS)
        self._header[0], self._header[1] = frame_bytes, slots
        self._header[2] += 1

    def frames(self, layout: Layout, first: int, count: int = 1) -> NDArray[np.uint8]:
        """The bytes of `count` slots side by side."""
        begin = first * layout.frame_bytes
        return self._data[begin : begin + count * layout.frame_bytes]

    def touch(self) -> None:
        """Fault all pages in; what others left in them stays."""
        try:
            # Writable, too: else the first write to each page costs another fault.
            self._map.madvise(_POPULATE_WRITE)
        except OSError:
            # Linux before 5.14.
            self._data[:: mmap.PAGESIZE].max()

    def close(self) -> None:
        """Unmap the memory."""
        self._header.release()
        del self._header, self.tags, self.expected, self.sequences, self._data
        # Who still has an array of it keeps it mapped until the array is gone.
        with suppress(BufferError):
            self._map.close()
