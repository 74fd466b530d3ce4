"""Jungfrau: from slsReceiver's sockets to frames, with everything that goes wrong named."""

import threading

import numpy as np
import pytest
import xxhash
import zmq

from apsber_bluesky.core import FrameError
from apsber_bluesky.simulation._sls_receiver import (
    ModuleFaults,
    SlsReceiver,
    StreamFaults,
)
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

MODULE = (16, 32)


def images_of(count, grid, seed=0):
    shape = (count, grid[0] * MODULE[0], grid[1] * MODULE[1])
    return np.random.default_rng(seed).integers(0, 2**16, shape, dtype=np.uint16)


def wanted_of(images):
    return SeriesStart(7, len(images), images.shape[1], images.shape[2], "<u2")


class Stream:
    """An emulator and one subscriber per module, read by one reader."""

    def __init__(self, images, grid, **options):
        self.images, self.grid = images, grid
        self.source = SlsReceiver(grid=grid, module_shape=MODULE, high_water_mark=0)
        options = {"sources": grid[0] * grid[1], **options}
        self.reader = JungfrauReader(wanted_of(images), grid=grid, **options)
        self.refused = []
        self.messages = []
        self._context = zmq.Context()
        self._sockets = {}
        self._over = set()
        for number, address in enumerate(self.source.addresses.values()):
            socket = self._context.socket(zmq.SUB)
            socket.rcvhwm = 0
            socket.subscribe(b"")
            socket.connect(address)
            self._sockets[socket] = number
        self.source.wait_for_subscribers()

    def run(self, **faults):
        """Send everything and read it all."""
        sender = threading.Thread(target=self._send, kwargs=faults)
        sender.start()
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        # A module that is dead does not even say that it is over.
        while sender.is_alive() or len(self._over) < len(self.source._sockets):
            for socket, _ in poller.poll(50):
                self._take(socket)
        sender.join()
        self.messages += self.reader.finish()

    def _send(self, **faults):
        self.source.send(self.images, **faults)
        # Nothing comes after this; the reader does not get to see it.
        for socket in self.source._sockets.values():
            socket.send(b"over")

    def _take(self, socket):
        parts = [part.buffer for part in socket.recv_multipart(copy=False)]
        if parts[0] == b"over":
            self._over.add(socket)
            return
        try:
            self.messages += self.reader.read(parts, self._sockets[socket])
        except FrameError as error:
            self.refused.append(str(error))

    @property
    def frames(self):
        return {m.number: m for m in self.messages if isinstance(m, Frame)}

    def close(self):
        for socket in self._sockets:
            socket.close(0)
        self._context.term()
        self.source.close()


@pytest.fixture
def stream():
    opened = []

    def open_stream(count, grid=(1, 1), **options):
        opened.append(Stream(images_of(count, grid), grid, **options))
        return opened[-1]

    yield open_stream
    for each in opened:
        each.close()


def assert_delivered(stream, missing=(), partial=None):
    """Every frame is whole, but for the modules of `partial`, by frame, which are zero."""
    frames, partial = stream.frames, partial or {}
    assert len(frames) == sum(isinstance(message, Frame) for message in stream.messages)
    assert sorted(set(range(len(stream.images))) - set(frames)) == sorted(missing)
    assert stream.reader.missing == sorted(missing)
    assert sorted(stream.reader.incomplete) == sorted(partial)
    for number, frame in frames.items():
        expected = stream.images[number].copy()
        for row, column in partial.get(number, ()):
            top, left = row * MODULE[0], column * MODULE[1]
            expected[top : top + MODULE[0], left : left + MODULE[1]] = 0
        assert bytes(frame.pixels) == expected.tobytes()
        assert frame.checksum == xxhash.xxh3_64_intdigest(expected.tobytes())
        assert frame.complete == (number not in partial)


@pytest.mark.parametrize(
    ("count", "grid"), [(4000, (1, 1)), (2000, (2, 2)), (1000, (4, 1))], ids=str
)
def test_thousands_of_frames_of_interleaved_modules_arrive_whole_and_once(stream, count, grid):
    run = stream(count, grid, window=count)
    run.run()
    assert run.messages[0] == wanted_of(run.images)
    assert run.messages[-1] == SeriesEnd(7, -1)
    assert len(run.messages) == count + 2
    assert not run.refused
    assert not run.reader.counts
    assert_delivered(run)


