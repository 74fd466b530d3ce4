"""Series that are interrupted, or lose frames, and are taken again, over real sockets."""

import os
import threading
import time
import uuid

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    FrameError,
    FrameRange,
    RunFolder,
    RunLedger,
    SeriesRequest,
    StreamingSettings,
)
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Receiver,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._series_messages import Frame, SeriesStart

ROWS, COLUMNS, FRAMES = 6, 8, 20


class Bench:
    """A receiver that listens to a publisher, and a client of it."""

    def __init__(self, root, retake_s):
        self.root = root
        self.publisher = FramePublisher()
        descriptor = create_ring_memory(64 * ROWS * COLUMNS * 2)
        self.ring = FrameRing(descriptor)
        os.close(descriptor)
        self.receiver = Receiver(
            self.publisher.address,
            root,
            self.ring,
            settings=StreamingSettings(retake_s=retake_s),
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.receiver.serve, args=(self.stop.is_set,))
        self.thread.start()
        self.client = ReceiverClient(self.receiver.control_address)
        self.uid = str(uuid.uuid4())

    def arm(self, num_frames=FRAMES, first_index=0, **options):
        options = {"retakes": True, **options}
        request = SeriesRequest(
            self.uid,
            "primary",
            num_frames,
            ROWS,
            COLUMNS,
            "<u2",
            first_index=first_index,
            **options,
        )
        ticket = self.client.arm(request)
        self.publisher.start_series(
            ticket.series, num_frames=num_frames, rows=ROWS, columns=COLUMNS, dtype="<u2"
        )
        return ticket

    def send(self, frames, numbers, offset=0):
        for number in numbers:
            assert self.publisher.send(frames[number], number=number - offset, timestamp_s=1e9)

    def state(self, *names):
        answer = self.client._ask(type="state", run_uid=self.uid, stream="primary")
        return tuple(answer[name] for name in names)

    def wait(self, count):
        deadline = time.monotonic() + 10
        while self.state("written") != (count,):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def missing(self):
        return self.client.missing(self.uid, "primary", 0, FRAMES)

    def finish(self):
        return self.client.finish(self.uid, "primary", timeout_s=0.3)

    def close(self):
        self.client.close()
        self.stop.set()
        self.thread.join()
        self.receiver.close()
        self.ring.close()
        self.publisher.close()


@pytest.fixture
def bench(tmp_path):
    benches = []

    def make(retake_s=0.0):
        benches.append(Bench(tmp_path, retake_s))
        return benches[-1]

    yield make
    for one in benches:
        one.close()


@pytest.fixture
def frames():
    return np.random.default_rng(3).integers(1, 60000, (FRAMES, ROWS, COLUMNS), dtype=np.uint16)


def on_disk(bench):
    folder = RunFolder.of(bench.root, DEFAULT_PROPOSAL, bench.uid)
    with h5py.File(folder.raw) as file:
        group = file["entry/primary"]
        return group["data"][...], group["frame_number"][...]


def test_an_interrupted_series_goes_on_from_its_first_missing_frame(bench, frames):
    bench = bench()
    assert bench.missing() == list(range(FRAMES))
    bench.arm()
    bench.send(frames, range(8))
    bench.wait(8)
    bench.client.interrupt(bench.uid)
    # The stage still brakes, with the shutter closed.
    bench.send(frames * 0, range(8, 11))
    ticket = bench.arm(FRAMES - 8, first_index=8)
    assert ticket.first_index == 8
    assert bench.client.written(bench.uid, "primary") == 8
    with RunLedger(RunFolder.of(bench.root, DEFAULT_PROPOSAL, bench.uid).ledger) as ledger:
        # Who reads the books when frames are announced must not take them for missing.
        assert ledger.books.streams["primary"].missing == []
    bench.send(frames, range(8, FRAMES), offset=8)
    bench.publisher.end_series()
    assert bench.finish() == FRAMES
    assert bench.missing() == []
    books = bench.client.close_run(bench.uid).streams["primary"]
    assert (books.expected, books.written, books.missing) == (FRAMES, FRAMES, [])
    assert (books.received, books.refused, books.duplicated) == (FRAMES + 3, 3, 0)
    data, numbers = on_disk(bench)
    assert np.array_equal(data, frames)
    assert numbers.tolist() == [*range(8), *range(FRAMES - 8)]


def test_frames_that_came_just_before_are_not_announced_and_taken_again(bench, frames):
    bench = bench(retake_s=60.0)
    bench.arm()
    spoilt = frames.copy()
    spoilt[:8] = 0
    bench.send(spoilt, range(8))
    bench.wait(8)
    assert bench.client.written(bench.uid, "primary") == 0
    bench.client.interrupt(bench.uid)
    assert bench.missing() == list(range(FRAMES))
    ticket = bench.arm()
    bench.send(frames, range(FRAMES))
    bench.publisher.end_series()
    assert bench.finish() == FRAMES
    wanted = FrameRange(bench.uid, "primary", 0, FRAMES, ticket.uri, ticket.dataset)
    source = RingOrFileSource(bench.ring)
    assert np.array_equal(source.read(wanted), frames)
    source.close()
    books = bench.client.close_run(bench.uid).streams["primary"]
    assert (books.received, books.written, books.refused) == (FRAMES + 8, FRAMES, 8)
    assert np.array_equal(on_disk(bench)[0], frames)


