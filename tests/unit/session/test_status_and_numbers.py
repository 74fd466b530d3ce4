"""The status board, scan numbers, the data root and the way of frames to the worker."""

from __future__ import annotations

import logging
import threading

import pytest

from apsber_bluesky.core import (
    ConfigurationError,
    FrameRange,
    RunDescription,
    ServiceError,
    StorageError,
    TomographyScan,
)
from apsber_bluesky.session._remote_consumer import RemoteFrameConsumer, deliver
from apsber_bluesky.session._scan_number import ScanNumber
from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.session._workplace import check_data_root
from apsber_bluesky.streaming import Inbox, Outbox


def test_scan_numbers_go_on_from_session_to_session(tmp_path):
    path = tmp_path / "deep" / "scan_number"
    first = ScanNumber(path)
    assert first.last == 0
    assert [first({}), first({})] == [1, 2]
    assert ScanNumber(path)({"any": "metadata"}) == 3
    assert path.read_text() == "3\n"
    assert [p.name for p in path.parent.iterdir()] == ["scan_number"]


@pytest.mark.parametrize("content", [b"three\n", b"-5\n", b"", b"\xb2\n", b"\xff\xfe"])
def test_a_damaged_scan_number_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "scan_number"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"scan_number holds .*not a scan number"):
        ScanNumber(path)({})
    assert path.read_bytes() == content


def test_a_data_root_is_made_and_tried_and_nothing_is_left_in_it(tmp_path):
    own = check_data_root(tmp_path / "new" / "root")
    assert own == tmp_path / "new" / "root" / ".apsber"
    assert list(own.iterdir()) == []


def test_a_data_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=f"cannot use the data root at {root}"):
            check_data_root(root)


def test_a_full_data_root_is_named(full_disk):
    told = full_disk(
        """
        from apsber_bluesky.core import StorageError
        from apsber_bluesky.session._workplace import check_data_root
        check_data_root(root)
        try:
            with (root / "fill").open("wb") as stream:
                while True:
                    stream.write(bytes(1000))
        except OSError:
            pass
        try:
            check_data_root(root)
        except StorageError as error:
            print(error)
        """
    )
    assert "cannot use the data root at" in told
    assert "the disk is full" in told


@pytest.fixture
def board():
    board = StatusBoard()
    yield board
    board.close()


@pytest.fixture
def service(board):
    """What a service uses to tell the board."""
    outbox = Outbox(board.address)
    yield outbox
    outbox.close()


def nothing_wrong() -> None:
    pass


def test_the_summary_of_a_run_is_handed_out_with_its_warnings(board, service):
    service.send({"type": "warning", "run_uid": "a", "stage": "publish", "message": "no answer"})
    service.send({"type": "warning", "run_uid": "b", "stage": "publish", "message": "other"})
    service.send({"type": "finished", "run_uid": "a", "uid": "a", "state": "complete"})
    summary = board.wait_finished("a", 30, nothing_wrong, catalogued=False)
    assert summary == {"uid": "a", "state": "complete", "warnings": ["publish: no answer"]}


def test_a_run_is_waited_for_until_it_is_catalogued_too(board, service):
    waiting = threading.Event()
    service.send({"type": "finished", "run_uid": "a", "state": "complete"})

    def check():
        # The first wait is over and it is not done: only now is the rest sent.
        if not waiting.is_set():
            waiting.set()
            service.send({"type": "catalogued", "run_uid": "a"})

    assert board.wait_finished("a", 30, check, catalogued=True)["state"] == "complete"
    assert waiting.is_set()


def test_waiting_ends_when_it_takes_too_long_or_is_in_vain(board):
    with pytest.raises(ServiceError, match=r"run a was not finished after 0\.1 s"):
        board.wait_finished("a", 0.1, nothing_wrong, catalogued=False)

    def check():
        raise ServiceError("worker ended with status 1")

    with pytest.raises(ServiceError, match="worker ended"):
        board.wait_finished("a", 30, check, catalogued=False)


def test_a_run_that_is_done_is_told_also_when_a_service_has_ended_since(board, service):
    def check():
        raise ServiceError("worker ended with status 1")

    heard = threading.Event()
    board.listen(lambda message: heard.set())
    service.send({"type": "finished", "run_uid": "a", "state": "complete"})
    assert heard.wait(30)
    assert board.wait_finished("a", 30, check, catalogued=False)["state"] == "complete"


def test_a_display_that_fails_and_garbage_on_the_port_do_not_stop_the_books(board, service, caplog):
    import zmq

    def fails(message):
        raise ZeroDivisionError

    board.listen(fails)
    context = zmq.Context()
    stranger = context.socket(zmq.PUSH)
    stranger.connect(board.address)
    with caplog.at_level(logging.ERROR):
        stranger.send(b"garbage")
        service.send({"type": "warning", "run_uid": "a"})
        service.send({"type": "finished", "run_uid": "a", "state": "complete"})
        board.wait_finished("a", 30, nothing_wrong, catalogued=False)
    stranger.close()
    context.term()
    assert "a listener failed on 'warning'" in caplog.text


class Consumer:
    def __init__(self) -> None:
        self.calls = []

    def begin_run(self, run):
        self.calls.append(run)

    def frames(self, frames):
        self.calls.append(frames)

    def end_run(self, run_uid, exit_status, reason):
        self.calls.append((run_uid, exit_status, reason))


def test_what_the_pipeline_is_told_survives_the_way_to_the_worker():
    scan = TomographyScan(num_projections=3, rows=2, columns=2, dtype="<u2", exposure_s=0.1)
    run = RunDescription(uid="a", sample="wurzel ü", scan=scan)
    frames = FrameRange("a", "flats", 2, 5, "file://localhost/raw.h5", "/entry/flats/data")
    inbox = Inbox()
    outbox = Outbox(inbox.address)
    remote, consumer = RemoteFrameConsumer(outbox), Consumer()
    remote.begin_run(run)
    remote.frames(frames)
    remote.end_run("a", "abort", "lunch")
    for _ in range(3):
        deliver(inbox.receive(timeout_s=30), consumer)
    outbox.close()
    inbox.close()
    assert consumer.calls == [run, frames, ("a", "abort", "lunch")]
