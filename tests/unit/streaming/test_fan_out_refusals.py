"""What the fan-out refuses, and that nobody else notices."""

from __future__ import annotations

import contextlib
import random
import time

import numpy as np
import pytest
import zmq

from apsber_bluesky.core import (
    ConfigurationError,
    DataFileError,
    FrameRange,
    RunDescription,
    ServiceError,
    TomographyScan,
)
from apsber_bluesky.streaming import _fan_out_wire as wire
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import FanOutClient
from apsber_bluesky.streaming._fan_out_distributor import FanOutLimits

ROWS, COLUMNS = 6, 8


def frame(index, rows=ROWS, columns=COLUMNS):
    return np.full((rows, columns), index, "<u2") + np.arange(columns, dtype="<u2")


def read(frames):
    return np.stack([frame(index) for index in range(frames.start, frames.stop)])


def description(uid="run", num_projections=40, num_flats=3):
    scan = TomographyScan(
        num_projections=num_projections,
        num_flats=num_flats,
        rows=ROWS,
        columns=COLUMNS,
        dtype="<u2",
        exposure_s=0.1,
    )
    return RunDescription(uid=uid, scan=scan)


def announced(start, stop, uid="run", stream="primary"):
    return FrameRange(uid, stream, start, stop, "file:///nowhere/raw.h5", f"/entry/{stream}/data")


