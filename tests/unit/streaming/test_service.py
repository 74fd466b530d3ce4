"""The receiver as the session runs it: a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys

import numpy as np
import pytest

from apsber_bluesky.core import FrameRange, SeriesRequest
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Inbox,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)


@pytest.fixture
def ring_descriptor():
    descriptor = create_ring_memory(100_000)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def start(tmp_path, ring_descriptor, inbox):
    with contextlib.ExitStack() as stack:

        def start(**changes) -> tuple[subprocess.Popen, dict]:
            process = subprocess.Popen(
                [sys.executable, "-m", "apsber_bluesky.streaming"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[ring_descriptor],
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            settings = {
                "parent_pid": os.getpid(),
                "frame_address": "tcp://127.0.0.1:9",
                "data_root": str(tmp_path),
                "ring_descriptor": ring_descriptor,
                "status_address": inbox.address,
                "streaming": {"high_water_mark": 16},
                **changes,
            }
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
            return process, json.loads(process.stdout.readline())

        yield start


def test_the_receiver_serves_until_it_is_told_to_stop(start, inbox, ring_descriptor):
    publisher = FramePublisher()
    process, ready = start(frame_address=publisher.address)
    assert ready["ready"] is True
    client = ReceiverClient(ready["control_address"])
    ticket = client.arm(SeriesRequest("run-1", "primary", 5, 8, 9, "<u2"))
    publisher.start_series(ticket.series, num_frames=5, rows=8, columns=9, dtype="<u2")
    frames = np.arange(5 * 72, dtype="<u2").reshape(5, 8, 9)
    for number, frame in enumerate(frames):
        publisher.send(frame, number=number, timestamp_s=1.0)
    publisher.end_series()
    assert client.finish("run-1", "primary", timeout_s=10) == 5
    assert client.close_run("run-1").complete
    ring = FrameRing(ring_descriptor)
    source = RingOrFileSource(ring)
    got = source.read(FrameRange("run-1", "primary", 0, 5, ticket.uri, ticket.dataset))
    np.testing.assert_array_equal(got, frames)
    assert source.from_ring == 5
    source.close()
    ring.close()
    reports = [inbox.receive(timeout_s=10)]
    while reports[-1]["received"] < 5:
        reports.append(inbox.receive(timeout_s=10))
    assert reports[-1] == {
        "type": "frames",
        "run_uid": "run-1",
        "stream": "primary",
        "received": 5,
        "expected": 5,
    }
    client.close()
    publisher.close()
    process.terminate()
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest == b""


def test_a_run_that_is_open_when_the_receiver_stops_is_kept(start, tmp_path):
    process, ready = start()
    client = ReceiverClient(ready["control_address"])
    client.arm(SeriesRequest("run-1", "flats", 2, 8, 9, "<u2"))
    client.close()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    source = RingOrFileSource()
    raw = tmp_path / "commissioning" / "run-1" / "raw.h5"
    frames = FrameRange("run-1", "flats", 0, 2, raw.as_uri(), "/entry/flats/data")
    assert not source.read(frames).any()
    source.close()


def test_an_interrupt_from_the_keyboard_does_not_end_the_receiver(start):
    import signal

    process, ready = start()
    process.send_signal(signal.SIGINT)
    client = ReceiverClient(ready["control_address"])
    assert client.close_run("none").expected == 0
    client.close()
    assert process.poll() is None


def test_a_receiver_that_cannot_start_says_why_and_ends(start):
    process, answer = start(frame_address="nowhere")
    assert answer["ready"] is False
    assert "streaming.frame_address is 'nowhere'" in answer["error"]
    process.communicate(timeout=30)
    assert process.returncode == 1


PARENT = """
import json, os, subprocess, sys
settings = json.loads(sys.stdin.readline())
process = subprocess.Popen(
    [sys.executable, "-m", "apsber_bluesky.streaming"],
    stdin=subprocess.PIPE, pass_fds=[settings["ring_descriptor"]],
)
line = json.dumps({**settings, "parent_pid": os.getpid()}) + "\\n"
process.stdin.write(line.encode())
process.stdin.flush()
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_the_receiver_ends_when_its_session_is_killed(tmp_path, ring_descriptor, inbox):
    settings = {
        "frame_address": "tcp://127.0.0.1:9",
        "data_root": str(tmp_path),
        "ring_descriptor": ring_descriptor,
        "status_address": inbox.address,
        "streaming": {"high_water_mark": 16},
    }
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[ring_descriptor],
    ) as parent:
        parent.stdin.write(json.dumps(settings).encode() + b"\n")
        parent.stdin.flush()
        receiver = os.pidfd_open(int(parent.stdout.readline()))
        try:
            assert json.loads(parent.stdout.readline())["ready"] is True
            parent.kill()
            parent.wait()
            assert select.select([receiver], [], [], 30)[0] == [receiver]
        finally:
            os.close(receiver)
