"""Runs on disk as the page shows them; looking changes nothing."""

from __future__ import annotations

import io
import json
import math
import sqlite3
import time

import numpy as np
import pytest
import zarr
from PIL import Image

from apsber_bluesky.core import DataFileError, InputError, RunLedger, SeriesBooks, StorageError
from apsber_bluesky.dashboard import _volume_slices, _watcher
from apsber_bluesky.dashboard._png import grey_png, to_grey
from apsber_bluesky.dashboard._run_index import RunIndex
from apsber_bluesky.dashboard._scan_view import view_run
from apsber_bluesky.dashboard._volume_slices import VolumeSlices
from apsber_bluesky.dashboard._watcher import Watcher
from apsber_bluesky.session import announce_session, withdraw_session
from apsber_bluesky.storage import VolumeWriter
from apsber_bluesky.streaming import ReceiverHealth


def files_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_the_newest_come_first_and_can_be_searched(make_run, tmp_path):
    make_run("old", start_s=10.0, sample="Maize root")
    make_run("new", start_s=20.0, sample="soil <b>", state="aborted")
    index = RunIndex(tmp_path)
    assert index.refresh()
    assert not index.refresh()
    assert [run["uid"] for run in index.newest] == ["new", "old"]
    assert [run["uid"] for run in index.search("ROOT maize")] == ["old"]
    assert [run["uid"] for run in index.search("aborted warn")] == ["new"]
    assert index.search("aborted maize") == []
    with pytest.raises(StorageError, match="no such run"):
        index.folder("../old")


def test_looking_at_runs_leaves_no_trace(make_run, tmp_path):
    make_run("one")
    before = files_of(tmp_path)
    index = RunIndex(tmp_path)
    index.refresh()
    view_run(index.folder("one"), {}, None)
    assert files_of(tmp_path) == before


def test_what_a_run_that_goes_on_writes_is_seen(make_run, tmp_path):
    folder = make_run("one", state="acquiring")
    index = RunIndex(tmp_path)
    index.refresh()
    with RunLedger(folder.ledger) as ledger:
        ledger.set_books("primary", SeriesBooks(8, 8, 8, 8))
        assert index.refresh()
        assert index.newest[0]["frames"]["written"] == 10
    folder.ledger.unlink()
    assert index.refresh()
    assert index.newest == []


def test_a_run_that_cannot_be_read_does_not_hide_the_others(make_run, tmp_path):
    make_run("good")
    make_run("bad").ledger.write_bytes(b"no database" * 100)
    make_run("torn").quality.write_text("{")
    with sqlite3.connect(make_run("strange").ledger) as connection:
        connection.execute("UPDATE run SET description = '[1]'")
    index = RunIndex(tmp_path)
    index.refresh()
    states = {run["uid"]: run["state"] for run in index.newest}
    assert states == {
        "good": "complete",
        "bad": "unreadable",
        "torn": "unreadable",
        "strange": "unreadable",
    }
    # The page goes on with what can be read.
    assert index.search("unreadable")


def test_the_receiver_is_ahead_of_the_ledger(make_run):
    folder = make_run("one", state="acquiring")
    health = ReceiverHealth(
        run_uid="one", stream="primary", armed=True, expected=8, received=8, written=8, missing=0,
        frame_rate_hz=12.5,
    ).to_dict()  # fmt: skip
    view = view_run(folder, {"stages": {"reconstruct": [3, 9]}, "warnings": ["w"]}, health)
    primary = view["streams"][-1]
    assert (primary["planned"], primary["written"], primary["used"]) == (8, 8, 6)
    # A frame that may still come is not missing yet.
    assert (primary["missing"], primary["lost"]) == (0, "")
    assert (view["rate_hz"], view["stream"], view["warnings"]) == (12.5, "primary", ["w"])
    assert view["stages"][0]["done"] == 3
    ended = view_run(folder, {}, {**health, "armed": False, "written": 7, "received": 7})
    assert (ended["streams"][-1]["missing"], ended["streams"][-1]["lost"]) == (1, "3")
    other = view_run(folder, {}, {**health, "run_uid": "another"})
    assert other["streams"][-1]["written"] == 7
    assert json.loads(json.dumps(other, allow_nan=False)) == other


def test_pictures_are_what_they_encode():
    values = np.array([[0.0, 1.0, np.nan], [2.0, 3.0, 1e9]], np.float32)
    grey = to_grey(values, 1.0, 3.0)
    assert grey.tolist() == [[0, 0, 0], [127, 255, 255]]
    with Image.open(io.BytesIO(grey_png(grey))) as image:
        image.load()
        assert np.array_equal(np.asarray(image), grey)
    assert to_grey(values, 2.0, 2.0).dtype == np.uint8


