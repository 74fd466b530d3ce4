"""From an areaDetector's PV Access channel through the relay to the receiver's file and books."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DEFAULT_PROPOSAL, InputError, RunFolder, SeriesRequest, ServiceError
from apsber_bluesky.simulation import PvaDetector, StreamFaults
from apsber_bluesky.simulation._xspress3 import BINS, Xspress3
from apsber_bluesky.streaming import FrameRing, Receiver, ReceiverClient, create_ring_memory
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._relay import Relay

ROWS, COLUMNS = 11, 19
QUEUE = 128
COMMAND = "from apsber_bluesky.cli import main; main()"


def images_of(count):
    return np.random.default_rng(5).poisson(500, (count, ROWS, COLUMNS)).astype("<u2")


def request_of(images):
    return SeriesRequest(
        run_uid=str(uuid.uuid4()),
        stream="primary",
        num_frames=len(images),
        rows=images.shape[1],
        columns=images.shape[2],
        dtype=images.dtype.str,
    )


class Receiving:
    """A receiver of one series."""

    def __init__(self, address, root, images):
        self.root, self.request = root, request_of(images)
        descriptor = create_ring_memory(8 * images[0].nbytes)
        self._ring = FrameRing(descriptor)
        os.close(descriptor)
        self._receiver = Receiver(address, root, self._ring)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._receiver.serve, args=(self._stop.is_set,))
        self._thread.start()
        self.client = ReceiverClient(self._receiver.control_address)
        self.ticket = self.client.arm(self.request)

    def books(self):
        uid = self.request.run_uid
        self.client.finish(uid, "primary", timeout_s=10)
        return self.client.close_run(uid).streams["primary"]

    def data(self):
        with h5py.File(RunFolder.of(self.root, DEFAULT_PROPOSAL, self.request.run_uid).raw) as file:
            return file["entry/primary/data"][:], file["entry/primary/angle"][:]

    def close(self):
        self.client.close()
        self._stop.set()
        self._thread.join()
        self._receiver.close()
        self._ring.close()


class Path:
    """Detector, relay and receiver of one series."""

    def __init__(self, detector, images, root, *, first_id=None, receive=True, **options):
        self.detector = detector
        self.ready = threading.Event()
        self.reader = NtndarrayReader(1, len(images), first_id=first_id)
        self.relay = Relay(
            detector._channel,
            "tcp://127.0.0.1:*",
            reader=self.reader,
            num_frames=len(images),
            queue_size=QUEUE,
            configuration=detector.configuration,
            **options,
        )
        self.receiving = Receiving(self.relay.address, root, images) if receive else None
        self.stop = threading.Event()
        self.refused = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.ready.wait(20)

    def _run(self):
        self.result = self.relay.run(
            self.stop.is_set, on_ready=self.ready.set, on_refused=self.refused.append
        )

    def hold_back(self, posts):
        while posts - self.relay._series.books.sent > QUEUE // 2:
            time.sleep(1e-4)

    def books(self):
        self._thread.join()
        return self.result

    def close(self):
        self.stop.set()
        self._thread.join()
        self.relay.close()
        if self.receiving is not None:
            self.receiving.close()


@pytest.fixture
def path_of(tmp_path):
    opened = []

    def open_path(images, detector=None, **options):
        detector = detector or PvaDetector(f"T{uuid.uuid4().hex}", images[0], last_id=77)
        opened.append(detector)
        path = Path(getattr(detector, "detector", detector), images, tmp_path, **options)
        opened.append(path)
        return path

    yield open_path
    for each in reversed(opened):
        each.close()


def test_thousands_of_frames_reach_the_file_whole_in_place_and_once(path_of):
    images = images_of(3000)
    path = path_of(images)
    path.detector.send(images, angles_deg=np.arange(3000.0), before_each=path.hold_back)
    assert path.books().to_dict() == {
        "expected": 3000,
        "sent": 3000,
        "dropped": 0,
        "missing": [],
        "restarts": 0,
        "refused": {"stale": 1},
        "complete": True,
    }
    books = path.receiving.books()
    assert books.complete
    assert (books.received, books.duplicated, books.refused) == (3000, 0, 0)
    data, angles = path.receiving.data()
    np.testing.assert_array_equal(data, images)
    np.testing.assert_array_equal(angles, np.arange(3000.0))


def test_spectra_go_the_same_way_as_images(path_of):
    source = Xspress3(f"T{uuid.uuid4().hex}", num_channels=2)
    spectra = np.stack([source.spectra(number) for number in range(200)])
    path = path_of(spectra, source, first_id=0)
    source.send(200, before_each=path.hold_back)
    assert path.books().complete
    assert path.receiving.books().complete
    data, _ = path.receiving.data()
    assert data.shape == (200, 2, BINS)
    np.testing.assert_array_equal(data, spectra)


def test_what_pv_access_lost_is_missing_by_number_in_the_receivers_books(path_of):
    images = images_of(40)
    path = path_of(images, idle_s=0.5)
    lost = [0, 1, 20, 39]
    path.detector.send(
        images,
        faults=StreamFaults(
            drop=frozenset(lost), duplicate=frozenset([7]), corrupt=frozenset([30])
        ),
        before_each=path.hold_back,
    )
    books = path.books()
    assert books.missing == sorted([*lost, 30])
    assert (books.sent, books.dropped, books.complete) == (35, 0, False)
    assert books.refused == {"stale": 1, "duplicate": 1, "malformed": 1}
    assert len(path.refused) == 1
    assert path.receiving.books().missing == sorted([*lost, 30])
    data, _ = path.receiving.data()
    assert not data[lost].any()
    kept = [number for number in range(40) if number not in (*lost, 30)]
    np.testing.assert_array_equal(data[kept], images[kept])


def test_a_detector_that_is_restarted_leaves_the_rest_of_the_series_missing(path_of):
    images = images_of(20)
    path = path_of(images)
    path.detector.send(images, faults=StreamFaults(restart_before=12), before_each=path.hold_back)
    books = path.books()
    assert (books.restarts, books.missing) == (1, list(range(12, 20)))
    assert path.receiving.books().missing == list(range(12, 20))


def test_frames_that_no_receiver_fetches_are_dropped_and_counted_after_a_while(path_of):
    images = images_of(3)
    path = path_of(images, receive=False, patience_s=0.05)
    path.detector.send(images)
    books = path.books()
    assert (books.sent, books.dropped, books.missing) == (0, 3, [])
    assert not books.complete


def test_a_relay_that_is_stopped_says_what_it_had(path_of):
    images = images_of(9)
    path = path_of(images)
    path.stop.set()
    books = path.books()
    assert (books.sent, books.missing) == (0, list(range(9)))


def test_a_port_that_is_taken_is_refused(path_of):
    path = path_of(images_of(2), receive=False)
    with pytest.raises(ServiceError, match="choose another port"):
        Relay("T", path.relay.address, reader=NtndarrayReader(1, 1), num_frames=1)


@pytest.mark.parametrize("options", [{"channel": ""}, {"idle_s": 0.0}], ids=str)
def test_a_relay_that_cannot_work_is_refused(options):
    with pytest.raises(InputError):
        Relay(
            **{"channel": "T", "address": "tcp://127.0.0.1:*", **options},
            reader=NtndarrayReader(1, 1),
            num_frames=1,
        )


class Command:
    """``apsber relay`` as a process."""

    def __init__(self, detector, *arguments):
        environment = {key: v for key, v in os.environ.items() if not key.startswith("EPICS_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", COMMAND, "relay", "--from", f"pva://{detector._channel}"),
                *("--to", "tcp://127.0.0.1:*", "--series", "1", "--json", *arguments),
            ],
            env={**environment, **detector.configuration},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self.line("frames")

    def line(self, begin):
        for line in self.process.stderr:
            if line.startswith(begin):
                return line.split()[1]
        raise AssertionError(f"ended without a line {begin!r}")


@pytest.fixture
def command_of():
    opened = []

    def start(detector, *arguments):
        opened.append(Command(detector, *arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def detector():
    detector = PvaDetector(f"T{uuid.uuid4().hex}", images_of(1)[0], codec="bslz4")
    yield detector
    detector.close()


def test_the_command_relays_a_series_and_names_what_is_missing(command_of, detector, tmp_path):
    images = images_of(50)
    command = command_of(detector, "--frames", "50", "--linger-s", "1")
    receiving = Receiving(command.address, tmp_path, images)
    command.line("ready")
    detector.send(images, faults=StreamFaults(drop=frozenset([3, 8, 9])))
    books = receiving.books()
    output, errors = command.process.communicate(timeout=30)
    receiving.close()
    assert books.missing == [3, 8, 9]
    assert json.loads(output)["missing"] == [3, 8, 9]
    assert command.process.returncode == 1
    assert "missing 3, 8-9" in errors


def test_the_command_ends_on_ctrl_c_and_says_what_it_had(command_of, detector):
    command = command_of(detector, "--frames", "5")
    command.line("ready")
    command.process.send_signal(signal.SIGINT)
    output, _ = command.process.communicate(timeout=30)
    assert json.loads(output)["missing"] == [0, 1, 2, 3, 4]
    assert command.process.returncode == 1
