"""Frames in shared memory: the receiver writes, consumers read, and the source never waits.

The memory is an anonymous file that the session makes and hands to both processes, so nothing is
left behind however they end. Each slot carries a tag that names its frame; the tag is cleared
before the slot is overwritten and set after, and a reader that finds another tag after copying
than before reads the frame from the spool instead.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

_HEADER_BYTES: Final = 4096
_MAXIMUM_SLOTS: Final = 4096
_TAGS_BYTES: Final = _MAXIMUM_SLOTS * 8
_INDEX_BITS: Final = 32


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
    os.ftruncate(descriptor, _HEADER_BYTES + _TAGS_BYTES + size_bytes)
    os.set_inheritable(descriptor, True)
    return descriptor


class FrameRing:
    """A ring of frames in shared memory, one writer and any number of readers.

    Parameters
    ----------
    descriptor : int
        From `create_ring_memory`; the ring does not close it.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._room = size - _HEADER_BYTES - _TAGS_BYTES
        if self._room <= 0:
            raise InputError(f"a frame ring of {size} bytes has no room for frames")
        self._memory = mmap.mmap(descriptor, size)
        # header: [slot bytes, slots, next slot]
        self._header = np.frombuffer(self._memory, np.int64, 3)
        self._tags = np.frombuffer(self._memory, np.uint64, _MAXIMUM_SLOTS, _HEADER_BYTES)
        self._data = np.frombuffer(self._memory, np.uint8, self._room, _HEADER_BYTES + _TAGS_BYTES)

    def touch(self) -> None:
        """Fault all pages in now: the first touch of a page costs many times a copy."""
        self._data[:: mmap.PAGESIZE] = 0

    @property
    def slots(self) -> int:
        """Frames of the current size that the ring holds."""
        return int(self._header[1])

    def shape_for(self, frame_bytes: int) -> None:
        """Lay the ring out for frames of another size; what it held is forgotten."""
        self._tags[:] = 0
        self._header[:] = (frame_bytes, min(self._room // frame_bytes, _MAXIMUM_SLOTS), 0)

    def put(self, tag: int, pixels: memoryview) -> bool:
        """Copy one frame in, over the oldest. False if the frame has not the size of the slots."""
        slot_bytes, slots, slot = (int(value) for value in self._header)
        if len(pixels) != slot_bytes or slots == 0:
            return False
        self._tags[slot] = 0
        begin = slot * slot_bytes
        self._data[begin : begin + slot_bytes] = np.frombuffer(pixels, np.uint8)
        self._tags[slot] = tag
        self._header[2] = (slot + 1) % slots
        return True

    def get(self, tag: int, out: NDArray[Any]) -> bool:
        """Copy one frame out. False if the ring no longer holds it."""
        slot_bytes, slots, _ = (int(value) for value in self._header)
        target = out.reshape(-1).view(np.uint8)
        found = np.flatnonzero(self._tags[:slots] == np.uint64(tag))
        if found.size == 0 or target.size != slot_bytes:
            return False
        slot = int(found[0])
        target[:] = self._data[slot * slot_bytes : (slot + 1) * slot_bytes]
        return bool(self._tags[slot] == np.uint64(tag))

    def close(self) -> None:
        """Let go of the memory."""
        del self._header, self._tags, self._data
        self._memory.close()


def stream_key(run_uid: str, stream: str) -> int:
    """A number for a stream of a run, from which `frame_tag` makes tags."""
    return xxhash.xxh3_64_intdigest(f"{run_uid}/{stream}".encode()) >> _INDEX_BITS


def frame_tag(key: int, index: int) -> int:
    """The tag of a frame: its stream in the upper, its index + 1 in the lower half; never 0."""
    return (key << _INDEX_BITS) | (index + 1)
