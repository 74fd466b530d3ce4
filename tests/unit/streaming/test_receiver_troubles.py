"""What goes wrong on the way from a detector is said once, in clear words, and nothing is lost."""

import logging
import os
import threading
import time
import uuid
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from apsber_bluesky.core import FrameRange, SeriesRequest, StreamingSettings
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Receiver,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)

ROWS, COLUMNS, FRAMES = 6, 7, 40


@contextmanager
def receiving(root, address, *, told=None, largest_message=None, **settings):
    descriptor = create_ring_memory(8 * ROWS * COLUMNS * 2)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    receiver = Receiver(
        address,
        root,
        ring,
        settings=StreamingSettings(**settings),
        warn=lambda uid, text: told.append(text),
        largest_message=largest_message,
    )
    stop = threading.Event()
    thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
    thread.start()
    client = ReceiverClient(receiver.control_address)
    try:
        yield client
    finally:
        client.close()
        stop.set()
        thread.join()
        receiver.close()
        ring.close()


def request():
    return SeriesRequest(str(uuid.uuid4()), "primary", FRAMES, ROWS, COLUMNS, "<u2")


@pytest.fixture
def publisher():
    publisher = FramePublisher()
    yield publisher
    publisher.close()


def begin(publisher, ticket):
    publisher.start_series(
        ticket.series, num_frames=FRAMES, rows=ROWS, columns=COLUMNS, dtype="<u2"
    )


def image(number):
    return np.full((ROWS, COLUMNS), 100 + number, "<u2")


def send(publisher, numbers, time_of=lambda number: 1e9 + number):
    for number in numbers:
        assert publisher.send(image(number), number=number, timestamp_s=time_of(number))


def settle(client, wanted, timeout_s=0.3):
    client.finish(wanted.run_uid, "primary", timeout_s=timeout_s)
    return client.close_run(wanted.run_uid).streams["primary"]


def test_a_second_reader_on_the_port_is_recognised_by_what_it_took(publisher, tmp_path):
    wanted, told = request(), []
    with receiving(tmp_path, publisher.address, told=told) as client:
        context = zmq.Context()
        thief = context.socket(zmq.PULL)
        thief.connect(publisher.address)
        ticket = client.arm(wanted)
        time.sleep(0.2)  # both are connected
        # Each message goes to the one or the other, so the announcement is sent to both.
        begin(publisher, ticket)
        begin(publisher, ticket)
        send(publisher, range(FRAMES))
        publisher.end_series()
        books = settle(client, wanted)
        thief.close(0)
        context.term()
    assert books.missing in (list(range(0, FRAMES, 2)), list(range(1, FRAMES, 2)))
    assert len(told) == 1
    assert "only every 2. came: another program reads the same port" in told[0]


def test_a_message_that_is_too_large_is_told_and_what_came_before_is_kept(publisher, tmp_path):
    wanted, told = request(), []
    with receiving(tmp_path, publisher.address, told=told, largest_message=1000) as client:
        ticket = client.arm(wanted)
        begin(publisher, ticket)
        send(publisher, range(10))
        time.sleep(0.2)  # they have gone out
        publisher._socket.send(bytes(5000))
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        books = settle(client, wanted)
    assert books.written == 10
    assert "it sent a message larger than 1000 bytes" in told[0]
    assert "30 of 40 frames are missing (10-39); the last ones: the source stopped" in told[1]


def test_a_series_that_never_ends_is_told_once_and_its_frames_are_kept(publisher, tmp_path, caplog):
    wanted, told, stop = request(), [], threading.Event()

    def endless(ticket):
        begin(publisher, ticket)
        number = 0
        while not stop.is_set():
            # Without frame 5, so that the series is never complete either.
            if number != 5:
                publisher.send(image(number), number=number, timestamp_s=1e9 + number)
            number += 1
            time.sleep(0.0005)

    with receiving(tmp_path, publisher.address, told=told) as client:
        thread = threading.Thread(target=endless, args=(client.arm(wanted),))
        thread.start()
        with caplog.at_level(logging.WARNING):
            books = settle(client, wanted)
        stop.set()
        thread.join()
    assert books.missing == [5]
    assert books.refused > 10
    refusals = [text for text in told if "of a series of 40" in text]
    assert refusals == ["refused: frame 40 of a series of 40"]
    assert any("times: refused: frame # of a series of #" in line for line in caplog.messages)


@pytest.mark.parametrize("jump_s", [-7200.0, 86400.0])
def test_a_clock_that_jumps_is_told_once_and_changes_nothing_else(publisher, tmp_path, jump_s):
    wanted, told = request(), []
    with receiving(tmp_path, publisher.address, told=told) as client:
        ticket = client.arm(wanted)
        begin(publisher, ticket)
        send(publisher, range(FRAMES), lambda n: 1e9 + n + (jump_s if n >= 20 else 0.0))
        publisher.end_series()
        books = settle(client, wanted)
    assert books.complete
    assert len(told) == 1
    assert f"the detector's clock jumped by {jump_s + 1:.1f} s before frame 20" in told[0]


def test_no_series_armed_is_said_once(publisher, tmp_path, caplog):
    with receiving(tmp_path, publisher.address, told=[]) as client:
        publisher.start_series(1, num_frames=FRAMES, rows=ROWS, columns=COLUMNS, dtype="<u2")
        deadline = time.monotonic() + 5
        number = 0
        while "no series is armed" not in caplog.text and time.monotonic() < deadline:
            publisher.send(image(number), number=number, timestamp_s=1.0)
            number += 1
            time.sleep(0.005)
        send(publisher, range(number, number + 20))
        wanted = request()
        client.arm(wanted)
        assert settle(client, wanted).written == 0
    assert caplog.text.count("a message came while no series is armed") <= 2


def test_a_consumer_at_a_third_of_the_rate_loses_nothing(publisher, tmp_path):
    """The ring holds 8 frames; what it no longer has comes from the spool."""
    wanted = request()
    with receiving(tmp_path, publisher.address, told=[]) as client:
        ticket = client.arm(wanted)
        begin(publisher, ticket)
        source = RingOrFileSource()
        for number in range(FRAMES):
            send(publisher, [number])
            if number % 3 == 2:
                index = number // 3
                while client.written(wanted.run_uid, "primary") <= index:
                    time.sleep(0.001)
                frames = FrameRange(
                    wanted.run_uid, "primary", index, index + 1, ticket.uri, ticket.dataset
                )
                assert (source.read(frames) == 100 + index).all()
        publisher.end_series()
        assert settle(client, wanted).complete
        source.close()
