"""Frames from publisher to spool, ring and books, over real sockets."""

import threading
import uuid
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    FrameError,
    FrameRange,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesRequest,
    StorageError,
    TomographyScan,
)
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Receiver,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)

ROWS, COLUMNS = 12, 17


@pytest.fixture
def publisher():
    publisher = FramePublisher()
    yield publisher
    publisher.close()


@pytest.fixture
def ring():
    import os

    descriptor = create_ring_memory(8 * ROWS * COLUMNS * 2)
    ring = FrameRing(descriptor)
    ring.touch()
    os.close(descriptor)
    yield ring
    ring.close()


@pytest.fixture
def client(publisher, ring, tmp_path):
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


def request(num_frames, stream="primary", uid=None, **changes):
    values = {
        "run_uid": uid or str(uuid.uuid4()),
        "stream": stream,
        "num_frames": num_frames,
        "rows": ROWS,
        "columns": COLUMNS,
        "dtype": "<u2",
    }
    return SeriesRequest(**{**values, **changes})


def run_of(wanted, proposal):
    scan = TomographyScan(num_projections=1, rows=ROWS, columns=COLUMNS, dtype="<u2", exposure_s=1)
    return RunDescription(uid=wanted.run_uid, proposal=proposal, scan=scan)


def frames_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 60000, (count, ROWS, COLUMNS), dtype=np.uint16)


def publish(publisher, ticket, frames, numbers=None, announce=None):
    publisher.start_series(
        ticket.series, num_frames=announce or len(frames), rows=ROWS, columns=COLUMNS, dtype="<u2"
    )
    for number in range(len(frames)) if numbers is None else numbers:
        assert publisher.send(
            frames[number], number=number, timestamp_s=1e9 + number, angle_deg=0.5 * number
        )
    publisher.end_series()


def test_every_frame_is_on_disk_with_its_number_time_angle_and_checksum(
    client, publisher, tmp_path
):
    wanted = request(40)
    frames = frames_of(40)
    ticket = client.arm(wanted)
    publish(publisher, ticket, frames)
    assert client.finish(wanted.run_uid, "primary", timeout_s=5) == 40
    books = client.close_run(wanted.run_uid)
    assert (books.expected, books.received, books.written) == (40, 40, 40)
    assert books.complete
    folder = RunFolder.of(tmp_path, DEFAULT_PROPOSAL, wanted.run_uid)
    with h5py.File(folder.raw) as file:
        group = file["entry/primary"]
        np.testing.assert_array_equal(group["data"][:], frames)
        np.testing.assert_array_equal(group["frame_number"][:], np.arange(40))
        np.testing.assert_array_equal(group["timestamp"][:], 1e9 + np.arange(40))
        np.testing.assert_array_equal(group["angle"][:], 0.5 * np.arange(40))
        assert group["checksum"][3] == xxhash.xxh3_64_intdigest(frames[3].tobytes())
    with RunLedger(folder.ledger) as ledger:
        assert ledger.books.streams["primary"].written == 40


def test_lost_frames_are_named_and_leave_zeros_at_their_place(client, publisher, tmp_path):
    wanted = request(10)
    frames = frames_of(10)
    ticket = client.arm(wanted)
    publish(publisher, ticket, frames, numbers=[0, 1, 2, 5, 6, 9])
    assert client.finish(wanted.run_uid, "primary", timeout_s=5) == 6
    books = client.close_run(wanted.run_uid)
    assert books.streams["primary"].missing == [3, 4, 7, 8]
    assert not books.complete
    with h5py.File(RunFolder.of(tmp_path, DEFAULT_PROPOSAL, wanted.run_uid).raw) as file:
        assert file["entry/primary/frame_number"][:].tolist() == [0, 1, 2, -1, -1, 5, 6, -1, -1, 9]
        assert not file["entry/primary/data"][3].any()
        np.testing.assert_array_equal(file["entry/primary/data"][9], frames[9])


def test_reordered_and_repeated_frames_land_once_at_their_place(client, publisher, tmp_path):
    wanted = request(6)
    frames = frames_of(6)
    ticket = client.arm(wanted)
    publish(publisher, ticket, frames, numbers=[5, 0, 0, 3, 1, 4, 2, 5])
    client.finish(wanted.run_uid, "primary", timeout_s=5)
    books = client.close_run(wanted.run_uid).streams["primary"]
    assert (books.written, books.duplicated, books.missing) == (6, 2, [])
    with h5py.File(RunFolder.of(tmp_path, DEFAULT_PROPOSAL, wanted.run_uid).raw) as file:
        np.testing.assert_array_equal(file["entry/primary/data"][:], frames)


def test_a_source_that_stops_without_saying_so_is_given_up(client, publisher):
    wanted = request(5)
    ticket = client.arm(wanted)
    publisher.start_series(ticket.series, num_frames=5, rows=ROWS, columns=COLUMNS, dtype="<u2")
    publisher.send(frames_of(1)[0], number=0, timestamp_s=1.0)
    assert client.finish(wanted.run_uid, "primary", timeout_s=0.2) == 1
    assert client.close_run(wanted.run_uid).streams["primary"].missing == [1, 2, 3, 4]


