"""Documents are on disk when the RunEngine goes on, as they were emitted."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from apsber_bluesky.core import DataFileError, StorageError
from apsber_bluesky.storage import DocumentJournal, journal_root, read_documents


def files(journal):
    return sorted(journal.folder.glob("*.documents"))


def add(journal, documents):
    for name, document in documents:
        journal.add({"type": "document", "name": name, "document": document})


def test_documents_come_back_as_they_were(tmp_path):
    start = {"uid": "a", "time": 12.5, "scan_id": 3, "raw": b"\0\1", "big": 2**63, "no": None}
    documents = [
        ("start", start),
        ("descriptor", {"uid": "d", "run_start": "a", "name": "primary"}),
        ("event", {"uid": "e", "descriptor": "d", "data": {"x": math.inf, "y": [1, 2.5]}}),
        ("resource", {"uid": "r", "run_start": "a"}),
        ("datum", {"datum_id": "r/0", "resource": "r"}),
        ("stream_resource", {"uid": "s", "run_start": "a"}),
        ("stream_datum", {"uid": "t", "descriptor": "d", "stream_resource": "s"}),
        ("stop", {"uid": "z", "run_start": "a"}),
    ]
    with DocumentJournal(tmp_path) as journal:
        add(journal, documents)
        (path,) = files(journal)
        assert read_documents(path) == documents


def test_runs_that_overlap_have_a_file_each_and_sort_by_their_beginning(tmp_path):
    with DocumentJournal(tmp_path) as journal:
        add(
            journal,
            [
                ("start", {"uid": "later", "time": 1e9 + 0.5}),
                ("start", {"uid": "earlier", "time": 9e8}),
                ("descriptor", {"uid": "d1", "run_start": "later"}),
                ("descriptor", {"uid": "d2", "run_start": "earlier"}),
                ("event", {"uid": "e2", "descriptor": "d2"}),
                ("stop", {"uid": "s2", "run_start": "earlier"}),
                ("event", {"uid": "e1", "descriptor": "d1"}),
                # Of a run that is over.
                ("event", {"uid": "e3", "descriptor": "d2"}),
            ],
        )
        kept = [[d["uid"] for _, d in read_documents(path)] for path in files(journal)]
    assert kept == [["earlier", "d2", "e2", "s2"], ["later", "d1", "e1"]]


def test_what_was_added_outlives_kill_9(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from apsber_bluesky.storage import DocumentJournal\n"
        "journal = DocumentJournal(Path(sys.argv[1]))\n"
        "start = {'uid': 'a', 'time': 1.0}\n"
        "journal.add({'name': 'start', 'document': start})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    (path,) = tmp_path.glob("*/*.documents")
    assert read_documents(path) == [("start", {"uid": "a", "time": 1.0})]


def test_a_full_disk_does_not_stop_the_scan_and_nothing_is_lost(full_disk):
    printed = full_disk("""
        from apsber_bluesky.storage import DocumentJournal, read_documents
        warnings = []
        journal = DocumentJournal(root / "documents", lambda *warning: warnings.append(warning))
        journal.add({"name": "start", "document": {"uid": "a", "time": 1.0}})
        ballast = root / "ballast"
        try:
            ballast.write_bytes(bytes(4 << 20))
        except OSError:
            pass
        for n in range(20):
            document = {"uid": str(n), "run_start": "a", "pad": "x" * 50_000}
            journal.add({"name": "descriptor", "document": document})
        ballast.unlink()
        journal.add({"name": "stop", "document": {"uid": "z", "run_start": "a"}})
        (path,) = journal.folder.glob("*.documents")
        print([d["uid"] for _, d in read_documents(path)], warnings)
    """)
    expected = ["a", *map(str, range(20)), "z"]
    assert printed.startswith(str(expected))
    assert printed.count("cannot keep documents") == 1
    assert "No space left" in printed


def test_a_record_that_is_not_whole_is_left_out(tmp_path):
    with DocumentJournal(tmp_path) as journal:
        add(
            journal,
            [("start", {"uid": "a", "time": 1.0}), ("stop", {"uid": "z", "run_start": "a"})],
        )
        (path,) = files(journal)
    path.write_bytes(path.read_bytes()[:-3])
    assert [name for name, _ in read_documents(path)] == ["start"]


@pytest.mark.parametrize("damage", [b"\x00", b"\xc1", b"\x92\x01\x02", b"\xa1\xff"])
def test_a_damaged_journal_is_named(tmp_path, damage):
    path = tmp_path / "x.documents"
    path.write_bytes(damage * 40)
    with pytest.raises(DataFileError, match=r"x\.documents"):
        read_documents(path)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot keep documents"):
        DocumentJournal(tmp_path / "file" / "documents")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("", "embedded"),
        ("http://tiled.example.org:8000/api/v1?api_key=secret", "tiled.example.org_8000_api_v1"),
        ("https://[::1]:8000", "1_8000"),
        ("http://host/../../x", "host_.._.._x"),
    ],
)
def test_each_catalogue_has_a_folder_whose_name_keeps_its_key_secret(tmp_path, uri, name):
    assert journal_root(tmp_path, uri) == tmp_path / "documents" / name
