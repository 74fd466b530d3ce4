"""Runs on disk: names that cannot leave the data root, and finding a run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import (
    InputError,
    RunFolder,
    RunLedger,
    StorageError,
    check_folder_name,
    find_run,
    iter_runs,
)

TRAVERSALS = ["", ".", "..", "../etc", "a/b", "/etc", "a\\b", "a\0b", "a b", "-rf", ".hidden", "ü"]


@pytest.mark.parametrize("name", [*TRAVERSALS, "x" * 129, "a\n"])
def test_names_that_are_no_plain_folder_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a folder"):
        RunFolder.of(tmp_path, name, "uid")
    with pytest.raises(InputError, match="cannot name a folder"):
        RunFolder.of(tmp_path, "proposal", name)


@given(st.text())
def test_a_name_that_is_accepted_stays_below_the_data_root(name):
    try:
        check_folder_name(name, "proposal")
    except InputError:
        return
    root = Path("/data/root")
    folder = RunFolder.of(root, name, name)
    assert folder.path.parent.parent == root
    assert ".." not in folder.path.parts


def test_a_run_folder_knows_its_uid_and_proposal(tmp_path):
    folder = RunFolder.of(tmp_path, "GUP-1", "abc").create()
    assert (folder.uid, folder.proposal) == ("abc", "GUP-1")
    assert folder.create() == folder
    assert folder.path.is_dir()


def test_a_place_that_cannot_hold_runs_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="create the run folder"):
        RunFolder.of(tmp_path / "file", "p", "u").create()


def begin(root: Path, uid: str, start_time_s: float, proposal: str = "p") -> RunFolder:
    folder = RunFolder.of(root, proposal, uid).create()
    with RunLedger(folder.ledger, create=True) as ledger:
        ledger.describe({"start_time_s": start_time_s})
    return folder


def test_runs_come_in_the_order_in_which_they_began_also_after_an_old_one_was_looked_at(tmp_path):
    # Made in another order than they began in, as when an old run is copied back from tape.
    begin(tmp_path, "second", 200.0)
    begin(tmp_path, "third", 300.0, proposal="other")
    oldest = begin(tmp_path, "first", 100.0)
    for _ in range(2):
        assert [folder.uid for folder in iter_runs(tmp_path)] == ["first", "second", "third"]
        with RunLedger(oldest.ledger) as ledger:
            assert ledger.description == {"start_time_s": 100.0}
        (oldest.path / "new").write_text("")
    assert find_run(tmp_path, "latest").uid == "third"


def test_a_run_whose_ledger_is_damaged_is_still_found(tmp_path):
    begin(tmp_path, "good", 100.0)
    damaged = RunFolder.of(tmp_path, "p", "damaged").create()
    damaged.ledger.write_bytes(b"this is no SQLite file, but it is long enough to look" * 100)
    assert {folder.uid for folder in iter_runs(tmp_path)} == {"good", "damaged"}
    assert find_run(tmp_path, "damaged") == damaged


def test_a_run_is_found_by_the_beginning_of_its_uid(tmp_path):
    begin(tmp_path, "abc-1", 1.0)
    begin(tmp_path, "abd-2", 2.0)
    assert find_run(tmp_path, "abc").uid == "abc-1"
    with pytest.raises(StorageError, match=r"2 runs .* begin with 'ab'"):
        find_run(tmp_path, "ab")
    with pytest.raises(StorageError, match=r"no run 'x' .*2 runs there"):
        find_run(tmp_path, "x")


@pytest.mark.parametrize("run", ["latest", "abc"])
def test_an_empty_or_missing_data_root_has_no_runs(tmp_path, run):
    for root in (tmp_path, tmp_path / "missing"):
        assert list(iter_runs(root)) == []
        with pytest.raises(StorageError, match="0 runs there"):
            find_run(root, run)
