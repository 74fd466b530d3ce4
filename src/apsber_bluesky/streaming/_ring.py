"""Frames in shared memory: written once, read where they lie, and the source never waits.

The memory is an anonymous file that the session makes and hands to its processes, so nothing is
left behind however they end. A frame's slot follows from its sequence number, so the frames of a
chunk lie side by side and are read without a copy. Whoever writes or reads a slot holds a lock on
it; the kernel gives the lock back when its process ends. Nobody waits for a lock: a writer that
finds a reader leaves the frame out of the ring, and a reader that finds a writer goes to the spool.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.streaming._frame_tags import (
    frame_tag,
    index_of_tag,
    key_of_tag,
    stream_key,
)
from apsber_bluesky.streaming._ring_locks import MAXIMUM_SLOTS, SlotLocks
from apsber_bluesky.streaming._ring_memory import (
    NO_SEQUENCE,
    Layout,
    RingMemory,
    create_ring_memory,
)

__all__ = [
    "FrameRing",
    "create_ring_memory",
    "frame_tag",
    "index_of_tag",
    "key_of_tag",
    "stream_key",
]


class FrameRing:
    """A ring of frames in shared memory, any number of writers and readers.

    One object may be used by several threads. Where other processes do not see its locks (see
    `SlotLocks.between_processes`) the ring still works with one process that writes: frames are
    copied out and checked, `view` and `writable` yield None.

    Parameters
    ----------
    descriptor : int
        From `create_ring_memory`; the ring does not close it.

    Attributes
    ----------
    descriptor : int
        The memory, for child processes to inherit.

    Raises
    ------
    InputError
        If the memory has no room for frames.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = RingMemory(descriptor)
        # One that never holds a lock: a child that shared such a description would keep the locks
        # of a parent that was killed.
        self.descriptor = os.dup(descriptor)
        self._locks = SlotLocks(descriptor)
        self._wanted: int | None = None

    def touch(self) -> None:
        """Fault all pages in now, without changing them: a first touch costs many copies."""
        self._memory.touch()

    @property
    def frame_bytes(self) -> int:
        """Size of the frames that the ring is laid out for [byte]; 0 before `shape_for`."""
        return self._memory.layout.frame_bytes

    @property
    def slots(self) -> int:
        """Frames of the current size that the ring holds."""
        return self._memory.layout.slots

    @property
    def generation(self) -> int:
        """Counts the layouts."""
        return self._memory.layout.generation

    @property
    def head(self) -> int:
        """Highest sequence that lies in the ring; -1 when it is empty."""
        memory = self._memory
        return int(memory.sequences[memory.tags != 0].max(initial=NO_SEQUENCE))

    @property
    def consumed(self) -> int:
        """Highest sequence that anybody has read in this layout; -1 when there is none."""
        return self._memory.consumed

    @property
    def fill(self) -> float:
        """The part of the ring, 0 to 1, that holds frames newer than any that was read."""
        memory = self._memory
        unread = np.count_nonzero((memory.tags != 0) & (memory.sequences > memory.consumed))
        return int(unread) / max(self.slots, 1)

    def shape_for(self, frame_bytes: int) -> bool:
        """Lay the ring out for frames of a size; what it held is forgotten.

        Only one process does this. While another still reads or writes a slot the layout stays,
        and each later call of `put` or `expect` tries again; until then their frames are left out.

        Parameters
        ----------
        frame_bytes : int
            Size of one decoded frame [byte].

        Returns
        -------
        bool
            Whether the ring is laid out now.
        """
        self._wanted = frame_bytes
        return self._laid_out()

    def _laid_out(self) -> bool:
        wanted = self._wanted
        if wanted is None:
            return True
        # Who has any slot can rely on the layout.
        if not self._locks.own(0, MAXIMUM_SLOTS):
            return False
        try:
            self._memory.lay_out(wanted)
            self._wanted = None
        finally:
            self._locks.disown(0, MAXIMUM_SLOTS)
        return True

    def put(self, sequence: int, tag: int, pixels: Any, *, generation: int | None = None) -> bool:
        """Copy one frame into its slot, over an older one; never waits.

        Parameters
        ----------
        sequence : int
            Number of the frame since `shape_for`, from 0; it lies in slot ``sequence % slots``. The
            frames of a series are numbered by their place in it, so that those of a chunk lie side
            by side also when some come late or not at all.
        tag : int
            From `frame_tag`: what readers ask for.
        pixels : bytes-like
            The decoded frame.
        generation : int, optional
            The layout that the sequence was meant for; by default the present one.

        Returns
        -------
        bool
            False if the frame was left out: it has not the size of the slots, the slot holds a
            newer frame or is being read, or the layout has changed. Readers find it in the spool.
        """
        source = np.frombuffer(pixels, np.uint8)
        with self._claimed(sequence, tag, generation, source.size) as slot:
            if slot is None:
                return False
            slot[:] = source
        return True

    @contextmanager
    def writable(
        self, sequence: int, tag: int, *, generation: int | None = None
    ) -> Iterator[NDArray[np.uint8] | None]:
        """Lend the slot of a frame, to be filled; parameters as `put`.

        Yields
        ------
        ndarray of uint8, shape (frame_bytes,), or None
            None where `put` would leave the frame out. The frame is there when the body ends
            without an exception.
        """
        if not self._locks.between_processes:
            # Another writer could be at work in the same slot.
            self.forget(tag)
            yield None
            return
        with self._claimed(sequence, tag, generation, None) as slot:
            yield slot

    @contextmanager
    def _claimed(
        self, sequence: int, tag: int, generation: int | None, size: int | None
    ) -> Iterator[NDArray[np.uint8] | None]:
        memory = self._memory
        claim = self._claim(sequence, generation, size)
        if claim is None:
            self.forget(tag)
            yield None
            return
        slot, layout = claim
        try:
            memory.tags[slot] = 0
            memory.sequences[slot] = sequence
            yield memory.frames(layout, slot)
            memory.tags[slot] = tag
        finally:
            # After the tag: who no longer finds it expected finds it there, if it is.
            if memory.expected[slot] == tag:
                memory.expected[slot] = 0
            self._locks.disown(slot, 1)

    def _claim(
        self, sequence: int, generation: int | None, size: int | None
    ) -> tuple[int, Layout] | None:
        """Lock the slot of a frame, if it may be written now."""
        layout = self._memory.layout if self._laid_out() else None
        if (
            layout is None
            or not layout.slots
            or sequence < 0
            or generation not in (None, layout.generation)
            or size not in (None, layout.frame_bytes)
        ):
            return None
        slot = sequence % layout.slots
        if not self._locks.own(slot, 1):
            return None
        if self._memory.layout == layout and self._memory.sequences[slot] <= sequence:
            return slot, layout
        self._locks.disown(slot, 1)
        return None

    def expect(self, sequence: int, tag: int) -> int | None:
        """Tell readers that a frame is on its way, so that they wait for it a little.

        Returns
        -------
        int or None
            The generation to hand to `put`; None if the frame cannot get into the ring.
        """
        layout = self._memory.layout if self._laid_out() else None
        if layout is None or not layout.slots or sequence < 0:
            return None
        self._memory.expected[sequence % layout.slots] = tag
        return layout.generation

    def forget(self, tag: int | None = None) -> None:
        """A frame does not come after all; without a tag, all that were expected do not.

        A receiver that takes over from one that died does the latter.
        """
        expected = self._memory.expected
        if tag is None:
            expected[:] = 0
        else:
            expected[expected == np.uint64(tag)] = 0

    def drop(self, tags: Sequence[int]) -> None:
        """Frames are not to be found any more; who is reading one finds that out in the end."""
        there = self._memory.tags
        there[np.isin(there, np.asarray(tags, np.uint64))] = 0

    def expects(self, tags: Sequence[int]) -> bool:
        """Whether one of some frames is on its way."""
        expected = self._memory.expected
        on_their_way = expected[expected != 0]
        return bool(on_their_way.size) and bool(
            np.isin(np.asarray(tags, np.uint64), on_their_way).any()
        )

    def get(self, tag: int, out: NDArray[Any], *, looks_on: bool = False) -> bool:
        """Copy one frame out.

        Parameters
        ----------
        tag : int
            The frame.
        out : ndarray
            Where to; C-contiguous, of the size of a frame.
        looks_on : bool
            Whether it is only looked at: then `consumed` and `fill` do not count it.

        Returns
        -------
        bool
            False if the ring does not hold it, or it is just being overwritten.
        """
        target = out.reshape(-1).view(np.uint8)
        with self._shared(np.array([tag], np.uint64), consumes=not looks_on) as pieces:
            if pieces is None or pieces[0].size != target.size:
                return False
            target[:] = pieces[0]
            # Without locks between processes it may have been overwritten meanwhile.
            return self._locks.between_processes or bool((self._memory.tags == tag).any())

    @contextmanager
    def view(self, tags: Sequence[int]) -> Iterator[list[NDArray[np.uint8]] | None]:
        """Lend frames that lie side by side; they stay as they are until the body ends.

        Parameters
        ----------
        tags : sequence of int
            The frames, in order.

        Yields
        ------
        list of ndarray of uint8, or None
            Their bytes, read-only, in one piece, or in two where the ring's end lies between them.
            None if they are not all there, side by side.
        """
        if not self._locks.between_processes or not len(tags):
            yield None
            return
        with self._shared(np.asarray(tags, np.uint64)) as pieces:
            yield pieces

    @contextmanager
    def _shared(
        self, tags: NDArray[np.uint64], *, consumes: bool = True
    ) -> Iterator[list[NDArray[np.uint8]] | None]:
        memory, layout = self._memory, self._memory.layout
        parts = self._find(tags, layout)
        locked: list[tuple[int, int]] = []
        try:
            for part in parts:
                if not self._locks.share(*part):
                    break
                locked.append(part)
            if not parts or locked != parts or memory.layout != layout:
                yield None
                return
            there = np.concatenate([memory.tags[first : first + n] for first, n in parts])
            if not np.array_equal(there, tags):
                yield None
                return
            pieces = [memory.frames(layout, *part) for part in parts]
            for piece in pieces:
                piece.flags.writeable = False
            newest = max(int(memory.sequences[first : first + n].max()) for first, n in parts)
            yield pieces
            if consumes:
                memory.consumed = max(memory.consumed, newest)
        finally:
            for part in locked:
                self._locks.unshare(*part)

    def _find(self, tags: NDArray[np.uint64], layout: Layout) -> list[tuple[int, int]]:
        """Where some frames lie side by side: first slot and count, once or twice; or nothing."""
        count = len(tags)
        found = np.flatnonzero(self._memory.tags[: layout.slots] == tags[0])
        if not found.size or count > layout.slots or not tags.all():
            return []
        first = int(found[0])
        before_end = min(count, layout.slots - first)
        parts = [(first, before_end)]
        return [*parts, (0, count - before_end)] if before_end < count else parts

    def close(self) -> None:
        """Let go of the memory."""
        self._locks.close()
        os.close(self.descriptor)
        self._memory.close()
