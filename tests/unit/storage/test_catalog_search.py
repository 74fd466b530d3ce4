"""Runs are found by what is known of them, volumes from their run and back, frames as they come."""

from __future__ import annotations

import datetime
import threading

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import InputError, Verdict
from apsber_bluesky.storage import (
    Publication,
    connect_catalog,
    find_runs,
    follow,
    open_volume,
    run_of,
    volume_of,
)

pytestmark = [
    pytest.mark.timeout(240),
    # Tiled's client and websockets 17.1.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning"),
]

DAY = datetime.datetime(2031, 5, 17, 12, 0)


@pytest.fixture(scope="module")
def runs(server, tmp_path_factory, desk_type, taken_run):
    """Runs of a campaign, one a day, and what quality control said of all but the last."""
    desk = desk_type(tmp_path_factory.mktemp("campaign"), server.uri)
    client = connect_catalog(server.uri)
    taken = []
    for n in range(6):
        time_s = (DAY + datetime.timedelta(days=n)).timestamp()
        run = taken_run(
            time=time_s,
            scan_id=700 + n,
            sample=("bone", "leaf", "leaf_2")[n % 3],
            proposal_id="GUP-77",
            plan_name=("fly_tomography", "count")[n % 2],
            technique="tomography" if n < 4 else "fluorescence",
            detectors=(["camera"], ["camera_2", "vortex"], ["cameraX2"])[n % 3],
        )
        desk.keep(run.all())
        taken.append(run.uid)
        if n < 5:
            verdict = ("pass", "fail")[n % 2]
            drift = {"value": n / 10 if n else None, "verdict": verdict}
            about = {"time": time_s, "quality": {"verdict": verdict, "drift": drift}}
            client["processed"].create_container(run.uid, metadata=about)
    desk.deliver()
    desk.close()
    client.context.close()
    return taken


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2}, [5, 4]),
        ({"sample": "leaf"}, [4, 1]),
        ({"sample": "leaf", "limit": 1}, [4]),
        ({"sample": "lea"}, []),
        ({"detector": "camera"}, [3, 0]),
        # To the server an underscore is any letter.
        ({"detector": "camera_2"}, [4, 1]),
        ({"detector": "vortex", "plan": "fly_tomography"}, [4]),
        ({"technique": "fluorescence"}, [5, 4]),
        ({"scan_id": 702}, [2]),
        ({"scan_id": np.int64(702)}, [2]),
        ({"verdict": "pass"}, [4, 2, 0]),
        ({"verdict": Verdict.FAIL}, [3, 1]),
        ({"verdict": "warn"}, []),
        ({"where": "drift<=0.2"}, [2, 1]),
        ({"where": ["drift>0.1", "drift=pass"]}, [4, 2]),
        ({"where": "drift=0.3", "verdict": "fail"}, [3]),
        ({"where": "ring_score<1"}, []),
        ({"verdict": "pass", "limit": 2}, [4, 2]),
        ({"verdict": "pass", "sample": "bone"}, [0]),
        ({"verdict": "fail", "detector": "camera", "scan_id": 703}, [3]),
        ({"since": "2031-05-20"}, [5, 4, 3]),
        ({"since": "2031-05-20 12:00"}, [5, 4, 3]),
        ({"since": "2031-05-20 12:00:01"}, [5, 4]),
        ({"until": "2031-05-18"}, [0]),
        ({"since": DAY + datetime.timedelta(days=1), "until": "2031-05-20"}, [2, 1]),
        ({"since": "2031-05", "until": "2031-06"}, [5, 4, 3, 2, 1, 0]),
        ({"since": "2032"}, []),
        ({"until": DAY.timestamp()}, []),
    ],
)
def test_runs_are_found_newest_first(client, runs, query, found):
    uids = [run.metadata["start"]["uid"] for run in find_runs(client, proposal="GUP-77", **query)]
    assert [runs.index(uid) for uid in uids] == found


def test_root_and_containers_are_all_good_to_search_in(client, runs):
    for catalog in (client, client["raw"], client["processed"]):
        (run,) = find_runs(catalog, proposal="GUP-77", scan_id=701)
        assert run.metadata["start"]["uid"] == runs[1]