def test_timestamps_are_the_detectors_ticks_from_its_clocks_zero(stream):
    run = stream(3, clock_zero_s=1.7e9)
    run.run()
    times = [run.frames[number].timestamp_s for number in range(3)]
    assert times == [1.7e9 + 1e-7 * 10_000 * number for number in (1, 2, 3)]
    assert all(np.isnan(frame.angle_deg) for frame in run.frames.values())


GRID = (2, 1)


LOWER = [(1, 0)]


@pytest.mark.parametrize(
    ("faults", "missing", "partial", "counts"),
    [
        ({"faults": StreamFaults(drop=frozenset([0, 5, 19]))}, [0, 5, 19], {}, {}),
        ({"faults": StreamFaults(duplicate=frozenset([3]))}, [], {}, {"duplicate_module": 2}),
        ({"faults": StreamFaults(swap_with_next=frozenset([4]))}, [], {}, {}),
        ({"faults": StreamFaults(stall_s={2: 0.05})}, [], {}, {}),
        ({"faults": StreamFaults(missing_end=True)}, [], {}, {}),
        ({"faults": StreamFaults(truncate=frozenset([6]))}, [6], {}, {"truncated": 2}),
        ({"faults": StreamFaults(corrupt=frozenset([8]))}, [8], {}, {"bad_header": 2}),
        ({"faults": StreamFaults(wrong_dtype=frozenset([9]))}, [9], {}, {"bad_header": 2}),
        (
            {"faults": StreamFaults(restart_before=15)},
            [15, 16, 17, 18, 19],
            {},
            {"other_acquisition": 10},
        ),
        ({"lost_packets": {(11, 1, 0): 1}}, [], {11: LOWER}, {"packets_missing": 1}),
        (
            {"lost_modules": frozenset([(12, 1, 0), (19, 1, 0)])},
            [],
            {12: LOWER, 19: LOWER},
            {"module_missing": 2},
        ),
        (
            {"header_changes": {"completeImage": "0"}},
            [],
            {number: [(0, 0), (1, 0)] for number in range(20)},
            {"incomplete_image": 40},
        ),
        ({"module_faults": ModuleFaults(lag={(1, 0): 12})}, [], {}, {}),
        (
            {"module_faults": ModuleFaults(down={(1, 0): (0, 20)})},
            [],
            dict.fromkeys(range(20), LOWER),
            {"module_missing": 20},
        ),
        (
            {"module_faults": ModuleFaults(down={(1, 0): (4, 9)})},
            [],
            dict.fromkeys(range(4, 9), LOWER),
            {"module_missing": 5},
        ),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_each_fault_costs_only_its_own_frames_and_is_named(
    stream, faults, missing, partial, counts
):
    run = stream(20, GRID)
    run.run(**faults)
    assert_delivered(run, missing, partial)
    assert run.reader.counts == counts
    assert not run.reader.warnings


def test_frames_lost_before_the_first_that_came_are_gaps_and_those_beyond_the_last_refused(stream):
    run = stream(20, GRID)
    run.run(first_frame=3)
    assert run.reader.missing == [0, 1]
    assert run.reader.counts == {"outside_series": 4}
    assert "frameNumber 21 is not in 1..20" in run.refused[0]
    for number, frame in run.frames.items():
        assert bytes(frame.pixels) == run.images[number - 2].tobytes()


@pytest.mark.parametrize(("every", "count"), [(2, 20), (5, 20), (7, 200)])
def test_a_receiver_that_sends_every_nth_image_is_told_from_one_that_loses_some(
    stream, every, count
):
    run = stream(count, GRID)
    run.run(every=every)
    sent = list(range(every - 1, count, every))
    assert_delivered(run, sorted(set(range(count)) - set(sent)))
    words = f"sends only one image in {every}, as it does where rx_zmqfreq is {every}"
    assert len(run.reader.warnings) == 1
    assert words in run.reader.warnings[0]
    assert "set rx_zmqfreq to 1" in run.reader.warnings[0]
