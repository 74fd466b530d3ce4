"""Documents reach the catalogue in order, once and whole, whatever ends or goes away meanwhile."""

from __future__ import annotations

import time

import h5py
import numpy as np
import pytest
from tiled.client import from_uri

from apsber_bluesky.storage import EmbeddedTiled, Publication, VolumeWriter

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    # What the environment of the catalogue process says.
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 2)
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_TIMEOUT", 2)


def readings(client, uid):
    return client["raw"][uid]["baseline"].read()["motor"].values.tolist()


def test_runs_are_delivered_in_order_and_leave_the_disk(server, client, make_desk, taken_run):
    desk = make_desk(server.uri)
    runs = [taken_run(time=5000.0 + n) for n in range(3)]
    for run in reversed(runs):
        desk.keep(run.all())
    desk.deliver()
    assert desk.catalogued() == [run.uid for run in runs]
    assert desk.waiting() == []
    assert [readings(client, run.uid) for run in runs] == [[0.0, 1.0, 2.0]] * 3


def test_a_run_is_delivered_while_it_is_taken(server, client, make_desk, taken_run, monkeypatch):
    monkeypatch.setattr("apsber_bluesky.storage._run_delivery.WRITE_PERIOD_S", 0.01)
    desk, run = make_desk(server.uri), taken_run()
    desk.keep(run.begin())
    for event in run.events(6):
        desk.keep([event])
        desk.deliver()
        time.sleep(0.02)
    assert len(readings(client, run.uid)) >= 3
    assert "stop" not in client["raw"][run.uid].metadata
    desk.keep(run.end())
    desk.deliver()
    assert readings(client, run.uid) == [float(n) for n in range(6)]


def test_half_a_run_is_replaced_and_its_frames_are_left_alone(
    server, client, make_desk, taken_run, data_root
):
    path = data_root / "half.h5"
    frames = np.arange(4 * 3 * 5, dtype="<u2").reshape(4, 3, 5)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("data", data=frames, chunks=(1, 3, 5))
    desk, run = make_desk(server.uri), taken_run(path)
    desk.keep([*run.begin(), *run.events(4), *run.frames(0, 2)])
    desk.deliver()
    desk.replace()
    desk.keep([*run.frames(2, 4), *run.end()])
    desk.deliver()
    assert desk.catalogued() == [run.uid]
    assert readings(client, run.uid) == [0.0, 1.0, 2.0, 3.0]
    assert np.array_equal(client["raw"][run.uid]["primary"]["image"][:], frames)
    assert path.is_file()


def test_a_run_that_the_catalogue_has_is_not_written_again(server, client, make_desk, taken_run):
    desk, run = make_desk(server.uri), taken_run()
    desk.keep(run.all())
    (name,) = desk.waiting()
    kept = (desk.journal.folder / name).read_bytes()
    desk.deliver()
    first = client["raw"][run.uid].metadata["stop"]
    # Killed between the last write and the removal of the file.
    (desk.journal.folder / name).write_bytes(kept)
    desk.replace()
    desk.deliver()
    assert desk.waiting() == []
    assert client["raw"][run.uid].metadata["stop"] == first
    assert readings(client, run.uid) == [0.0, 1.0, 2.0]


def test_what_a_dead_session_left_is_delivered_first_and_a_living_one_is_let_be(
    server, client, make_desk, taken_run
):
    dead, living = make_desk(server.uri), make_desk(server.uri)
    whole, cut, others = taken_run(time=10.0), taken_run(time=11.0), taken_run(time=9.0)
    dead.keep(whole.all())
    dead.keep([*cut.begin(), *cut.events(2)])
    living.keep(others.all())
    dead.close()
    desk, own = make_desk(server.uri), taken_run(time=1.0)
    desk.keep(own.all())
    desk.deliver()
    assert desk.catalogued() == [whole.uid, cut.uid, own.uid]
    assert len(living.waiting()) == 1
    assert not dead.journal.folder.exists()
    stop = client["raw"][cut.uid].metadata["stop"]
    assert (stop["exit_status"], stop["num_events"]) == ("abort", {"baseline": 2})
    assert "ended before the run did" in stop["reason"]
    assert readings(client, cut.uid) == [0.0, 1.0]


