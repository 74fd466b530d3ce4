"""The ring of frames in shared memory, within one process."""

from __future__ import annotations

import fcntl
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import InputError
from apsber_bluesky.streaming import FrameRing, create_ring_memory
from apsber_bluesky.streaming._frame_tags import frame_tag, index_of_tag, key_of_tag, stream_key

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


def frames_in(ring: FrameRing, count: int) -> list[int | None]:
    return [value_of(ring, number) for number in range(1, count + 1)]


def test_the_ring_holds_as_many_frames_as_there_is_room_for_and_forgets_the_oldest(ring):
    assert (ring.slots, ring.frame_bytes) == (4, FRAME)
    for number in range(1, 11):
        assert ring.put(number, number, frame(number))
    assert frames_in(ring, 10) == [None] * 6 + [7, 8, 9, 10]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_each_slot_holds_the_highest_sequence_that_it_was_given_whatever_their_order(sequences):
    descriptor = create_ring_memory(5 * FRAME)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    try:
        ring.shape_for(FRAME)
        highest = [-1] * 5
        for sequence in sequences:
            assert ring.put(sequence, sequence + 1, frame(sequence)) is (
                sequence >= highest[sequence % 5]
            )
            highest[sequence % 5] = max(highest[sequence % 5], sequence)
        for sequence in range(31):
            there = sequence == highest[sequence % 5]
            assert value_of(ring, sequence + 1) == (sequence if there else None)
        assert ring.head == max(sequences, default=-1)
    finally:
        ring.close()


