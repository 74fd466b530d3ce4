"""Series that are ended early: what was planned beyond is neither missing nor on disk."""

from __future__ import annotations

import os
import threading
import uuid

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DEFAULT_PROPOSAL, RunFolder, RunLedger, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Receiver,
    ReceiverClient,
    create_ring_memory,
)

ROWS, COLUMNS = 5, 6


@pytest.fixture
def publisher():
    publisher = FramePublisher()
    yield publisher
    publisher.close()


@pytest.fixture
def client(publisher, tmp_path):
    descriptor = create_ring_memory(16 * ROWS * COLUMNS * 2)
    ring = FrameRing(descriptor)
    os.close(descriptor)
    receiver = Receiver(publisher.address, tmp_path, ring)
    stop = threading.Event()
    thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
    thread.start()
    client = ReceiverClient(receiver.control_address)
    yield client
    client.close()
    stop.set()
    thread.join()
    receiver.close()
    ring.close()


def arm(client, uid, num_frames, first=None):
    return client.arm(
        SeriesRequest(uid, "primary", num_frames, ROWS, COLUMNS, "<u2", first_index=first)
    )


def send(client, publisher, ticket, planned, numbers, wait_for):
    publisher.start_series(
        ticket.series, num_frames=planned, rows=ROWS, columns=COLUMNS, dtype="<u2"
    )
    for number in numbers:
        pixels = np.full((ROWS, COLUMNS), ticket.first_index + number, np.uint16)
        assert publisher.send(pixels, number=number, timestamp_s=1.0, angle_deg=0.5)
    done = threading.Event()
    while not done.wait(0.01):
        if client.health().written >= wait_for:
            done.set()


def file_of(tmp_path, uid):
    return RunFolder.of(tmp_path, DEFAULT_PROPOSAL, uid)


def test_the_next_series_goes_on_behind_the_last_frame_on_disk(client, publisher, tmp_path):
    uid = str(uuid.uuid4())
    ticket = arm(client, uid, 5000)
    send(client, publisher, ticket, 5000, range(7), 7)
    assert client.curtail(uid, "primary") == 7
    assert client.written(uid, "primary") == 7
    ticket = arm(client, uid, 5000, first=7)
    assert ticket.first_index == 7
    send(client, publisher, ticket, 5000, range(4), 11)
    assert client.curtail(uid, "primary") == 11
    books = client.close_run(uid).streams["primary"]
    assert (books.expected, books.received, books.written, books.missing) == (11, 11, 11, [])
    assert books.complete
    with h5py.File(file_of(tmp_path, uid).raw) as file:
        primary = file["entry/primary"]
        assert {name: len(primary[name]) for name in primary} == dict.fromkeys(primary, 11)
        np.testing.assert_array_equal(primary["data"][:, 0, 0], np.arange(11))
        np.testing.assert_array_equal(primary["frame_number"][:], [*range(7), *range(4)])
    with RunLedger(file_of(tmp_path, uid).ledger) as ledger:
        assert ledger.books.streams["primary"].expected == 11


def test_a_frame_that_was_lost_before_the_end_stays_missing(client, publisher, tmp_path):
    uid = str(uuid.uuid4())
    ticket = arm(client, uid, 100)
    send(client, publisher, ticket, 100, [0, 1, 3, 4], 4)
    assert client.curtail(uid, "primary") == 5
    books = client.close_run(uid).streams["primary"]
    assert (books.expected, books.written, books.missing) == (5, 4, [2])


def test_frames_that_come_later_are_not_used(client, publisher, tmp_path):
    uid = str(uuid.uuid4())
    ticket = arm(client, uid, 100)
    send(client, publisher, ticket, 100, range(3), 3)
    assert client.curtail(uid, "primary") == 3
    publisher.send(np.ones((ROWS, COLUMNS), np.uint16), number=3, timestamp_s=1.0)
    assert client.close_run(uid).streams["primary"].written == 3
    with h5py.File(file_of(tmp_path, uid).raw) as file:
        assert file["entry/primary/data"].shape == (3, ROWS, COLUMNS)


def test_a_series_without_any_frame_leaves_nothing(client, publisher, tmp_path):
    uid = str(uuid.uuid4())
    arm(client, uid, 100)
    assert client.curtail(uid, "primary") == 0
    assert client.curtail(uid, "flats") == 0
    assert client.curtail("another", "primary") == 0
    books = client.close_run(uid).streams["primary"]
    assert (books.expected, books.missing, books.complete) == (0, [], True)


@pytest.mark.parametrize(
    ("missing", "planned", "left"),
    [([], 5, (5, 5, [])), ([4, 3], 5, (3, 3, [])), ([1, 4], 5, (4, 4, [1])), ([0], 1, (0, 0, []))],
)
def test_books_expect_nothing_behind_the_last_frame(missing, planned, left):
    books = SeriesBooks(expected=planned, missing=missing)
    assert (books.curtail(planned), books.expected, books.missing) == left