def test_a_run_that_is_refused_is_kept_and_does_not_hold_the_others(
    server, client, make_desk, taken_run, monkeypatch
):
    monkeypatch.setattr("apsber_bluesky.storage._document_delivery._FIRST_PAUSE_S", 0.0)
    desk = make_desk(server.uri)
    bad, good = taken_run(time=1.0), taken_run(time=2.0)
    begin = bad.begin()
    # An event of a stream that the run does not have.
    stray = [(name, {**document, "descriptor": "none"}) for name, document in bad.events(1)]
    desk.keep([*begin])
    desk.journal._run_of["none"] = bad.uid
    desk.keep([*stray, *bad.end()])
    desk.keep(good.all())
    for _ in range(6):
        desk.deliver()
    assert good.uid in desk.catalogued()
    assert desk.waiting() == [f"{1.0:017.6f}-{bad.uid}.documents"]
    (warning,) = [m for m in desk.told if m["type"] == "warning"]
    assert warning["run_uid"] == bad.uid
    assert "refuses" in warning["message"]
    assert str(desk.journal.folder) in warning["message"]
    # Nobody waits for it.
    assert bad.uid in desk.catalogued()


@pytest.fixture(scope="module")
def stopping_server(tmp_path_factory):
    """A server that can be stopped and started again at its address."""

    class Stopping:
        directory = tmp_path_factory.mktemp("stopping") / "catalogue"
        served = tmp_path_factory.mktemp("stopping-data")
        running = None
        port = 0

        def start(self):
            if self.running is None:
                server = EmbeddedTiled(self.directory, [self.served], "secret123", self.port)
                self.running = server.__enter__()
                self.port = server.port
            return self.running.uri

        def stop(self):
            if self.running is not None:
                self.running.close()
                self.running = None

    server = Stopping()
    yield server
    server.stop()


def test_a_server_that_stops_in_the_middle_of_a_run_gets_everything_when_it_is_back(
    stopping_server, make_desk, taken_run, make_run, volume_values
):
    uri = stopping_server.start()
    desk = make_desk(uri)
    before, during, after = (taken_run(time=100.0 + n) for n in range(3))
    desk.keep(before.all())
    desk.keep([*during.begin(), *during.events(2)])
    desk.deliver()
    assert desk.catalogued() == [before.uid]

    stopping_server.stop()
    stored = make_run(uid=during.uid, root=stopping_server.served)
    with VolumeWriter(stored.folder.volume, volume_values.shape) as writer:
        writer.write(0, volume_values)
    publication = Publication.of(
        stored.folder,
        stored.run.model_copy(update={"start_time_s": 101.0}),
        processes=[],
        books=stored.books,
        quality=stored.quality,
        state="complete",
    )
    publication.keep(desk.journal.folder)
    desk.keep([*during.events(1), *during.end(), *after.all()])
    began = time.monotonic()
    desk.deliver()
    assert time.monotonic() - began < 30
    assert desk.catalogued() == [before.uid, during.uid, after.uid]
    warned = [m for m in desk.told if m["type"] == "warning"]
    assert [m["run_uid"] for m in warned] == [during.uid, after.uid]
    assert "does not answer" in warned[0]["message"]
    assert len(desk.waiting()) == 3

    assert stopping_server.start() == uri
    desk.told.clear()
    while desk.waiting():
        desk.deliver()
    assert desk.catalogued() == [during.uid, after.uid]
    client = from_uri(uri)
    starts = [run.metadata["start"]["time"] for run in client["raw"].values()]
    assert sorted(starts) == [100.0, 101.0, 102.0]
    assert readings(client, during.uid) == [0.0, 1.0, 0.0]
    assert np.array_equal(client["processed"][during.uid]["volume"][:], volume_values)
    client.context.close()


def test_a_server_that_is_away_at_the_start_is_waited_for(stopping_server, make_desk, taken_run):
    uri = stopping_server.start()
    stopping_server.stop()
    desk, run = make_desk(uri), taken_run(time=200.0)
    desk.keep(run.all())
    desk.deliver()
    assert desk.delivery.is_waiting
    assert desk.catalogued() == [run.uid]
    # The session ends, and the next one finds the server again.
    desk.close()
    stopping_server.start()
    following = make_desk(uri)
    while desk.journal.folder.exists():
        following.deliver()
    assert following.catalogued() == [run.uid]
    client = from_uri(uri)
    assert readings(client, run.uid) == [0.0, 1.0, 2.0]
    client.context.close()
