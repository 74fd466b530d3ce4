"""The second copy is whole, proven by reading it back, and honest about what went wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from apsber_bluesky.core import RunCancelled, StorageError, file_checksum
from apsber_bluesky.storage import MANIFEST_NAME, Receipt, VolumeWriter, archive_run, verify_copy


@pytest.fixture
def stored(make_run, volume_values):
    """A run with a volume, figures, a ledger and an old receipt."""
    stored = make_run()
    folder = stored.folder
    with VolumeWriter(folder.volume, volume_values.shape) as writer:
        writer.write(0, volume_values)
    folder.figures.mkdir()
    (folder.figures / "slices.png").write_bytes(b"\x89PNG" + os.urandom(5000))
    (folder.figures / "empty.png").touch()
    folder.ledger.write_bytes(b"live")
    (folder.path / "ledger.sqlite-wal").write_bytes(b"live")
    (folder.path / "run.nxs.partial").write_bytes(b"half")
    folder.receipts.mkdir()
    (folder.receipts / "other.json").write_text("{}")
    return stored


def _files(place: Path) -> set[str]:
    return {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}


def test_the_copy_holds_every_file_but_ledger_receipts_and_partials(stored, tmp_path):
    receipt = archive_run(stored.folder, tmp_path / "archive")
    target = Path(receipt.target)
    assert target == (tmp_path / "archive" / "proposal-1" / stored.folder.uid).resolve()
    listed = {entry.path for entry in receipt.files}
    left_out = {"ledger.sqlite", "ledger.sqlite-wal", "run.nxs.partial", "receipts/other.json"}
    assert listed == _files(stored.folder.path) - left_out - {"receipts/archive.json"}
    assert _files(target) == listed | {MANIFEST_NAME, "receipts/archive.json"}
    for entry in receipt.files:
        source = stored.folder.path / entry.path
        assert (target / entry.path).read_bytes() == source.read_bytes()
        assert f"sha256:{entry.sha256}" == file_checksum(source)
        assert entry.size == source.stat().st_size
    assert receipt.num_files == len(listed)
    assert receipt.total_bytes == sum(entry.size for entry in receipt.files)
    assert receipt.started <= receipt.finished
    assert verify_copy(receipt) == []


def test_receipt_lies_in_both_folders_and_reads_back(stored, tmp_path):
    receipt = archive_run(stored.folder, tmp_path / "archive")
    assert Receipt.read(stored.folder.path) == receipt
    assert Receipt.read(Path(receipt.target) / "receipts" / "archive.json") == receipt
    assert (receipt.run_uid, receipt.proposal) == (stored.folder.uid, "proposal-1")


def test_manifest_is_for_sha256sum(stored, tmp_path):
    receipt = archive_run(stored.folder, tmp_path / "archive")
    check = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST_NAME]
    subprocess.run(check, cwd=receipt.target, check=True, timeout=30)


def test_progress_counts_copying_and_reading_back(stored, tmp_path):
    calls = []
    receipt = archive_run(stored.folder, tmp_path / "a", progress=lambda *call: calls.append(call))
    done = [count for _, count, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == ("archive", 2 * receipt.total_bytes, 2 * receipt.total_bytes)


def test_repeating_verifies_instead_of_copying(stored, tmp_path):
    first = archive_run(stored.folder, tmp_path / "archive")
    target = Path(first.target)
    before = {name: (target / name).stat().st_ino for name in _files(target)}
    second = archive_run(stored.folder, tmp_path / "archive")
    assert second.files == first.files
    assert all((target / e.path).stat().st_ino == before[e.path] for e in second.files)


def test_repeating_mends_a_damaged_copy(stored, tmp_path):
    first = archive_run(stored.folder, tmp_path / "archive")
    raw = Path(first.target) / "raw.h5"
    damaged = bytearray(raw.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    raw.write_bytes(damaged)
    (Path(first.target) / "figures" / "slices.png").unlink()
    assert len(verify_copy(first)) == 2
    assert archive_run(stored.folder, tmp_path / "archive").files == first.files
    assert verify_copy(first) == []


def test_what_the_run_folder_has_lost_stays_in_the_archive(stored, tmp_path):
    first = archive_run(stored.folder, tmp_path / "archive")
    stored.folder.raw.unlink()
    second = archive_run(stored.folder, tmp_path / "archive")
    assert second.files == first.files
    (Path(first.target) / "raw.h5").unlink()
    with pytest.raises(StorageError, match=r"no longer holds .*raw.h5 is missing"):
        archive_run(stored.folder, tmp_path / "archive")


def test_verification_names_each_problem(stored, tmp_path):
    receipt = archive_run(stored.folder, tmp_path / "archive")
    moved = tmp_path / "tape"
    shutil.move(receipt.target, moved)
    assert verify_copy(moved) == []
    (moved / "figures" / "slices.png").write_bytes(b"short")
    (moved / "figures" / "empty.png").unlink()
    raw = bytearray((moved / "raw.h5").read_bytes())
    raw[-1] ^= 1
    (moved / "raw.h5").write_bytes(raw)
    problems = sorted(verify_copy(moved / "receipts" / "archive.json"))
    assert [p.partition(" ")[2][:9] for p in problems] == ["is missin", "has 5 byt", "has sha25"]
    assert all("is missing" in problem for problem in verify_copy(stored.folder.path))
    with pytest.raises(StorageError, match="no receipt"):
        verify_copy(tmp_path)


@pytest.mark.parametrize("damage", ["", "{}", '{"run_uid": 1', "\x00"])
def test_a_damaged_receipt_is_refused(tmp_path, damage):
    (tmp_path / "archive.json").write_text(damage)
    with pytest.raises(StorageError, match="cannot read the receipt"):
        Receipt.read(tmp_path / "archive.json")


@pytest.mark.parametrize("stop_after", [1, 2, 3, 8])
def test_cancelling_leaves_no_partial_file_and_can_be_taken_up(stored, tmp_path, stop_after):
    stop, calls = threading.Event(), []

    def progress(*call):
        calls.append(call)
        if len(calls) == stop_after:
            stop.set()

    with pytest.raises(RunCancelled, match="cancelled"):
        archive_run(stored.folder, tmp_path / "a", progress=progress, cancelled=stop)
    target = tmp_path / "a" / "proposal-1" / stored.folder.uid
    assert len(calls) == stop_after
    for name in _files(target):
        assert (target / name).read_bytes() == (stored.folder.path / name).read_bytes()
    assert not (stored.folder.receipts / "archive.json").exists()
    assert verify_copy(archive_run(stored.folder, tmp_path / "a")) == []


def _at_first_call(action):
    done = []

    def progress(*_):
        if not done:
            done.append(True)
            action()

    return progress


def test_a_file_that_changes_while_it_is_copied_is_refused(stored, tmp_path):
    (stored.folder.path / "aaa").write_bytes(b"first in the list")
    change = _at_first_call(lambda: (stored.folder.path / "aaa").write_bytes(b"other"))
    with pytest.raises(StorageError, match="aaa changed while it was copied"):
        archive_run(stored.folder, tmp_path / "a", progress=change)
    assert _files(tmp_path / "a") == set()


@pytest.mark.parametrize("kind", ["new", "earlier"])
def test_a_folder_that_changes_while_it_is_copied_is_refused(stored, tmp_path, kind):
    victim = stored.folder.path / ("zzz" if kind == "new" else "raw.h5")
    calls = []

    def progress(_, done, total):
        calls.append(done)
        if done == total:
            victim.write_bytes(b"late")

    with pytest.raises(StorageError, match=f"{victim.name} .*changed while the run was archived"):
        archive_run(stored.folder, tmp_path / "a", progress=progress)
    assert not (stored.folder.receipts / "archive.json").exists()


def test_a_disk_that_does_not_keep_what_is_written_is_found(stored, tmp_path):
    (stored.folder.path / "aaa").write_bytes(b"first in the list")

    def rot():
        (partial,) = (tmp_path / "a").rglob("aaa.partial")
        with partial.open("r+b") as file:
            file.write(b"F")

    with pytest.raises(StorageError, match="reads back as"):
        archive_run(stored.folder, tmp_path / "a", progress=_at_first_call(rot))
    assert _files(tmp_path / "a") == set()


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota")]
)
def test_a_full_archive_is_explained_and_leaves_no_half_file(
    stored, tmp_path, monkeypatch, code, advice
):
    def full(descriptor):  # where network file systems report that there was no room
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=advice):
        archive_run(stored.folder, tmp_path / "a")
    assert _files(tmp_path / "a") == set()


def test_an_unwritable_archive_is_explained(stored, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cannot archive the run at .*part of the path is a file"
    ):
        archive_run(stored.folder, tmp_path / "file")


def test_archive_and_run_must_not_contain_each_other(stored, tmp_path):
    with pytest.raises(StorageError, match="inside each other"):
        archive_run(stored.folder, stored.folder.path / "archive")
    with pytest.raises(StorageError, match="inside each other"):
        archive_run(stored.folder, tmp_path / "data")
    (tmp_path / "link").symlink_to(stored.folder.path)
    with pytest.raises(StorageError, match="inside each other"):
        archive_run(stored.folder, tmp_path / "link")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_are_refused_rather_than_lost(stored, tmp_path, what):
    aim = stored.folder.raw if what == "file" else stored.folder.figures
    (stored.folder.path / "link").symlink_to(aim)
    with pytest.raises(StorageError, match="is a link"):
        archive_run(stored.folder, tmp_path / "a")


def test_a_run_that_is_not_there_is_refused(stored, tmp_path):
    shutil.rmtree(stored.folder.path)
    with pytest.raises(StorageError, match="no run folder"):
        archive_run(stored.folder, tmp_path / "a")