def test_frames_of_another_size_are_not_taken(ring):
    assert not ring.put(0, 1, frame(1, FRAME - 1))
    assert not ring.put(0, 1, frame(1, FRAME + 1))
    assert value_of(ring, 1) is None
    assert ring.put(0, 1, frame(1))
    assert not ring.put(4, 2, frame(2, FRAME - 1))
    assert value_of(ring, 1) == 1
    assert not ring.get(1, np.zeros(FRAME // 2, np.uint8))


def test_a_change_of_size_forgets_what_was_there(ring):
    ring.put(7, 1, frame(1))
    before = ring.generation
    assert ring.shape_for(FRAME // 2)
    assert (ring.slots, ring.head, ring.consumed, ring.fill) == (8, -1, -1, 0.0)
    assert ring.generation == before + 1
    assert value_of(ring, 1, FRAME // 2) is None
    assert ring.put(0, 2, frame(2, FRAME // 2))
    assert value_of(ring, 2, FRAME // 2) == 2
    assert value_of(ring, 2) is None


def test_a_ring_too_small_for_one_frame_holds_none_and_says_so(ring):
    ring.shape_for(10_000)
    assert ring.slots == 0
    assert not ring.put(0, 1, frame(1, 10_000))
    assert ring.expect(0, 1) is None
    assert value_of(ring, 1, 10_000) is None
    assert ring.fill == 0.0


def test_a_ring_that_was_never_laid_out_holds_nothing(descriptor):
    ring = FrameRing(descriptor)
    assert not ring.put(0, 1, frame(1))
    assert not ring.get(1, np.zeros(FRAME, np.uint8))
    ring.close()


def test_pixels_of_any_type_come_back(ring):
    pixels = np.arange(FRAME // 4, dtype="<f4").reshape(4, 4)
    ring.put(0, 5, pixels.data.cast("B"))
    out = np.zeros_like(pixels)
    assert ring.get(5, out)
    np.testing.assert_array_equal(out, pixels)


def test_faulting_the_pages_in_leaves_the_frames_that_are_there(descriptor, ring):
    ring.put(0, 1, frame(9))
    other = FrameRing(descriptor)
    other.touch()
    assert value_of(other, 1) == 9
    other.close()


@pytest.mark.parametrize("same_object", [True, False])
def test_a_frame_that_is_lent_stays_as_it_is_and_the_writer_goes_on(ring, descriptor, same_object):
    writer = ring if same_object else FrameRing(descriptor)
    for number in range(4):
        writer.put(number, number + 1, frame(number))
    with ring.view([2, 3]) as pieces:
        (piece,) = pieces
        assert [writer.put(4 + n, 5 + n, frame(4 + n)) for n in range(4)] == [
            True,
            False,
            False,
            True,
        ]
        np.testing.assert_array_equal(piece, np.repeat([1, 2], FRAME))
        with pytest.raises(ValueError, match="read-only"):
            piece[0] = 1
    assert frames_in(ring, 8) == [None, 1, 2, None, 4, None, None, 7]
    assert writer.put(9, 10, frame(9))
    if not same_object:
        writer.close()


def test_frames_are_lent_in_one_piece_or_in_two_around_the_end(ring):
    for number in range(2, 6):
        ring.put(number, number + 1, frame(number))
    with ring.view([3, 4, 5, 6]) as pieces:
        assert [piece.size for piece in pieces] == [2 * FRAME, 2 * FRAME]
        np.testing.assert_array_equal(np.concatenate(pieces).reshape(4, FRAME)[:, 0], [2, 3, 4, 5])
    with ring.view([5, 6]) as pieces:
        assert [piece.size for piece in pieces] == [2 * FRAME]


@pytest.mark.parametrize("tags", [[], [3, 5], [4, 3], [2, 3], [6, 7], [3, 4, 5, 6, 7], [99]])
def test_frames_that_do_not_all_lie_side_by_side_are_not_lent(ring, tags):
    for number in range(2, 6):
        ring.put(number, number + 1, frame(number))
    with ring.view(tags) as pieces:
        assert pieces is None


def test_a_frame_that_readers_have_twice_is_theirs_until_both_are_done(ring):
    ring.put(0, 1, frame(1))
    with ring.view([1]), ring.view([1]) as pieces:
        assert pieces is not None
    with ring.view([1]):
        with ring.view([1]):
            pass
        assert not ring.put(4, 5, frame(5))
    assert ring.put(4, 5, frame(5))


def test_a_slot_is_lent_to_a_writer_and_the_frame_is_there_when_it_is_done(ring, descriptor):
    reader = FrameRing(descriptor)
    with ring.writable(0, 1) as slot:
        slot[:] = 7
        assert value_of(reader, 1) is None
        assert value_of(ring, 1) is None
        with reader.writable(4, 2) as other:
            assert other is None
    assert value_of(reader, 1) == 7
    reader.close()


def test_a_writer_that_fails_leaves_no_frame(ring):
    ring.put(0, 1, frame(1))
    ring.expect(4, 2)
    with pytest.raises(ValueError, match="broadcast"), ring.writable(4, 2) as slot:
        slot[:10] = [1, 2, 3]
    assert frames_in(ring, 2) == [None, None]
    assert not ring.expects([2])
    assert ring.put(4, 2, frame(2))


def test_a_reader_of_the_old_layout_keeps_it_and_the_new_one_comes_when_it_is_done(
    ring, descriptor
):
    reader = FrameRing(descriptor)
    ring.put(0, 1, frame(1))
    with reader.view([1]) as pieces:
        assert not ring.shape_for(FRAME // 2)
        assert not ring.put(0, 2, frame(2, FRAME // 2))
        assert ring.expect(1, 3) is None
        np.testing.assert_array_equal(pieces[0], np.full(FRAME, 1))
    assert ring.put(1, 3, frame(3, FRAME // 2))
    assert ring.frame_bytes == FRAME // 2
    assert value_of(ring, 3, FRAME // 2) == 3
    reader.close()


def test_a_frame_for_an_earlier_layout_is_left_out(ring):
    generation = ring.expect(3, 1)
    ring.shape_for(FRAME)
    assert not ring.expects([1])
    assert not ring.put(3, 1, frame(1), generation=generation)
    with ring.writable(3, 1, generation=generation) as slot:
        assert slot is None
    assert ring.put(3, 1, frame(1), generation=ring.generation)


def test_a_frame_is_expected_until_it_comes_or_is_given_up(ring):
    for sequence in range(3):
        assert ring.expect(sequence, sequence + 1) == ring.generation
    assert ring.expects([1])
    assert ring.expects([9, 3])
    assert not ring.expects([9])
    ring.put(0, 1, frame(1))
    assert not ring.expects([1])
    ring.forget(2)
    assert not ring.expects([1, 2])
    ring.forget()
    assert not ring.expects([1, 2, 3])


def test_a_frame_that_is_left_out_is_no_longer_expected(ring):
    ring.put(0, 1, frame(1))
    with ring.view([1]):
        ring.expect(4, 5)
        assert not ring.put(4, 5, frame(5))
    assert not ring.expects([5])


def test_fill_counts_the_frames_that_nobody_has_read(ring):
    assert (ring.fill, ring.consumed, ring.head) == (0.0, -1, -1)
    for sequence in range(10, 13):
        ring.put(sequence, sequence, frame(sequence))
    assert (ring.fill, ring.consumed, ring.head) == (0.75, -1, 12)
    assert value_of(ring, 11) == 11
    assert (ring.fill, ring.consumed) == (0.25, 11)
    with ring.view([12]):
        pass
    assert (ring.fill, ring.consumed) == (0.0, 12)
    assert value_of(ring, 10) == 10
    assert ring.consumed == 12


def test_threads_that_share_a_ring_do_not_take_each_others_locks(ring):
    torn: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            newest = ring.head + 1
            for tags in ([newest], [newest - 1, newest]):
                with ring.view(tags) as pieces:
                    if pieces is not None:
                        frames = np.concatenate(pieces).reshape(-1, FRAME)
                        torn.append(int((frames != np.array(tags)[:, None] % 256).sum()))

    ring.put(0, 1, frame(1))
    ring.put(1, 2, frame(2))
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    put = sum(ring.put(number, number + 1, frame(number + 1)) for number in range(2, 3000))
    stop.set()
    for reader in readers:
        reader.join()
    assert put > 100
    assert torn
    assert not any(torn)
    # Nothing is locked any more.
    assert ring.shape_for(FRAME)


def test_without_locks_frames_are_copied_out_and_only_one_process_writes(descriptor, monkeypatch):
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    ring = FrameRing(descriptor)
    assert ring.shape_for(FRAME)
    assert ring.put(0, 1, frame(1))
    assert value_of(ring, 1) == 1
    with ring.view([1]) as pieces:
        assert pieces is None
    ring.expect(1, 2)
    with ring.writable(1, 2) as slot:
        assert slot is None
    assert not ring.expects([2])
    ring.close()


class OverwrittenWhileRead(np.ndarray):
    """Where a frame is copied to; the writer overtakes the reader in the middle of the copy."""

    ring: FrameRing

    def __setitem__(self, place, value):
        assert self.ring.put(4, 99, frame(99))
        super().__setitem__(place, value)


def test_without_locks_a_frame_that_is_overwritten_while_it_is_read_is_not_handed_out(
    descriptor, monkeypatch
):
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    ring, writer = FrameRing(descriptor), FrameRing(descriptor)
    writer.shape_for(FRAME)
    writer.put(0, 1, frame(1))
    OverwrittenWhileRead.ring = writer
    assert not ring.get(1, np.zeros(FRAME, np.uint8).view(OverwrittenWhileRead))
    assert value_of(ring, 99) == 99
    writer.close()
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
    assert {(key_of_tag(tag), index_of_tag(tag)) for tag in tags} == {
        (key, index) for key in keys for index in (0, 1, 2**31)
    }