def test_verdicts_are_found_beyond_the_first_page(client, runs, monkeypatch):
    monkeypatch.setattr("apsber_bluesky.storage._catalog_search._BLOCK", 2)
    found = find_runs(client, proposal="GUP-77", verdict="pass")
    assert [run.metadata["start"]["uid"] for run in found] == [runs[4], runs[2], runs[0]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"sample": 3}, "sample is 3; give a text"),
        ({"proposal": ["a"]}, "proposal is"),
        ({"plan": True}, "plan is True"),
        ({"since": "last week"}, "since is 'last week'; give a date such as"),
        ({"until": "2031-13"}, "until is '2031-13'"),
        ({"since": float("nan")}, "since is nan"),
        ({"since": True}, "since is True"),
        ({"since": "2031-06", "until": "2031-05"}, "since is '2031-06', which is not before"),
        ({"scan_id": "7"}, "scan_id is '7'"),
        ({"scan_id": True}, "scan_id is True"),
        ({"detector": 'x" or'}, "detector is"),
        ({"verdict": "good"}, "verdict is 'good'; give one of pass, warn, fail"),
        ({"where": "drift"}, "'drift' is no condition; write 'resolution<4'"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 2.5}, r"limit is 2\.5"),
    ],
)
def test_what_cannot_be_searched_for_is_named(client, query, message):
    with pytest.raises(InputError, match=message):
        find_runs(client, **query)


def test_something_that_is_no_catalogue_is_refused():
    with pytest.raises(InputError, match="no client of a Tiled catalogue"):
        find_runs({"raw": []})


class Bytes:
    """Count what travels."""

    def __init__(self, client):
        self.received = 0
        client.context.http_client.event_hooks["response"].append(self._note)

    def _note(self, response):
        response.read()
        self.received += response.num_bytes_downloaded


def test_a_volume_is_found_from_its_run_and_back_and_slices_alone_travel(
    server, client, stored, taken_run, make_desk
):
    desk = make_desk(server.uri)
    run = taken_run(sample="slices alone")
    desk.keep(run.all())
    desk.deliver()
    found = client["raw"][run.uid]
    with pytest.raises(InputError, match="has no volume in the catalogue"):
        volume_of(found)
    publication = Publication.of(
        stored.folder,
        stored.run,
        processes=[],
        books=stored.books,
        quality=stored.quality,
        state="complete",
    )
    node = publication.publish(client)
    # As the same run's, whose documents those are.
    client["processed"].create_container(run.uid, metadata={"run_uid": run.uid})
    source = node["volume"].include_data_sources().data_sources()[0]
    source.id = None
    client["processed"][run.uid].new("array", [source], key="volume")

    volume = volume_of(found)
    assert run_of(volume).metadata["start"]["sample"] == "slices alone"
    assert run_of(volume).path_parts == found.path_parts
    values = open_volume(stored.folder.volume)
    assert volume.shape == values.shape
    counted = Bytes(client)
    assert np.array_equal(volume[7], values[7])
    one_slice = values[7].nbytes
    assert counted.received < 1.2 * one_slice < values.nbytes / 15
    counted.received = 0
    assert np.array_equal(volume[3:5, 60:, :50], values[3:5, 60:, :50])
    assert counted.received < 2 * values[3:5, 60:, :50].nbytes


def test_run_and_volume_of_something_else_are_refused(client, runs):
    with pytest.raises(InputError, match="no run of the container 'raw'"):
        volume_of(client["processed"])
    with pytest.raises(InputError, match="not in the container 'processed'"):
        run_of(client["raw"][runs[0]])
    client["processed"].create_container("lone", metadata={"run_uid": "lone"})
    with pytest.raises(InputError, match="does not have run lone"):
        run_of(client["processed"]["lone"])


@pytest.fixture
def growing(data_root, request):
    """A file that grows as a detector's does, and its frames."""
    path = data_root / f"{request.node.name}.h5"
    frames = np.random.default_rng(5).integers(0, 60000, (12, 6, 8), dtype="u2")
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(
            "data", shape=(0, 6, 8), maxshape=(None, 6, 8), chunks=(1, 6, 8), dtype="<u2"
        )
        file.swmr_mode = True

        def grow(stop):
            data.resize(stop, axis=0)
            data[:stop] = frames[:stop]
            data.flush()

        yield path, frames, grow


