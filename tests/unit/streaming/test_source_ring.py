"""Reading frames by reference where a ring holds the newest of them."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from apsber_bluesky.core import FrameRange, SeriesRequest
from apsber_bluesky.streaming import FrameRing, RingOrFileSource, create_ring_memory
from apsber_bluesky.streaming._frame_tags import frame_tag, stream_key
from apsber_bluesky.streaming._series_messages import Frame
from apsber_bluesky.streaming._spool import Spool
from apsber_bluesky.streaming._spool_file import dataset_path

ROWS, COLUMNS, SLOTS = 6, 8, 5
FRAMES = np.arange(12 * ROWS * COLUMNS, dtype="<u2").reshape(12, ROWS, COLUMNS)
KEY = stream_key("run-1", "primary")


@pytest.fixture
def ring():
    descriptor = create_ring_memory(SLOTS * FRAMES[0].nbytes)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    ring.shape_for(FRAMES[0].nbytes)
    yield ring
    ring.close()


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "raw.h5", SeriesRequest("run-1", "primary", 12, ROWS, COLUMNS, "<u2"))
    spool.extend("primary", 12)
    yield spool
    spool.close()


@pytest.fixture
def frames(spool):
    """All frames, which lie in the spool."""
    for index in range(12):
        write(spool, index)
    spool.flush()
    return range_of(spool, 0, 12)


def range_of(spool: Spool, start: int, stop: int) -> FrameRange:
    return FrameRange("run-1", "primary", start, stop, spool.path.as_uri(), dataset_path("primary"))


def write(spool: Spool, index: int) -> None:
    pixels = FRAMES[index].data.cast("B")
    checksum = xxhash.xxh3_64_intdigest(pixels)
    spool.write("primary", index, Frame(1, index, 1.0, 0.0, checksum, pixels))


def put(ring: FrameRing, *indices: int, sequence: int = 0) -> None:
    for index in indices:
        assert ring.put(sequence + index, frame_tag(KEY, index), FRAMES[index].data.cast("B"))


@pytest.fixture
def source(ring):
    source = RingOrFileSource(ring)
    yield source
    source.close()


def test_frames_side_by_side_in_the_ring_are_lent_where_they_lie(ring, source, frames):
    put(ring, 0, 1, 2, 3)
    with source.borrow(replace(frames, start=1, stop=4)) as lent:
        np.testing.assert_array_equal(lent, FRAMES[1:4])
        assert lent.dtype == FRAMES.dtype
        assert not lent.flags.writeable
        # A newer frame would change them, so it is left out.
        assert not ring.put(6, frame_tag(KEY, 6), FRAMES[6].data.cast("B"))
    assert ring.put(6, frame_tag(KEY, 6), FRAMES[6].data.cast("B"))
    assert (source.from_ring, source.from_file) == (3, 0)
    assert ring.consumed == 3


def test_frames_around_the_end_of_the_ring_are_copied_out_of_it(ring, source, frames):
    put(ring, 3, 4, 5, 6)
    with source.borrow(replace(frames, start=3, stop=7)) as lent:
        np.testing.assert_array_equal(lent, FRAMES[3:7])
    assert (source.from_ring, source.from_file) == (4, 0)


@pytest.mark.parametrize("borrowed", [True, False])
@pytest.mark.parametrize("in_ring", [(), (4,), (3, 4), (5, 7), (3, 4, 5, 6, 7)])
def test_frames_that_the_ring_lacks_come_from_the_spool(ring, source, frames, in_ring, borrowed):
    put(ring, *in_ring)
    wanted = replace(frames, start=2, stop=8)
    if borrowed:
        with source.borrow(wanted) as lent:
            np.testing.assert_array_equal(lent, FRAMES[2:8])
    else:
        np.testing.assert_array_equal(source.read(wanted), FRAMES[2:8])
    assert (source.from_ring, source.from_file) == (len(in_ring), 6 - len(in_ring))


def test_without_a_ring_frames_are_lent_from_the_file(frames):
    source = RingOrFileSource()
    with source.borrow(frames) as lent:
        np.testing.assert_array_equal(lent, FRAMES)
    assert (source.from_ring, source.from_file) == (0, 12)
    source.close()


def test_frames_of_another_size_under_the_same_name_are_not_taken_from_the_ring(
    ring, source, frames
):
    ring.shape_for(FRAMES[0].nbytes // 2)
    half = bytes(FRAMES[0].nbytes // 2)
    for index in range(4):
        ring.put(index, frame_tag(KEY, index), half)
    with source.borrow(replace(frames, stop=4)) as lent:
        np.testing.assert_array_equal(lent, FRAMES[:4])
    np.testing.assert_array_equal(source.read(replace(frames, stop=4)), FRAMES[:4])
    assert source.from_ring == 0


@pytest.mark.parametrize("borrowed", [True, False])
def test_a_frame_that_is_on_its_way_is_waited_for(ring, source, frames, borrowed):
    put(ring, 0, 1)
    ring.expect(2, frame_tag(KEY, 2))
    timer = threading.Timer(0.03, put, (ring, 2))
    timer.start()
    wanted = replace(frames, stop=3)
    if borrowed:
        with source.borrow(wanted) as lent:
            np.testing.assert_array_equal(lent, FRAMES[:3])
    else:
        np.testing.assert_array_equal(source.read(wanted), FRAMES[:3])
    timer.join()
    assert (source.from_ring, source.from_file) == (3, 0)


def test_a_frame_that_never_comes_is_read_from_the_spool(ring, source, frames):
    ring.expect(1, frame_tag(KEY, 1))
    np.testing.assert_array_equal(source.read(replace(frames, stop=2)), FRAMES[:2])
    assert (source.from_ring, source.from_file) == (0, 2)


def test_a_frame_that_is_given_up_is_read_from_the_spool(ring, source, frames):
    ring.expect(1, frame_tag(KEY, 1))
    timer = threading.Timer(0.03, ring.forget, (frame_tag(KEY, 1),))
    timer.start()
    np.testing.assert_array_equal(source.read(replace(frames, stop=2)), FRAMES[:2])
    timer.join()


def test_two_threads_read_from_one_source(ring, source, frames):
    put(ring, 7, 8, 9, 10, 11)
    wrong: list[int] = []

    def read() -> None:
        for start in list(range(9)) * 10:
            with source.borrow(replace(frames, start=start, stop=start + 3)) as lent:
                wrong.append(int((lent != FRAMES[start : start + 3]).sum()))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 180
    assert not any(wrong)
    assert source.from_ring + source.from_file == 3 * 180