def decode(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGBA" if image.mode == "P" else "L"))


def test_a_slice_is_where_it_was_asked_for(run_with_volumes):
    slices = VolumeSlices()
    facts = slices.describe(run_with_volumes)
    assert set(facts) == {"volume", "labels"}
    assert facts["volume"]["shape"] == [16, 20, 24]
    greys = [decode(slices.png(run_with_volumes, "volume", "z", z)).mean() for z in range(16)]
    assert np.all(np.diff(greys) >= 0)
    assert greys[-1] > greys[0] + 200
    sides = {axis: decode(slices.png(run_with_volumes, "volume", axis, 3)).shape for axis in "zyx"}
    assert sides == {"z": (20, 24), "y": (16, 24), "x": (16, 20)}


def test_labels_have_their_colours_and_what_is_unknown_is_clear(run_with_volumes):
    slices = VolumeSlices()
    classes = slices.describe(run_with_volumes)["labels"]["classes"]
    assert [one["name"] for one in classes] == ["background", "pore", "root"]
    image = decode(slices.png(run_with_volumes, "labels", "z", 4))
    assert image[5, 0, 3] == 0
    assert image[0, 10, 3] == 0
    assert image[5, 10].tolist() == classes[1]["rgba"]
    assert image[5, 20].tolist() == classes[2]["rgba"]


def test_a_large_slice_comes_from_a_coarser_level(make_run, monkeypatch):
    folder = make_run("one")
    values = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (4, 300, 300))
    with VolumeWriter(folder.volume, values.shape) as writer:
        writer.write(0, values)
    slices = VolumeSlices()
    assert decode(slices.png(folder, "volume", "z", 3)).shape == (300, 300)
    monkeypatch.setattr(_volume_slices, "MAXIMUM_SIDE", 200)
    pictures = [decode(slices.png(folder, "volume", "z", position)) for position in range(4)]
    assert {picture.shape for picture in pictures} == {(150, 150)}
    assert pictures[0].mean() == pictures[1].mean() < pictures[3].mean()


def test_a_volume_that_was_made_again_is_seen(run_with_volumes):
    slices = VolumeSlices()
    slices.png(run_with_volumes, "volume", "z", 0)
    run_with_volumes.volume.rename(run_with_volumes.path / "old.zarr")
    with pytest.raises(DataFileError, match="has no volume"):
        slices.png(run_with_volumes, "volume", "z", 0)


@pytest.mark.parametrize("label", [3, {"properties": [1]}, {"colors": [{}]}])
def test_labels_that_do_not_say_what_they_are_are_refused(run_with_volumes, label):
    group = zarr.open_group(run_with_volumes.labels, mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "image-label": label}
    with pytest.raises(DataFileError, match="labels"):
        VolumeSlices().describe(run_with_volumes)


def test_a_volume_that_is_a_link_is_not_shown(run_with_volumes, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "volume.zarr"
    run_with_volumes.volume.rename(elsewhere)
    run_with_volumes.volume.symlink_to(elsewhere)
    with pytest.raises(DataFileError, match="link"):
        VolumeSlices().png(run_with_volumes, "volume", "z", 0)
    with pytest.raises(InputError):
        VolumeSlices().png(run_with_volumes, "raw", "z", 0)


def test_numbers_that_json_has_not_are_left_out(make_run):
    folder = make_run("one")
    metric = {"name": "a", "value": math.nan, "warn_limit": math.inf, "verdict": "fail"}
    folder.quality.write_text(json.dumps({"verdict": "fail", "metrics": [metric]}))
    (shown,) = view_run(folder, {}, None)["quality"]["metrics"]
    assert (shown["value"], shown["warn_limit"], shown["verdict"]) == (None, None, "fail")


def test_a_data_root_that_is_not_there_yet_is_waited_for(profile, make_run, monkeypatch):
    monkeypatch.setattr(_watcher, "_REST", 0)
    watcher = Watcher(profile)
    watcher.look()
    sections = watcher.board.since(0)[1]
    assert (sections["scan"], sections["session"]) == ("null", "null")
    make_run("first", sample="</script><img src=x onerror=alert(1)>")
    watcher.look()
    scan = json.loads(watcher.board.since(0)[1]["scan"])
    assert (scan["uid"], scan["is_over"]) == ("first", True)


def test_a_ledger_is_read_without_opening_it_for_others(make_run):
    folder = make_run("one")
    with RunLedger(folder.ledger, read_only=True) as ledger:
        assert ledger.books.streams["primary"].missing == [3]
        with pytest.raises(StorageError, match="cannot write"):
            ledger.describe({})
    with RunLedger(folder.ledger) as writer:
        writer.set_used("primary", 7)
        with RunLedger(folder.ledger, read_only=True) as ledger:
            assert ledger.books.streams["primary"].used == 7
    folder.ledger.write_bytes(b"")
    with (
        RunLedger(folder.ledger, read_only=True) as ledger,
        pytest.raises(StorageError, match="cannot read"),
    ):
        ledger.books  # noqa: B018 - reading is what fails
    assert sqlite3.connect(folder.ledger).execute("PRAGMA page_count").fetchone() == (0,)


def test_a_session_that_cannot_be_reached_does_not_end_the_watch(profile, make_run, caplog):
    make_run("one")
    own = profile.session.data_root / ".apsber"
    own.mkdir()
    announce_session(
        own, profile="p", control_address="tcp://127.0.0.1:9", name_server="127.0.0.1:9",
        health_prefix="P:", status_address="nowhere",
    )  # fmt: skip
    watcher = Watcher(profile)
    watcher.start()
    try:
        wait(lambda: "cannot look" in caplog.text)
        assert json.loads(watcher.board.since(0)[1]["runs"])["total"] == 1
        withdraw_session(own)
        wait(lambda: "scan" in watcher.board.since(0)[1])
    finally:
        watcher.close()
    # Not four times a second.
    assert caplog.text.count("cannot look") == 1


def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