def test_an_interrupted_series_that_is_not_taken_again_is_in_the_books_with_its_gap(bench, frames):
    bench = bench(retake_s=60.0)
    bench.arm()
    bench.send(frames, range(8))
    bench.wait(8)
    bench.client.interrupt(bench.uid)
    books = bench.client.close_run(bench.uid).streams["primary"]
    assert (books.expected, books.written, books.refused) == (FRAMES, 0, 8)
    assert books.missing == list(range(FRAMES))
    data, numbers = on_disk(bench)
    assert set(numbers.tolist()) == {-1}
    assert not data.any()


def test_nothing_behind_a_lost_frame_is_announced_before_it_is_taken_again_or_given_up(
    bench, frames
):
    bench = bench()
    bench.arm()
    bench.send(frames, [n for n in range(FRAMES) if n not in (5, 11)])
    bench.publisher.end_series()
    assert bench.finish() == FRAMES - 2
    assert bench.missing() == [5, 11]
    assert bench.client.written(bench.uid, "primary") == 5
    bench.arm(1, first_index=5)
    bench.send(frames, [5], offset=5)
    bench.publisher.end_series()
    assert bench.finish() == FRAMES - 1
    assert bench.client.written(bench.uid, "primary") == 11
    bench.client.give_up(bench.uid, "primary")
    assert bench.client.written(bench.uid, "primary") == FRAMES
    books = bench.client.close_run(bench.uid).streams["primary"]
    assert (books.expected, books.written, books.missing) == (FRAMES, FRAMES - 1, [11])


def test_frames_that_are_on_disk_stay_when_their_places_are_flown_over_again(bench, frames):
    bench = bench()
    bench.arm()
    bench.send(frames, [n for n in range(FRAMES) if n not in (5, 8)])
    bench.publisher.end_series()
    bench.finish()
    bench.arm(4, first_index=5)
    others = frames + np.uint16(1)
    others[[5, 8]] = frames[[5, 8]]
    bench.send(others, range(5, 9), offset=5)
    bench.publisher.end_series()
    assert bench.finish() == FRAMES
    books = bench.client.close_run(bench.uid).streams["primary"]
    assert (books.received, books.duplicated, books.missing) == (FRAMES + 2, 2, [])
    assert np.array_equal(on_disk(bench)[0], frames)


@pytest.mark.parametrize(("first", "count"), [(FRAMES + 1, 1), (10, FRAMES), (-1, 2)])
def test_places_that_the_stream_does_not_have_cannot_be_taken_again(bench, frames, first, count):
    bench = bench()
    bench.arm()
    bench.client.interrupt(bench.uid)
    with pytest.raises(FrameError, match="cannot be taken again"):
        bench.arm(count, first_index=first)


def test_waiting_for_a_series_ends_when_it_is_given_up_and_leaves_the_series_armed(bench, frames):
    bench = bench()
    bench.arm()
    bench.client.finish(bench.uid, "primary", timeout_s=60, given_up=lambda: True)
    bench.send(frames, range(FRAMES))
    assert bench.finish() == FRAMES


def angles(series, start, numbers, step=0.5):
    """Take frames that latched the angles of these places, numbered as they come."""
    return [
        series.take(Frame(7, number, 0.0, start + step * place, 0, memoryview(bytes(8))))
        for number, place in enumerate(numbers)
    ]


def test_a_missed_trigger_leaves_a_gap_where_it_was_missed():
    request = SeriesRequest(
        "run", "primary", 6, 2, 2, "<u2", first_index=0, angle_deg=10.0, step_deg=-0.5
    )
    series = Series(1, request, 0, source=7)
    series.take(SeriesStart(7, 6, 2, 2, "<u2"))
    taken = angles(series, 10.0, [0, 1, 3, 4, 5], step=-0.5)
    assert [frame.number for frame in taken] == [0, 1, 3, 4, 5]
    for frame in taken:
        series.stored(frame.number, 0)
    assert series.missing == [2]


def test_a_frame_of_an_angle_that_is_none_of_the_series_is_refused():
    request = SeriesRequest("run", "primary", 3, 2, 2, "<u2", angle_deg=0.0, step_deg=0.5)
    series = Series(1, request, 0, source=7, started=True)
    with pytest.raises(FrameError, match="frame 40 of a series of 3"):
        angles(series, 20.0, [0])
