"""The ring of frames in shared memory, as several processes see it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import InputError
from apsber_bluesky.streaming import FrameRing, create_ring_memory
from apsber_bluesky.streaming._ring import frame_tag, stream_key

FRAME = 64


@pytest.fixture
def descriptor():
    descriptor = create_ring_memory(4 * FRAME + 10)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ring(descriptor):
    ring = FrameRing(descriptor)
    ring.touch()
    ring.shape_for(FRAME)
    yield ring
    ring.close()


def frame(value: int, size: int = FRAME) -> memoryview:
    return memoryview(np.full(size, value % 256, np.uint8))


def value_of(ring: FrameRing, tag: int, size: int = FRAME) -> int | None:
    out = np.zeros(size, np.uint8)
    if not ring.get(tag, out):
        return None
    assert (out == out[0]).all()
    return int(out[0])


def test_the_ring_holds_as_many_frames_as_there_is_room_for_and_forgets_the_oldest(ring):
    assert ring.slots == 4
    for number in range(1, 11):
        assert ring.put(number, frame(number))
    assert [value_of(ring, number) for number in range(1, 11)] == [None] * 6 + [7, 8, 9, 10]


@given(st.lists(st.integers(1, 30), max_size=60))
def test_the_ring_holds_the_newest_frames_whatever_their_order(numbers):
    descriptor = create_ring_memory(5 * FRAME)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    try:
        ring.shape_for(FRAME)
        for number in numbers:
            ring.put(number, frame(number))
        newest = set(numbers[-5:])
        for number in range(1, 31):
            assert value_of(ring, number) == (number if number in newest else None)
    finally:
        ring.close()


def test_frames_of_another_size_are_not_taken(ring):
    assert not ring.put(1, frame(1, FRAME - 1))
    assert not ring.put(1, frame(1, FRAME + 1))
    assert value_of(ring, 1) is None
    ring.put(1, frame(1))
    assert not ring.get(1, np.zeros(FRAME // 2, np.uint8))


def test_a_change_of_size_forgets_what_was_there(ring):
    ring.put(1, frame(1))
    ring.shape_for(FRAME // 2)
    assert ring.slots == 8
    assert value_of(ring, 1, FRAME // 2) is None
    assert ring.put(2, frame(2, FRAME // 2))
    assert value_of(ring, 2, FRAME // 2) == 2
    assert value_of(ring, 2) is None


def test_a_ring_too_small_for_one_frame_holds_none_and_says_so(ring):
    ring.shape_for(10_000)
    assert ring.slots == 0
    assert not ring.put(1, frame(1, 10_000))
    assert value_of(ring, 1, 10_000) is None


def test_pixels_of_any_type_come_back(ring):
    pixels = np.arange(FRAME // 4, dtype="<f4").reshape(4, 4)
    ring.put(5, pixels.data.cast("B"))
    out = np.zeros_like(pixels)
    assert ring.get(5, out)
    np.testing.assert_array_equal(out, pixels)


class OverwrittenWhileRead(np.ndarray):
    """Where a frame is copied to; the writer overtakes the reader in the middle of the copy."""

    ring: FrameRing

    def __setitem__(self, place, value):
        self.ring.put(99, frame(99))
        super().__setitem__(place, value)


def test_a_frame_that_is_overwritten_while_it_is_read_is_not_handed_out(descriptor):
    ring = FrameRing(descriptor)
    ring.shape_for(4 * FRAME)
    assert ring.slots == 1
    ring.put(1, frame(1, 4 * FRAME))
    out = np.zeros(4 * FRAME, np.uint8).view(OverwrittenWhileRead)
    writer = FrameRing(descriptor)
    OverwrittenWhileRead.ring = WideWriter(writer)
    assert not ring.get(1, out)
    assert value_of(ring, 99, 4 * FRAME) == 99
    writer.close()
    ring.close()


class WideWriter:
    """Puts frames of the size that the ring is laid out for."""

    def __init__(self, ring: FrameRing) -> None:
        self._ring = ring

    def put(self, tag: int, pixels: memoryview) -> bool:
        return self._ring.put(tag, frame(pixels[0], 4 * FRAME))


WRITER = """
import sys
import numpy as np
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
size = int(sys.argv[2])
for number in range(1, 3001):
    ring.put(number, memoryview(np.full(size, number % 251, np.uint8)))
ring.close()
"""


def test_a_reader_in_another_process_never_gets_a_torn_frame():
    size = 20_000
    descriptor = create_ring_memory(3 * size)
    ring = FrameRing(descriptor)
    ring.shape_for(size)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(descriptor), str(size)], pass_fds=[descriptor]
    )
    os.close(descriptor)
    out = np.zeros(size, np.uint8)
    got, number = 0, 1
    try:
        while writer.poll() is None:
            if ring.get(number, out):
                assert (out == number % 251).all()
                got += 1
            newest = int(ring._tags[: ring.slots].max())
            number = max(number, newest)
        assert writer.returncode == 0
        assert got > 0
        assert all(ring.get(number, out) for number in (2998, 2999, 3000))
    finally:
        writer.kill()
        writer.wait()
        ring.close()


def test_memory_without_room_is_refused():
    descriptor = create_ring_memory(0)
    with pytest.raises(InputError, match="has no room for frames"):
        FrameRing(descriptor)
    os.close(descriptor)


def test_tags_tell_runs_streams_and_frames_apart_and_are_never_zero():
    keys = [stream_key(run, stream) for run in ("a", "b") for stream in ("primary", "flats")]
    tags = {frame_tag(key, index) for key in keys for index in (0, 1, 2**31)}
    assert len(tags) == 12
    assert all(0 < tag < 2**64 for tag in tags)