def test_several_series_share_one_spool(client, publisher, tmp_path):
    uid = str(uuid.uuid4())
    for stream, count, seed in [
        ("darks", 3, 1),
        ("flats", 4, 2),
        ("primary", 9, 3),
        ("flats", 2, 4),
    ]:
        ticket = client.arm(request(count, stream, uid))
        publish(publisher, ticket, frames_of(count, seed))
        client.finish(uid, stream, timeout_s=5)
    books = client.close_run(uid)
    assert {name: b.written for name, b in books.streams.items()} == {
        "darks": 3,
        "flats": 6,
        "primary": 9,
    }
    with h5py.File(RunFolder.of(tmp_path, DEFAULT_PROPOSAL, uid).raw) as file:
        expected = np.concatenate([frames_of(4, 2), frames_of(2, 4)])
        np.testing.assert_array_equal(file["entry/flats/data"][:], expected)


def test_consumers_read_new_frames_from_the_ring_and_old_ones_from_the_spool(
    client, publisher, ring
):
    wanted = request(30)
    frames = frames_of(30)
    ticket = client.arm(wanted)
    publish(publisher, ticket, frames)
    client.finish(wanted.run_uid, "primary", timeout_s=5)
    source = RingOrFileSource(ring)
    try:
        got = source.read(FrameRange(wanted.run_uid, "primary", 0, 30, ticket.uri, ticket.dataset))
    finally:
        source.close()
    np.testing.assert_array_equal(got, frames)
    assert source.from_ring == ring.slots == 8
    assert source.from_file == 22
    client.close_run(wanted.run_uid)


@pytest.mark.parametrize(
    ("changes", "word"), [({"rows": 13}, "13 x 17"), ({"dtype": "<u4"}, "<u4")]
)
def test_frames_of_another_size_or_type_are_refused_and_counted(client, publisher, changes, word):
    wanted = request(2)
    ticket = client.arm(wanted)
    shape = {"rows": ROWS, "columns": COLUMNS, "dtype": "<u2", **changes}
    publisher.start_series(ticket.series, num_frames=2, **shape)
    frame = np.zeros((shape["rows"], shape["columns"]), shape["dtype"])
    publisher.send(frame, number=0, timestamp_s=1.0)
    publisher.end_series()
    assert client.finish(wanted.run_uid, "primary", timeout_s=5) == 0
    books = client.close_run(wanted.run_uid).streams["primary"]
    assert (books.refused, books.written, books.missing) == (1, 0, [0, 1])


def test_a_run_cannot_mix_frame_sizes(client, publisher):
    first = request(1)
    client.arm(first)
    with pytest.raises(FrameError, match="one frame size"):
        client.arm(request(1, "flats", first.run_uid, rows=99))
    client.close_run(first.run_uid)


def test_a_scan_that_does_not_fit_the_disk_is_refused_before_it_starts(client):
    with pytest.raises(StorageError, match=r"needs .* GB"):
        client.arm(request(10**9, rows=2000, columns=2000))


def test_a_proposal_cannot_leave_the_data_root(client):
    wanted = request(1)
    client.begin_run(run_of(wanted, proposal="../../etc"))
    with pytest.raises(ValueError, match=r"'\.\./\.\./etc' cannot name a folder"):
        client.arm(wanted)


def test_the_proposal_of_the_run_names_its_folder(client, tmp_path):
    wanted = request(1)
    client.begin_run(run_of(wanted, proposal="GUP-77"))
    client.arm(wanted)
    assert RunFolder.of(tmp_path, "GUP-77", wanted.run_uid).raw.is_file()


def test_publisher_counts_what_it_drops_when_nobody_fetches():
    publisher = FramePublisher(high_water_mark=4)
    publisher.start_series(1, num_frames=50, rows=ROWS, columns=COLUMNS, dtype="<u2")
    frame = np.zeros((ROWS, COLUMNS), np.uint16)
    results = [publisher.send(frame, number=n, timestamp_s=1.0) for n in range(50)]
    publisher.close()
    assert results.count(False) == publisher.dropped > 0
    assert publisher.sent + publisher.dropped == 50


def test_publisher_refuses_a_port_in_use():
    from apsber_bluesky.core import ServiceError

    publisher = FramePublisher()
    with pytest.raises(ServiceError, match=publisher.address):
        FramePublisher(publisher.address)
    publisher.close()


def test_a_spool_is_never_overwritten(client, tmp_path):
    wanted = request(1)
    folder = RunFolder.of(tmp_path, DEFAULT_PROPOSAL, wanted.run_uid).create()
    Path(folder.raw).write_bytes(b"somebody's data")
    with pytest.raises(StorageError, match=r"raw\.h5"):
        client.arm(wanted)
    assert folder.raw.read_bytes() == b"somebody's data"
