"""Processes that decode compressed frames from the spool into the ring."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import psutil
import pytest
import xxhash

from apsber_bluesky.core import FrameRange, SeriesRequest
from apsber_bluesky.streaming import FrameRing, RingOrFileSource, create_ring_memory, encode
from apsber_bluesky.streaming._decode_jobs import DecodeJob
from apsber_bluesky.streaming._decode_workers import DecodeWorkers
from apsber_bluesky.streaming._ring import frame_tag, stream_key
from apsber_bluesky.streaming._series_messages import Frame
from apsber_bluesky.streaming._spool import Spool
from apsber_bluesky.streaming._spool_file import dataset_path

ROWS, COLUMNS, FRAMES, SLOTS = 60, 70, 40, 16
FRAME_BYTES = ROWS * COLUMNS * 2
KEY = stream_key("run-1", "primary")
TAGS = [frame_tag(KEY, index) for index in range(FRAMES)]


def pixels_of(index: int) -> np.ndarray:
    values = np.arange(ROWS * COLUMNS, dtype="<u2").reshape(ROWS, COLUMNS)
    return values % (7 + index) + index


@pytest.fixture
def ring():
    descriptor = create_ring_memory(SLOTS * FRAME_BYTES)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    ring.shape_for(FRAME_BYTES)
    yield ring
    ring.close()


@pytest.fixture
def make_spool(tmp_path):
    spools = []

    def make(codec="bslz4") -> tuple[list[DecodeJob], FrameRange]:
        """A spool with all frames in it, their jobs, and where a consumer finds them."""
        request = SeriesRequest("run-1", "primary", FRAMES, ROWS, COLUMNS, "<u2")
        spool = Spool(tmp_path / f"{codec}.h5", request, codec=codec)
        spools.append(spool)
        spool.extend("primary", FRAMES)
        jobs = []
        for index in range(FRAMES):
            encoded = encode(pixels_of(index), codec)
            checksum = xxhash.xxh3_64_intdigest(encoded)
            frame = Frame(1, index, 1.0, 0.0, checksum, memoryview(encoded), codec)
            spool.write("primary", index, frame)
            place = spool.last_stored
            jobs.append(
                DecodeJob(
                    spool.path,
                    place.offset,
                    place.size,
                    codec,
                    ROWS,
                    COLUMNS,
                    "<u2",
                    index,
                    TAGS[index],
                    checksum,
                )
            )
        spool.flush()
        uri = spool.path.as_uri()
        return jobs, FrameRange("run-1", "primary", 0, FRAMES, uri, dataset_path("primary"))

    yield make
    for spool in spools:
        spool.close()


@pytest.fixture
def start(ring):
    started = []

    def start(count: int) -> DecodeWorkers:
        workers = DecodeWorkers(ring, count)
        started.append(workers)
        wait_for(lambda: workers.ready == count)
        return workers

    yield start
    for workers in started:
        workers.close()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def results_of(workers: DecodeWorkers) -> tuple[list[int], list[int]]:
    wait_for(lambda: not workers.backlog)
    return workers.finished(), workers.failed()


@pytest.mark.parametrize("codec", ["bslz4", "lz4"])
def test_frames_are_decoded_from_the_spool_into_the_ring(ring, start, make_spool, codec):
    jobs, _ = make_spool(codec)
    workers = start(2)
    for job in jobs[:SLOTS]:
        assert workers.submit(job)
    finished, failed = results_of(workers)
    assert sorted(finished) == TAGS[:SLOTS]
    assert failed == []
    assert workers.finished() == []
    assert not ring.expects(TAGS)
    with ring.view(TAGS[:SLOTS]) as pieces:
        decoded = pieces[0].view("<u2").reshape(SLOTS, ROWS, COLUMNS)
        np.testing.assert_array_equal(decoded, [pixels_of(index) for index in range(SLOTS)])


def test_a_consumer_waits_for_a_frame_that_is_being_decoded(ring, start, make_spool):
    jobs, frames = make_spool()
    (worker,) = (workers := start(1)).pids
    os.kill(worker, signal.SIGSTOP)
    for job in jobs[:3]:
        assert workers.submit(job)
    assert ring.expects(TAGS[2:3])
    os.kill(worker, signal.SIGCONT)
    source = RingOrFileSource(ring)
    with source.borrow(replace(frames, stop=3)) as lent:
        np.testing.assert_array_equal(lent, [pixels_of(index) for index in range(3)])
    assert (source.from_ring, source.from_file) == (3, 0)
    source.close()


def test_a_frame_that_cannot_be_decoded_is_named_and_not_waited_for(
    ring, start, make_spool, tmp_path
):
    jobs, _ = make_spool()
    workers = start(1)
    bad = bytearray(jobs[0].path.read_bytes()[jobs[0].offset :][: jobs[0].size])
    bad[20] ^= 0xFF
    damaged = tmp_path / "damaged"
    damaged.write_bytes(bad)
    wrong = [
        replace(jobs[0], offset=jobs[1].offset, size=jobs[1].size),
        replace(jobs[1], rows=ROWS + 1),
        replace(jobs[2], path=tmp_path / "nowhere"),
        replace(jobs[3], offset=1 << 40),
        replace(jobs[4], path=damaged, offset=0, size=len(bad)),
        replace(jobs[5], path=damaged, offset=0, checksum=xxhash.xxh3_64_intdigest(bad)),
        replace(jobs[6], size=0),
    ]
    for job in wrong:
        assert workers.submit(job)
    assert workers.submit(jobs[7])
    finished, failed = results_of(workers)
    assert (finished, failed) == ([TAGS[7]], TAGS[:7])
    assert not ring.expects(TAGS)
    assert workers.restarts == 0


def test_a_frame_whose_slot_is_being_read_is_left_to_the_spool(ring, start, make_spool):
    jobs, frames = make_spool()
    workers = start(1)
    workers.submit(jobs[0])
    wait_for(lambda: not workers.backlog)
    with ring.view(TAGS[:1]):
        workers.submit(jobs[SLOTS])
        assert results_of(workers) == ([TAGS[0], TAGS[SLOTS]], [])
    source = RingOrFileSource(ring)
    got = source.read(replace(frames, start=SLOTS, stop=SLOTS + 1))
    np.testing.assert_array_equal(got[0], pixels_of(SLOTS))
    assert source.from_file == 1
    source.close()


def test_workers_that_have_enough_to_do_take_no_more_and_nobody_waits_for_the_rest(
    ring, start, make_spool
):
    jobs, _ = make_spool()
    (worker,) = (workers := start(1)).pids
    os.kill(worker, signal.SIGSTOP)
    taken = [workers.submit(job) for job in jobs]
    assert taken == [True] * taken.count(True) + [False] * taken.count(False)
    assert 0 < workers.backlog == taken.count(True) < FRAMES
    assert workers.dropped == taken.count(False)
    assert not ring.expects(TAGS[workers.backlog :])
    os.kill(worker, signal.SIGCONT)
    finished, _ = results_of(workers)
    assert finished == TAGS[: taken.count(True)]


def test_a_frame_that_fits_no_slot_is_not_taken(ring, start, make_spool):
    jobs, _ = make_spool()
    workers = start(1)
    ring.shape_for(100 * FRAME_BYTES)
    assert not workers.submit(jobs[0])
    assert workers.dropped == 1


def test_frames_of_an_earlier_layout_do_not_take_slots_of_the_new_one(ring, start, make_spool):
    jobs, _ = make_spool()
    (worker,) = (workers := start(1)).pids
    os.kill(worker, signal.SIGSTOP)
    workers.submit(jobs[3])
    assert ring.shape_for(FRAME_BYTES)
    os.kill(worker, signal.SIGCONT)
    assert results_of(workers) == ([TAGS[3]], [])
    assert ring.head == -1


def test_no_workers_take_no_frames(ring, make_spool):
    jobs, _ = make_spool()
    workers = DecodeWorkers(ring, 0)
    assert not workers.submit(jobs[0])
    assert not ring.expects(TAGS)
    workers.close()


@pytest.mark.parametrize("times", [15, pytest.param(50, marks=pytest.mark.system)])
def test_every_frame_can_be_read_however_often_workers_are_killed(ring, start, make_spool, times):
    jobs, frames = make_spool()
    workers = start(3)
    source = RingOrFileSource(ring)
    chance = random.Random(1)
    kills = sequence = 0
    while kills < times:
        # The same frames again and again, at new places in the ring, as scan follows scan.
        first = sequence % FRAMES
        for index in range(first, first + 4):
            workers.submit(replace(jobs[index], sequence=sequence))
            sequence += 1
        if workers.ready and chance.random() < 0.3:
            time.sleep(chance.uniform(0, 0.002))
            # None are left, or this one has died of the last kill: not counted.
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(workers.pids), signal.SIGKILL)
                kills += 1
        with source.borrow(replace(frames, start=first, stop=first + 4)) as lent:
            for index, image in enumerate(lent, first):
                np.testing.assert_array_equal(image, pixels_of(index))
        workers.failed()
    assert source.from_ring > 0
    assert source.from_ring + source.from_file == sequence
    wait_for(lambda: workers.ready == 3 and not workers.backlog)
    assert 0 < workers.restarts <= times
    assert not ring.expects(TAGS)
    source.close()


def test_workers_end_when_they_are_closed(start):
    workers = start(2)
    processes = [psutil.Process(pid) for pid in workers.pids]
    workers.close()
    assert not any(process.is_running() for process in processes)


PARENT = """
import sys, time
from apsber_bluesky.streaming import FrameRing
from apsber_bluesky.streaming._decode_workers import DecodeWorkers
workers = DecodeWorkers(FrameRing(int(sys.argv[1])), 2)
while workers.ready < 2:
    time.sleep(0.01)
print(*workers.pids, flush=True)
time.sleep(100)
"""


def test_workers_end_with_a_parent_that_is_killed(ring):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ring.descriptor)],
        pass_fds=[ring.descriptor],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        processes = [psutil.Process(int(word)) for word in parent.stdout.readline().split()]
        assert len(processes) == 2
        parent.kill()
    gone, alive = psutil.wait_procs(processes, timeout=30)
    assert len(gone) == 2
    assert not alive
