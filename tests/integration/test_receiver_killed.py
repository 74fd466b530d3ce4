"""A receiver that is killed loses only frames that the books name.

``APSBER_TEST_KILLS=50`` kills it more often than the usual few times.
"""

import os
import random
import threading
import time
import uuid

import h5py
import numpy as np
import pytest
import xxhash

from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    FrameState,
    RunFolder,
    RunLedger,
    SeriesRequest,
    StreamingSettings,
)
from apsber_bluesky.session import ServiceProcess
from apsber_bluesky.simulation import EigerDcu, EigerFault, EigerSeries
from apsber_bluesky.streaming import FramePublisher, Inbox, ReceiverClient, create_ring_memory

KILLS = int(os.environ.get("APSBER_TEST_KILLS", "4"))
KILLS_PER_SERIES = 4
FRAMES, ROWS, COLUMNS = 300, 64, 96


class ReceiverProcess:
    """The receiver's process, which can be killed and replaced."""

    def __init__(self, folder, frame_address, **streaming):
        self.board = Inbox()
        self.ring = create_ring_memory(40 * ROWS * COLUMNS * 2)
        self.log = folder / "receiver.log"
        self.settings = {
            "status_address": self.board.address,
            "frame_address": frame_address,
            "data_root": str(folder / "data"),
            "ring_descriptor": self.ring,
            "streaming": StreamingSettings(**streaming).model_dump(mode="json"),
            "state_file": str(folder / "receiver.state"),
        }
        self.start()

    def start(self):
        self.process = ServiceProcess(
            "receiver", ["apsber_bluesky.streaming"], self.log, [self.ring]
        )
        self.process.configure(self.settings)
        answer = self.process.wait_ready(60)
        self.settings["control_address"] = answer["control_address"]

    def kill(self):
        os.kill(self.process.pid, 9)
        self.process.stop()

    def close(self):
        self.process.stop()
        self.board.close()
        os.close(self.ring)


@pytest.fixture
def killed(tmp_path):
    processes = []

    def start(address, **streaming):
        processes.append(ReceiverProcess(tmp_path, address, **streaming))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def request():
    return SeriesRequest(str(uuid.uuid4()), "primary", FRAMES, ROWS, COLUMNS, "<u2")


def images(seed):
    rng = np.random.default_rng(seed)
    return rng.poisson(20, (FRAMES, ROWS, COLUMNS)).astype("<u2")


def kill_at_random_instants(receiver, rng, kills, sending):
    for _ in range(kills):
        time.sleep(rng.uniform(0.0, 0.4))
        if not sending.is_alive():
            # The last instants count, too: the series has been sent, but not been ended.
            time.sleep(rng.uniform(0.0, 0.02))
        receiver.kill()
        receiver.start()


def check(root, wanted, books, frames):
    """Every frame is on disk as it was sent, or named; nothing else is there."""
    folder = RunFolder.of(root, DEFAULT_PROPOSAL, wanted.run_uid)
    stream = books.streams["primary"]
    with h5py.File(folder.raw) as file:
        group = file["entry/primary"]
        numbers, sums = group["frame_number"][:], group["checksum"][:]
        data = group["data"]
        for index in range(FRAMES):
            if index in stream.missing:
                assert numbers[index] == -1
                assert index >= len(data) or not data[index].any()
                continue
            assert numbers[index] == index
            assert np.array_equal(data[index], frames[index])
            _, stored = data.id.read_direct_chunk((index, 0, 0))
            assert xxhash.xxh3_64_intdigest(stored) == sums[index]
    assert stream.written + len(stream.missing) == stream.expected == FRAMES
    with RunLedger(folder.ledger) as ledger:
        assert ledger.books.streams["primary"].missing == stream.missing
        states = ledger.frame_states("primary")
    written = np.flatnonzero(states & FrameState.WRITTEN)
    assert written.tolist() == sorted(set(range(FRAMES)) - set(stream.missing))
    assert np.count_nonzero(states & FrameState.RECOVERED) == stream.recovered
    return stream


def series_of(count):
    return [(seed, KILLS_PER_SERIES) for seed in range(-(-count // KILLS_PER_SERIES))]


@pytest.mark.parametrize(("seed", "kills"), series_of(KILLS))
def test_frames_lost_with_a_plain_receiver_are_those_that_the_books_name(
    killed, tmp_path, seed, kills
):
    rng, frames, wanted = random.Random(seed), images(seed), request()
    publisher = FramePublisher(high_water_mark=8)
    receiver = killed(publisher.address, high_water_mark=8)
    client = ReceiverClient(receiver.settings["control_address"], timeout_s=60)
    ticket = client.arm(wanted)

    def send():
        publisher.start_series(
            ticket.series, num_frames=FRAMES, rows=ROWS, columns=COLUMNS, dtype="<u2"
        )
        for number, frame in enumerate(frames):
            while not publisher.send(frame, number=number, timestamp_s=1e9 + number):
                time.sleep(0.001)
            time.sleep(0.005)
        publisher.end_series()

    sending = threading.Thread(target=send)
    sending.start()
    kill_at_random_instants(receiver, rng, kills, sending)
    sending.join()
    client.finish(wanted.run_uid, "primary", timeout_s=1.5)
    books = client.close_run(wanted.run_uid)
    client.close()
    publisher.close()
    stream = check(tmp_path / "data", wanted, books, frames)
    assert stream.recovered > 0


@pytest.mark.parametrize(("seed", "kills"), series_of(KILLS))
def test_frames_lost_with_a_receiver_of_compressed_frames_are_those_that_the_books_name(
    killed, tmp_path, seed, kills
):
    rng, frames, wanted = random.Random(seed), images(seed), request()
    detector = EigerDcu(2, high_water_mark=8)
    # Late by 5 ms each: the series takes as long as the kills.
    pace = [EigerFault("stall", image_id, delay_s=0.005) for image_id in range(FRAMES)]
    series = EigerSeries(7, FRAMES, ROWS, COLUMNS)
    receiver = killed(detector.address, format="eiger2", codec="bslz4", high_water_mark=8)
    client = ReceiverClient(receiver.settings["control_address"], timeout_s=60)
    client.arm(wanted)
    sending = threading.Thread(
        target=lambda: detector.send_series(series, [[frame] for frame in frames], pace)
    )
    sending.start()
    kill_at_random_instants(receiver, rng, kills, sending)
    sending.join()
    client.finish(wanted.run_uid, "primary", timeout_s=1.5)
    books = client.close_run(wanted.run_uid)
    client.close()
    detector.close()
    stream = check(tmp_path / "data", wanted, books, frames)
    assert stream.recovered > 0
