"""The run ledger: states, books and stages, written by several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import (
    FrameBooks,
    InputError,
    RunLedger,
    RunState,
    SeriesBooks,
    StorageError,
)


@pytest.fixture
def ledger(tmp_path):
    with RunLedger(tmp_path / "ledger.sqlite", create=True) as ledger:
        yield ledger


def test_a_new_ledger_is_acquiring_and_empty(ledger):
    assert ledger.state is RunState.ACQUIRING
    assert (ledger.reason, ledger.description, ledger.stages) == ("", {}, [])
    assert ledger.books == FrameBooks()


@pytest.mark.parametrize("state", list(RunState))
def test_a_state_is_kept_with_its_reason(ledger, tmp_path, state):
    ledger.set_state(RunState.PROCESSING)
    ledger.set_state(state, "because")
    with RunLedger(tmp_path / "ledger.sqlite") as again:
        assert (again.state, again.reason) == (state, "because")


def test_only_running_states_are_not_final():
    running = {RunState.ACQUIRING, RunState.PROCESSING}
    assert {state for state in RunState if not state.is_final} == running


def test_description_and_state_do_not_overwrite_each_other(ledger):
    ledger.set_state(RunState.PROCESSING, "why")
    ledger.describe({"uid": "abc"})
    assert (ledger.state, ledger.reason) == (RunState.PROCESSING, "why")
    ledger.set_state(RunState.COMPLETE)
    assert ledger.description == {"uid": "abc"}


counts = st.integers(0, 10**6)
numbers = st.sets(counts, max_size=5).map(sorted)
series = st.builds(
    SeriesBooks,
    *[counts] * 6,
    missing=numbers,
    decoded=counts,
    recovered=counts,
    incomplete=numbers,
)
streams = st.dictionaries(st.sampled_from(["primary", "flats", "darks"]), series)


@given(streams)
def test_books_survive_a_round_trip_through_plain_values(books):
    frames = FrameBooks(books)
    assert FrameBooks.from_dict(frames.to_dict()) == frames
    assert frames.expected == sum(one.expected for one in books.values())


def test_books_survive_a_round_trip_through_the_ledger(ledger):
    for received in (3, 4):
        ledger.set_books("flats", SeriesBooks(expected=5, received=received, missing=[1, 4]))
    ledger.set_books("darks", SeriesBooks(expected=2, received=2, written=2))
    assert ledger.books == FrameBooks(
        {
            "flats": SeriesBooks(expected=5, received=4, missing=[1, 4]),
            "darks": SeriesBooks(expected=2, received=2, written=2),
        }
    )


@pytest.mark.parametrize(
    ("books", "complete"),
    [
        (SeriesBooks(), True),
        (SeriesBooks(expected=2, written=2), True),
        (SeriesBooks(expected=2, written=1, missing=[1]), False),
        (SeriesBooks(expected=2, written=1), False),
        (SeriesBooks(expected=2, written=2, missing=[0]), False),
        (SeriesBooks(expected=2, written=2, incomplete=[1]), False),
    ],
)
def test_books_are_complete_when_every_frame_is_written_and_none_is_missing(books, complete):
    assert books.complete is complete
    assert FrameBooks({"flats": SeriesBooks(), "primary": books}).complete is complete


@pytest.mark.parametrize(
    ("books", "fault"),
    [
        (SeriesBooks(expected=9, written=9), ""),
        (SeriesBooks(expected=9, written=7, missing=[1, 4]), "2 of 9 frames are missing"),
        (SeriesBooks(expected=9, written=7), "2 of 9 frames are missing"),
        (SeriesBooks(expected=9, written=9, incomplete=[3]), "1 of 9 frames are incomplete"),
        (
            SeriesBooks(expected=9, written=8, missing=[2], incomplete=[3]),
            "1 of 9 frames are missing, 1 of 9 frames are incomplete",
        ),
        (SeriesBooks(expected=9, written=10), "10 frames are on disk, 9 were expected"),
    ],
)
def test_books_say_what_is_wrong_exactly_when_they_are_not_complete(books, fault):
    frames = FrameBooks({"primary": books})
    assert frames.fault == fault
    assert frames.complete is (not fault)
    assert frames.to_dict()["num_missing"] == books.num_missing


def test_long_lists_of_frames_are_stored_as_ranges(ledger, tmp_path):
    lost = list(range(0, 200_000, 2)) + list(range(200_000, 300_000))
    ledger.set_books("primary", SeriesBooks(expected=300_000, written=100_000, missing=lost))
    assert ledger.books.streams["primary"].missing == lost
    stored = ledger._fetch("SELECT books FROM series")[0][0]
    assert json.loads(stored)["missing"].endswith(", 199996, 199998, 200000-299999"), stored[-90:]


def test_books_of_older_versions_are_read(ledger):
    old = {"expected": 9, "received": 7, "written": 7, "used": 6, "missing": [3, 4]}
    ledger._connection.execute("INSERT INTO series VALUES ('primary', ?)", [json.dumps(old)])
    ledger._connection.commit()
    assert ledger.books.streams["primary"] == SeriesBooks(9, 7, 7, 6, missing=[3, 4])


def test_books_with_a_number_of_a_later_version_are_refused_by_name():
    with pytest.raises(InputError, match="unknown teleported"):
        SeriesBooks.from_dict({"expected": 1, "teleported": 1})


def test_what_was_used_is_kept_when_the_receiver_writes_its_books_again(ledger):
    ledger.set_books("flats", SeriesBooks(expected=4, written=4))
    ledger.set_used("flats", 3)
    ledger.set_books("flats", SeriesBooks(expected=8, written=8, recovered=2))
    assert ledger.books.streams["flats"] == SeriesBooks(8, 0, 8, 3, recovered=2)
    ledger.set_used("flats", 2)
    assert ledger.books.used == 2


def test_books_without_streams_are_refused():
    with pytest.raises(InputError, match="streams"):
        FrameBooks.from_dict({"expected": 4})


def test_stages_keep_their_order_their_record_and_how_they_ended(ledger):
    ledger.start_stage("centre")
    ledger.finish_stage("centre", record={"centre_px": 12.5})
    ledger.start_stage("archive")
    ledger.finish_stage("archive", "failed")
    ledger.start_stage("publish")
    centre, archive, publish = ledger.stages
    assert (centre.name, centre.state, centre.record) == ("centre", "done", {"centre_px": 12.5})
    assert (archive.state, archive.record) == ("failed", None)
    assert centre.seconds >= 0
    assert (publish.state, publish.seconds) == ("running", None)


def test_a_stage_that_is_done_again_starts_afresh(ledger):
    ledger.start_stage("centre")
    ledger.finish_stage("centre", "failed", {"a": 1})
    ledger.start_stage("centre")
    assert [(s.state, s.record, s.finished_s) for s in ledger.stages] == [("running", None, None)]


WRITER = """
import sys
from pathlib import Path
from apsber_bluesky.core import RunLedger, RunState, SeriesBooks
print("ready", flush=True)
sys.stdin.readline()
for run in range(25):
    with RunLedger(Path(sys.argv[1]) / f"{run}.sqlite", create=True) as ledger:
        ledger.set_state(RunState.ACQUIRING)
        for count in range(3):
            ledger.set_books(sys.argv[2], SeriesBooks(expected=run, written=count))
