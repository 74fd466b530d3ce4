"""What a camera hears when the receiver is away, refuses, or meets a full disk."""

from __future__ import annotations

import threading

import pytest
import zmq

from apsber_bluesky import core
from apsber_bluesky.core import (
    ApsberError,
    ConfigurationError,
    InputError,
    SeriesRequest,
    ServiceError,
    StorageError,
)
from apsber_bluesky.streaming import FrameRing, Receiver, ReceiverClient, create_ring_memory
from apsber_bluesky.streaming._messages import bound_address, pack_message, unpack_message


class Answerer:
    """Answers each request as it is told, on a real socket; ``None`` is silence."""

    def __init__(self, *answers: dict | None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = bound_address(self._socket)
        self.requests: list[dict] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            *envelope, packed = self._socket.recv_multipart()
            self.requests.append(unpack_message(packed))
            if answer is not None:
                self._socket.send_multipart([*envelope, pack_message(answer)])

    def close(self) -> None:
        self._thread.join()
        self._socket.close()
        self._context.term()


@pytest.fixture
def dialogue():
    """A client with a short timeout, and what answers it."""
    opened = []

    def open_(*answers, timeout_s=0.3):
        answerer = Answerer(*answers)
        client = ReceiverClient(answerer.address, timeout_s=timeout_s)
        opened.extend([answerer, client])
        return client, answerer

    yield open_
    for one in reversed(opened):
        one.close()


def test_a_receiver_that_is_not_there_is_named_with_the_request():
    client = ReceiverClient("tcp://127.0.0.1:9", timeout_s=0.1)
    for _ in range(2):
        with pytest.raises(ServiceError, match=r"tcp://127\.0\.0\.1:9 did not answer 'state'"):
            client.written("run", "primary")
    client.close()


def test_after_a_silence_the_next_request_gets_its_own_answer(dialogue):
    client, answerer = dialogue(None, {"type": "answer", "readable": 7}, timeout_s=0.5)
    with pytest.raises(ServiceError, match=r"within 0\.5 s"):
        client.written("run", "primary")
    client._timeout_s = 10
    assert client.written("run", "primary") == 7
    assert [request["type"] for request in answerer.requests] == ["state", "state"]


@pytest.mark.parametrize(
    "kind",
    sorted(
        name
        for name in core.__all__
        if isinstance(getattr(core, name), type) and issubclass(getattr(core, name), ApsberError)
    ),
)
def test_every_error_of_the_suite_travels_as_itself(dialogue, kind):
    answer = {"type": "error", "error": kind, "message": "the disk is full"}
    client, _ = dialogue(answer, timeout_s=10)
    with pytest.raises(ApsberError, match="the disk is full") as error:
        client.close_run("run")
    assert type(error.value) is getattr(core, kind)


def test_an_error_that_is_unknown_here_is_still_an_error(dialogue):
    client, _ = dialogue({"type": "error", "error": "Novel", "message": "?"}, timeout_s=10)
    with pytest.raises(ApsberError):
        client.close_run("run")


@pytest.fixture
def receiver(tmp_path):
    descriptor = create_ring_memory(1000)
    ring = FrameRing(descriptor)
    receiver = Receiver("tcp://127.0.0.1:9", tmp_path, ring)
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


def request(**changes) -> SeriesRequest:
    values = {"run_uid": "run-1", "stream": "primary", "num_frames": 2, "rows": 3, "columns": 4}
    return SeriesRequest(**{**values, "dtype": "<u2", **changes})


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"run_uid": "../out"}, InputError, r"'\.\./out' cannot name a folder"),
        ({"run_uid": 5}, ServiceError, "bad request"),
        ({"stream": "whites"}, InputError, "stream is 'whites'"),
        ({"dtype": "colour"}, InputError, "dtype of a series is 'colour'"),
        ({"num_frames": -3}, InputError, "num_frames of a series is -3"),
        ({"num_frames": "many"}, InputError, "num_frames of a series is 'many'"),
        ({"rows": 0}, InputError, "rows of a series is 0"),
        ({"colour": "red"}, ServiceError, "bad request.*colour"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_receiver_lives_on(
    receiver, changes, kind, words
):
    wrong = {**request().to_dict(), **changes}
    with pytest.raises(kind, match=words):
        receiver._ask(type="arm", request=wrong, proposal="p")
    ticket = receiver.arm(request(run_uid="run-2"))
    assert ticket.uri.endswith("/run-2/raw.h5")
    assert receiver.close_run("run-2").streams["primary"].missing == [0, 1]


def test_unknown_requests_are_refused(receiver):
    with pytest.raises(core.FrameError, match="knows no request 'reboot'"):
        receiver._ask(type="reboot")
    with pytest.raises(ServiceError, match="bad request"):
        receiver._ask(type="arm", request=[1, 2], proposal="p")


def test_a_storage_error_travels_as_one(receiver, tmp_path):
    (tmp_path / "commissioning").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"create the run folder .*(is a file|there already)"):
        receiver.arm(request())


def test_closing_a_run_that_is_not_open_gives_empty_books(receiver):
    assert receiver.close_run("never").expected == 0


def test_a_data_root_with_signs_that_mean_something_in_an_address_still_works(tmp_path):
    from apsber_bluesky.streaming import path_of_uri

    root = tmp_path / "run #1? 50%20 ü"
    descriptor = create_ring_memory(1000)
    ring = FrameRing(descriptor)
    receiver = Receiver("tcp://127.0.0.1:9", root, ring)
    answer = receiver._arm(request(), "p")
    assert path_of_uri(answer["uri"]) == root / "p" / "run-1" / "raw.h5"
    receiver.close()
    ring.close()


@pytest.mark.parametrize("address", ["detector", "tcp:/detector:5", "tcp://detector"])
def test_a_frame_address_that_is_none_is_named(tmp_path, address):
    descriptor = create_ring_memory(1000)
    ring = FrameRing(descriptor)
    with pytest.raises(ConfigurationError, match=f"streaming.frame_address is '{address}'"):
        Receiver(address, tmp_path, ring)
    ring.close()