def test_a_live_run_is_followed_frame_by_frame(
    server, client, taken_run, make_desk, growing, monkeypatch
):
    monkeypatch.setattr("apsber_bluesky.storage._run_delivery.WRITE_PERIOD_S", 0.0)
    # So long that only the catalogue's own word can bring the frames in time.
    monkeypatch.setattr("apsber_bluesky.storage._catalog_follow._LOOK_AGAIN_S", 20.0)
    path, frames, grow = growing
    desk, run = make_desk(server.uri), taken_run(path)
    desk.keep(run.begin())
    grow(4)
    desk.keep([*run.frames(0, 2), *run.frames(2, 4)])
    desk.deliver()
    got, arrived = [], threading.Semaphore(0)

    def on_frames(first, block):
        got.append((first, block))
        arrived.release()

    with follow(client["raw"][run.uid], on_frames, block_megabytes=3 * 96e-6) as follower:
        assert arrived.acquire(timeout=30)
        assert arrived.acquire(timeout=30)
        grow(9)
        desk.keep([*run.frames(4, 7), *run.frames(7, 9)])
        desk.deliver()
        assert arrived.acquire(timeout=15)
        grow(12)
        desk.keep([*run.frames(9, 12), *run.end()])
        desk.deliver()
        assert follower.wait(60) == 12
    assert [first for first, _ in got][:3] == [0, 3, 4]
    assert max(len(block) for _, block in got) == 3
    assert np.array_equal(np.concatenate([block for _, block in got]), frames)
    # A run that is over is read the same way.
    got.clear()
    with follow(client["raw"][run.uid], on_frames) as follower:
        assert follower.wait(60) == 12
    assert np.array_equal(np.concatenate([block for _, block in got]), frames)


def test_the_next_run_is_followed_when_it_begins(server, client, taken_run, make_desk, growing):
    path, frames, grow = growing
    grow(12)
    desk = make_desk(server.uri)
    latest = find_runs(client, limit=1)[0].metadata["start"]["time"] if len(client["raw"]) else 0
    old, new = taken_run(path, time=latest - 1), taken_run(path, time=latest + 1)
    got = []
    with follow(client["raw"], lambda first, block: got.append(block)) as follower:
        desk.keep([*old.begin(), *old.frames(0, 3), *old.end()])
        desk.keep([*new.begin(), *new.frames(0, 12), *new.end()])
        desk.deliver()
        assert follower.wait(60) == 12
        assert follower.run.metadata["start"]["uid"] == new.uid
    assert np.array_equal(np.concatenate(got), frames)


def test_what_a_callback_raises_ends_following_and_is_raised_to_who_waits(
    server, client, taken_run, make_desk, growing
):
    path, _, grow = growing
    grow(3)
    desk, run = make_desk(server.uri), taken_run(path)
    desk.keep([*run.begin(), *run.frames(0, 3), *run.end()])
    desk.deliver()

    def fail(first, block):
        raise ZeroDivisionError(first)

    with (
        follow(client["raw"][run.uid], fail) as follower,
        pytest.raises(ZeroDivisionError),
    ):
        follower.wait(60)


def test_a_run_without_frames_is_followed_to_its_end(server, client, taken_run, make_desk):
    desk, run = make_desk(server.uri), taken_run()
    desk.keep(run.all())
    desk.deliver()
    with follow(client["raw"][run.uid], print) as follower:
        assert follower.wait(60) == 0


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ({}, {}, "no client of a Tiled catalogue"),
        (None, {"block_megabytes": 0}, "block_megabytes is 0"),
        (None, {"on_frames": "print"}, "on_frames is 'print'"),
    ],
)
def test_what_cannot_be_followed_is_named(client, runs, run, options, message):
    run = client["raw"][runs[0]] if run is None else run
    with pytest.raises(InputError, match=message):
        follow(run, options.pop("on_frames", print), **options)
