"""Frames handed to remote consumers: in order, exactly once, or named as missing."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from apsber_bluesky.core import (
    FrameRange,
    RunDescription,
    RunLedger,
    SeriesBooks,
    ServiceError,
    TomographyScan,
)
from apsber_bluesky.streaming import RingOrFileSource
from apsber_bluesky.streaming import _fan_out_wire as wire
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import FanOutClient
from apsber_bluesky.streaming._fan_out_distributor import FanOutLimits
from apsber_bluesky.streaming._fan_out_runs import missing_in_ledger

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


@pytest.mark.parametrize("credit", [1, 3, 100])
def test_a_run_arrives_in_order_and_whole(make, credit):
    fan_out, client = make
    server = fan_out()
    consumer = client(server, "run", credit=credit)
    threading.Thread(target=whole_run, args=(server,)).start()
    assert collect(consumer) == list(range(40))
    assert (consumer.start.run_uid, consumer.start.num_frames) == ("run", 40)
    assert (consumer.end.exit_status, consumer.missing, consumer.reconnects) == ("success", [], 0)


def test_streams_and_runs_are_kept_apart(make):
    fan_out, client = make
    server = fan_out()
    whole_run(server, "one", 5)
    server.begin_run(description("two", 4))
    server.frames(announced(0, 2, "two", "flats"))
    server.frames(announced(2, 3, "two", "flats"))
    server.frames(announced(0, 4, "two"))
    server.end_run("two", "abort", "the beam went")
    assert collect(client(server, "one")) == [0, 1, 2, 3, 4]
    flats = client(server, "two", "flats")
    assert collect(flats) == [0, 1, 2]
    assert (flats.end.exit_status, flats.end.reason) == ("abort", "the beam went")
    assert collect(client(server, "two")) == [0, 1, 2, 3]
    darks = client(server, "two", "darks")
    assert (collect(darks), darks.end.num_frames) == ([], 0)


def test_next_is_the_run_that_is_open_or_else_the_next_to_open(make):
    fan_out, client = make
    server = fan_out()
    whole_run(server, "old", 3)
    waiting = client(server)
    wait_for(lambda: any(c["run_uid"] == "next" for c in server.clients()))
    server.begin_run(description("new", 2))
    server.frames(announced(0, 2, "new"))
    late = client(server)
    assert [index for index, _ in zip(range(2), late, strict=False)] == [0, 1]
    server.end_run("new", "success", "")
    assert collect(waiting) == [0, 1]
    assert waiting.start.run_uid == "new"


@pytest.mark.parametrize(
    ("ranges", "missing", "num", "came", "named"),
    [
        ([(0, 10)], {0, 4, 5, 9}, 10, [1, 2, 3, 6, 7, 8], [0, 4, 5, 9]),
        ([(0, 3), (5, 8)], set(), 10, [0, 1, 2, 5, 6, 7], [3, 4, 8, 9]),
        ([(5, 8), (0, 3)], {6}, 8, [0, 1, 2, 5, 7], [3, 4, 6]),
        ([], set(), 3, [], [0, 1, 2]),
        ([(0, 4)], {0, 1, 2, 3}, 4, [], [0, 1, 2, 3]),
        ([(0, 6)], set(), 4, [0, 1, 2, 3, 4, 5], []),
        ([(0, 2), (0, 4), (1, 3)], set(), 4, [0, 1, 2, 3], []),
    ],
)
def test_frames_that_are_missing_are_skipped_and_named(make, ranges, missing, num, came, named):
    fan_out, client = make
    server = fan_out(missing=lambda r: [i for i in missing if r.start <= i < r.stop])
    consumer = client(server, "run")
    server.begin_run(description(num_projections=num))
    for start, stop in ranges:
        server.frames(announced(start, stop))
    server.end_run("run", "success", "")
    assert collect(consumer) == came
    assert consumer.missing == named


def test_a_hole_in_the_announcements_is_waited_for_while_the_run_is_open(make):
    fan_out, client = make
    server = fan_out()
    server.begin_run(description(num_projections=6))
    server.frames(announced(0, 2))
    server.frames(announced(4, 6))
    consumer = client(server, "run")
    frames = iter(consumer)
    assert [next(frames)[0] for _ in range(2)] == [0, 1]
    wait_for(lambda: server.clients()[0]["next"] == 2)
    server.frames(announced(2, 4))
    assert [next(frames)[0] for _ in range(4)] == [2, 3, 4, 5]


def test_the_receivers_books_name_the_missing_frames(tmp_path):
    raw = tmp_path / "raw.h5"
    frames = FrameRange("run", "primary", 2, 8, raw.as_uri(), "/entry/primary/data")
    assert missing_in_ledger(frames) == []
    with RunLedger(tmp_path / "ledger.sqlite", create=True) as ledger:
        ledger.set_books("primary", SeriesBooks(expected=10, missing=[1, 3, 9]))
    assert missing_in_ledger(frames) == [3]


def test_a_consumer_that_reads_nothing_costs_its_credit_and_delays_nobody(make):
    fan_out, client = make
    served = []

    def counted(frames):
        served.append(frames.start)
        return read(frames)

    server = fan_out(counted, limits=FanOutLimits(credit_bytes=3 * ROWS * COLUMNS * 2))
    idle = client(server, "run", credit=1000, name="idle")
    server.begin_run(description())
    wait_for(lambda: server.clients())
    server.frames(announced(0, 40))
    server.end_run("run", "success", "")
    assert collect(client(server, "run")) == list(range(40))
    assert len(served) == 43
    assert collect(idle) == list(range(40))


def test_a_client_that_was_forgotten_or_lost_messages_goes_on_where_it_was(make):
    fan_out, client = make
    server = fan_out(limits=FanOutLimits(silence_s=0.2))
    server.begin_run(description())
    server.frames(announced(0, 40))
    server.end_run("run", "success", "")
    consumer = client(server, "run")
    came = []
    for index, _ in consumer:
        came.append(index)
        if index == 10:
            wait_for(lambda: not server.clients())
        if index == 20:
            # As when the connection was cut: some of what was under way never arrives.
            assert consumer._socket.poll(5000)
            consumer._socket.recv_multipart()
    assert came == list(range(40))
    assert consumer.reconnects >= 2


def test_the_frame_in_hand_comes_again_when_an_iteration_is_left(make):
    fan_out, client = make
    server = fan_out()
    whole_run(server)
    consumer = client(server, "run")
    for index, _ in consumer:
        if index == 7:
            break
    assert collect(consumer) == list(range(7, 40))
    assert collect(consumer) == []


def test_a_consumer_may_keep_a_frame_for_longer_than_its_patience(make):
    fan_out, client = make
    server = fan_out()
    whole_run(server, num=10)
    consumer = client(server, "run", credit=1, silence_s=0.1, patience_s=0.2)
    came = []
    for index, _ in consumer:
        came.append(index)
        time.sleep(0.5 if index in (0, 9) else 0)
    assert came == list(range(10))
    assert consumer.reconnects == 0


def test_old_runs_are_forgotten_but_not_one_that_is_being_read(make):
    fan_out, client = make
    server = fan_out(limits=FanOutLimits(runs=2))
    whole_run(server, "a", 5)
    frames = iter(client(server, "a", credit=1))
    assert next(frames)[0] == 0
    for uid in "bcd":
        whole_run(server, uid, 1)
    assert [index for index, _ in frames] == [1, 2, 3, 4]
    assert collect(client(server, "d")) == [0]
    with pytest.raises(ServiceError, match="has known no run 'b'"):
        collect(client(server, "b", patience_s=0.2))


def test_frames_are_read_from_a_spool_by_the_suites_own_source(make, tmp_path: Path):
    import h5py

    path = tmp_path / "raw.h5"
    with h5py.File(path, "w") as file:
        file["/entry/primary/data"] = np.stack([frame(i) for i in range(40)])
    source = RingOrFileSource()
    fan_out, client = make
    server = fan_out(source.read, missing=missing_in_ledger)
    server.begin_run(description())
    server.frames(FrameRange("run", "primary", 0, 40, path.as_uri(), "/entry/primary/data"))
    server.end_run("run", "success", "")
    assert collect(client(server, "run")) == list(range(40))
    server.close()
    source.close()


def test_the_documented_example_gets_a_run(make, documented_code, capsys):
    fan_out, _ = make
    server = fan_out(missing=lambda frames: [2])
    whole_run(server, "RUN", 5)
    code = documented_code("docs/reference/fan-out-protocol.md", "fan-out")
    assert wire.PROTOCOL in code
    variables: dict[str, object] = {}
    exec(code.replace("tcp://127.0.0.1:5556", server.address), variables)
    variables["port"].close(0)
    assert sorted(variables["frames"]) == [0, 1, 3, 4]
    np.testing.assert_array_equal(variables["frames"][3], frame(3))
    assert capsys.readouterr().out == "4 of 5 frames, missing [[2, 3]]\n"
