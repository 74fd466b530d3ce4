"""The ring of frames in shared memory, as processes of their own see it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from apsber_bluesky.streaming import FrameRing, create_ring_memory

SIZE, SLOTS = 20_000, 6

WRITER = f"""
import sys
import numpy as np
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
first, step, stop = (int(word) for word in sys.argv[2:])
put = 0
for number in range(first, stop, step):
    put += ring.put(number, number + 1, np.full({SIZE}, number % 251, np.uint8))
ring.close()
print(put)
"""

READER = f"""
import sys
import numpy as np
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
print("reads", flush=True)
out, lent, copied = np.zeros({SIZE}, np.uint8), 0, 0
while ring.head < int(sys.argv[2]):
    newest = ring.head + 1
    for tags in ([newest], [newest - 1, newest], list(range(newest - 3, newest + 1))):
        if min(tags) < 1:
            continue
        with ring.view(tags) as pieces:
            if pieces is not None:
                frames = np.concatenate(pieces).reshape(len(tags), {SIZE})
                # Looked at where they lie, twice, with time for a writer in between.
                for _ in range(2):
                    assert (frames == (np.array(tags)[:, None] - 1) % 251).all(), tags
                    frames = np.concatenate(pieces).reshape(len(tags), {SIZE})
                lent += 1
        if ring.get(tags[0], out):
            assert (out == (tags[0] - 1) % 251).all(), tags
            copied += 1
ring.close()
print(lent, copied)
"""

HOLDER = """
import sys
import time
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
with ring.view([1, 2]) as pieces:
    print(int(pieces[0][0]), flush=True)
    time.sleep(100)
"""

KILLED_WRITER = """
import sys
import time
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
with ring.writable(3, 4) as slot:
    slot[:1000] = 99
    print("half", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def descriptor():
    descriptor = create_ring_memory(SLOTS * SIZE)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ring(descriptor):
    ring = FrameRing(descriptor)
    ring.shape_for(SIZE)
    yield ring
    ring.close()


@pytest.fixture
def start(descriptor):
    processes = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(descriptor), *map(str, arguments)],
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_readers_in_other_processes_never_see_a_torn_frame_of_two_writers(ring, start):
    count = 20_000
    readers = [start(READER, count - 1) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "reads\n"
    writers = [start(WRITER, first, 2, count) for first in range(2)]
    for writer in writers:
        output, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
        assert int(output) > count // 20
    # The last of them may have met a reader.
    while not ring.put(count, count + 1, np.full(SIZE, count % 251, np.uint8)):
        time.sleep(0.001)
    for reader in readers:
        output, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        lent, copied = (int(word) for word in output.split())
        assert lent > 0
        assert copied > 0


def test_a_reader_that_is_killed_while_frames_are_lent_to_it_gives_them_back(ring, start):
    for number in range(3):
        ring.put(number, number + 1, np.full(SIZE, 5, np.uint8))
    holder = start(HOLDER)
    assert holder.stdout.readline() == "5\n"
    pixels = np.full(SIZE, 6, np.uint8)
    # The source goes on while the reader lives: only what it holds is left out.
    assert [ring.put(SLOTS + n, SLOTS + n + 1, pixels) for n in range(3)] == [False, False, True]
    assert not ring.shape_for(SIZE)
    holder.kill()
    holder.wait()
    assert all(ring.put(SLOTS + n, SLOTS + n + 1, pixels) for n in range(3))
    assert ring.shape_for(SIZE)


def test_a_writer_that_is_killed_in_a_frame_leaves_the_slot_free_and_no_frame(ring, start):
    ring.expect(3, 4)
    writer = start(KILLED_WRITER)
    assert writer.stdout.readline() == "half\n"
    out = np.zeros(SIZE, np.uint8)
    assert not ring.put(3, 4, np.full(SIZE, 7, np.uint8))
    writer.kill()
    writer.wait()
    assert not ring.get(4, out)
    assert ring.put(3, 4, np.full(SIZE, 7, np.uint8))
    assert ring.get(4, out)
    assert (out == 7).all()


def test_a_child_that_inherits_the_memory_does_not_keep_the_locks_of_its_parent(ring, start):
    code = """
import os, subprocess, sys, time
from apsber_bluesky.streaming import FrameRing
ring = FrameRing(int(sys.argv[1]))
child = subprocess.Popen(["sleep", "30"], pass_fds=[ring.descriptor], stdout=subprocess.DEVNULL)
with ring.view([1]) as pieces:
    print(child.pid, flush=True)
    time.sleep(100)
"""
    ring.put(0, 1, np.zeros(SIZE, np.uint8))
    parent = start(code)
    child = int(parent.stdout.readline())
    try:
        assert not ring.put(SLOTS, SLOTS + 1, np.zeros(SIZE, np.uint8))
        parent.kill()
        parent.wait()
        assert ring.put(SLOTS, SLOTS + 1, np.zeros(SIZE, np.uint8))
    finally:
        os.kill(child, 9)