"""


def test_two_processes_create_and_write_the_same_ledgers_at_once(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, stream],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for stream in ("flats", "primary")
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        errors = [writer.communicate()[1].decode() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert errors == ["", ""]
    for run in range(25):
        with RunLedger(tmp_path / f"{run}.sqlite") as ledger:
            assert ledger.books.streams == {
                "flats": SeriesBooks(expected=run, written=2),
                "primary": SeriesBooks(expected=run, written=2),
            }


def test_another_thread_may_use_the_ledger(ledger):
    thread = threading.Thread(target=ledger.set_state, args=(RunState.FAILED, "other thread"))
    thread.start()
    thread.join()
    assert ledger.reason == "other thread"


def test_a_ledger_that_is_not_there_is_not_made_by_looking(tmp_path):
    with pytest.raises(StorageError, match="is this the folder of a run"):
        RunLedger(tmp_path / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"somebody's notes " * 100)
    with pytest.raises(StorageError, match="cannot open the run ledger"):
        RunLedger(path)
    assert path.read_bytes() == b"somebody's notes " * 100


def test_a_ledger_whose_place_is_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        RunLedger(tmp_path / "file" / "ledger.sqlite", create=True)


def test_a_ledger_that_was_damaged_while_open_says_so(ledger, tmp_path):
    ledger.set_state(RunState.PROCESSING)
    ledger._connection.execute("DROP TABLE run")
    with pytest.raises(StorageError, match=r"cannot read the run ledger .*ledger\.sqlite"):
        _ = ledger.state
    with pytest.raises(StorageError, match=r"cannot write the run ledger .*ledger\.sqlite"):
        ledger.set_state(RunState.COMPLETE)