@pytest.fixture
def make():
    """Start fan-outs and clients; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def fan_out(source=read, address="tcp://127.0.0.1:*", **options):
            options.setdefault("missing", lambda _: [])
            made = FanOut(source, address, **options)
            stack.callback(made.close)
            return made

        def client(fan_out, *words, **options):
            address = fan_out if isinstance(fan_out, str) else fan_out.address
            return stack.enter_context(FanOutClient(address, *words, **options))

        yield fan_out, client


def collect(client):
    """Indices in the order they came; the pixels are checked."""
    indices = []
    for index, pixels in client:
        np.testing.assert_array_equal(pixels, frame(index))
        indices.append(index)
    return indices


def whole_run(server, uid="run", num=40):
    server.begin_run(description(uid, num))
    server.frames(announced(0, num, uid))
    server.end_run(uid, "success", "")


def wait_for(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def raw_client(address, identity=b"raw"):
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.connect(address)
    return socket


HELLO = {"protocol": wire.PROTOCOL, "type": "hello", "session": 7, "run_uid": "run"} | {
    "stream": "primary",
    "next": 0,
    "credit": 1,
}


def test_whatever_a_client_sends_is_answered_and_the_others_are_served(make):
    import msgpack

    fan_out, client = make
    server = fan_out()
    server.begin_run(description())
    chance = random.Random(3)
    bad = [
        [b""],
        [b"\xc1"],
        [msgpack.packb([])],
        [b"\x91" * 800],
        [b"x" * 1025],
        [b"", b"", b""],
        [msgpack.packb(HELLO), b"more"],
        [msgpack.packb(HELLO) + b"\x00"],
        [msgpack.packb(HELLO)[:-1]],
        [b"\x82\xa1a\x01\xa1a\x02"],
        *([msgpack.packb(HELLO | {key: value})] for key, value in BAD_VALUES),
        *([chance.randbytes(chance.randrange(200))] for _ in range(300)),
    ]
    socket = raw_client(server.address)
    for parts in bad:
        socket.send_multipart(parts)
        assert socket.poll(10_000), parts
        (answer,) = socket.recv_multipart()
        problem = wire.parse_answer(answer)
        assert isinstance(problem, wire.Problem), parts
        assert problem.code == "malformed"
    # One that is far too large ends the connection of its sender alone.
    socket.send(bytes(1 << 20))
    server.frames(announced(0, 40))
    server.end_run("run", "success", "")
    assert collect(client(server, "run")) == list(range(40))
    socket.close()


BAD_VALUES = [
    ("protocol", "apsber-fan-out/2"),
    ("type", "shutdown"),
    ("type", ["hello"]),
    ("type", "frame"),
    ("session", -1),
    ("session", True),
    ("session", 1.0),
    ("run_uid", ""),
    ("run_uid", "x" * 129),
    ("stream", "../primary"),
    ("stream", None),
    ("next", -1),
    ("next", 2**41),
    ("credit", 0),
    ("credit", 2**17),
]


def test_an_acknowledgement_of_what_was_never_sent_is_refused(make):
    fan_out, _ = make
    server = fan_out()
    server.begin_run(description())
    with contextlib.closing(raw_client(server.address)) as socket:
        socket.send(wire.pack(wire.Hello(7, "run", "primary", 0, 4)))
        assert isinstance(wire.parse_answer(socket.recv()), wire.Start)
        socket.send(wire.pack(wire.Acknowledge(7, 1)))
        assert "acknowledged 1, sent below 0" in wire.parse_answer(socket.recv()).message
        socket.send(wire.pack(wire.Acknowledge(8, 0)))
        assert wire.parse_answer(socket.recv()).code == "unknown-session"


def test_more_clients_than_allowed_are_told_and_dead_ones_make_room(make):
    fan_out, client = make
    server = fan_out(limits=FanOutLimits(clients=2))
    server.begin_run(description())
    server.frames(announced(0, 40))
    sockets = [raw_client(server.address, name) for name in (b"a", b"b")]
    for socket in sockets:
        socket.send(wire.pack(wire.Hello(1, "run", "primary", 0, 1)))
        assert isinstance(wire.parse_answer(socket.recv()), wire.Start)
    with pytest.raises(ServiceError, match="too-many-clients: 2 clients are served already"):
        next(iter(client(server, "run")))
    for socket in sockets:
        socket.close()
    server.end_run("run", "success", "")
    wait_for(lambda: _try(lambda: collect(client(server, "run"))) == list(range(40)))


def _try(call):
    try:
        return call()
    except ServiceError:
        return None


def test_a_frame_that_cannot_be_read_is_told_and_other_streams_go_on(make):
    fan_out, client = make

    def torn(frames):
        if frames.stream == "primary":
            raise DataFileError("the disk is gone")
        return read(frames)

    server = fan_out(torn)
    server.begin_run(description(num_flats=3))
    server.frames(announced(0, 40))
    server.frames(announced(0, 3, stream="flats"))
    server.end_run("run", "success", "")
    with pytest.raises(ServiceError, match="unreadable: frame 0 cannot be read: the disk is gone"):
        collect(client(server, "run"))
    assert collect(client(server, "run", "flats")) == [0, 1, 2]


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 2, 2), "<u2"), np.zeros((1, ROWS, COLUMNS), "<u4")]
)
def test_a_source_that_gives_other_frames_than_the_run_takes_is_not_believed(make, pixels):
    fan_out, client = make
    server = fan_out(lambda _: pixels)
    whole_run(server)
    with pytest.raises(ServiceError, match=r"the run takes <u2 \(6, 8\)"):
        collect(client(server, "run"))


def test_nobody_there_and_an_unknown_run_are_told_in_time(make):
    fan_out, client = make
    with pytest.raises(ServiceError, match=r"no answer from the fan-out at tcp://127\.0\.0\.1:9"):
        collect(client("tcp://127.0.0.1:9", patience_s=0.5))
    with pytest.raises(ServiceError, match="has known no run 'atlantis'"):
        collect(client(fan_out(), "atlantis", patience_s=0.5))


@pytest.mark.parametrize(
    "address", ["tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://eth0:1"]
)
def test_frames_are_not_offered_to_a_network_without_asking_who_reads(address):
    with pytest.raises(ConfigurationError, match="anybody who reaches"):
        FanOut(read, address)


def test_an_address_that_is_taken_or_none_is_named(make):
    fan_out, client = make
    with pytest.raises(ConfigurationError, match="in use"):
        FanOut(read, fan_out().address)
    with pytest.raises(ConfigurationError, match="cannot connect to 'nowhere'"):
        client("nowhere")
