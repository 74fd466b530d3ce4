"""Which session works in a data root, as another command finds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from apsber_bluesky.core import StorageError
from apsber_bluesky.session import live_session
from apsber_bluesky.session._live_session import announce_session, withdraw_session
from apsber_bluesky.session._status_board import StatusBoard

VALUES = {
    "profile": "bench",
    "control_address": "tcp://127.0.0.1:9",
    "name_server": "127.0.0.1:8",
    "health_prefix": "T:",
    "status_address": "tcp://127.0.0.1:7",
}


@pytest.fixture
def own(tmp_path):
    own = tmp_path / ".apsber"
    own.mkdir()
    return own


def test_a_session_is_found_until_it_is_withdrawn(tmp_path, own):
    assert live_session(tmp_path) is None
    announce_session(own, **VALUES)
    session = live_session(tmp_path)
    assert session.pid == os.getpid()
    assert {name: getattr(session, name) for name in VALUES} == VALUES
    withdraw_session(own)
    assert live_session(tmp_path) is None
    assert list(own.iterdir()) == []
    withdraw_session(own)


ANNOUNCE = """
import json, sys
from pathlib import Path
from apsber_bluesky.session._live_session import announce_session
announce_session(Path(sys.argv[1]), **json.loads(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


def test_a_session_that_was_killed_is_not_believed_and_one_that_is_not_ours_stays(tmp_path, own):
    with subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, own, json.dumps(VALUES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        assert live_session(tmp_path).pid == process.pid
        withdraw_session(own)
        assert live_session(tmp_path).pid == process.pid
        process.kill()
    assert (own / "session.json").exists()
    assert live_session(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        # The process id is in use again, by a process that began at another time.
        {"began_s": 1.0},
        {"host": "another-computer"},
        {"pid": 2**22 + 1},
        {"pid": -1},
        {"pid": "1"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_what_is_said_of_another_process_is_not_believed(tmp_path, own, changes):
    announce_session(own, **VALUES)
    path = own / "session.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert live_session(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"1" * 100_000])
def test_a_damaged_file_is_no_session(tmp_path, own, content):
    (own / "session.json").write_bytes(content)
    assert live_session(tmp_path) is None
    announce_session(own, **VALUES)
    assert live_session(tmp_path) is not None


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write down the session"):
        announce_session(tmp_path / "file", **VALUES)


def test_the_board_knows_the_warnings_of_the_moment():
    board = StatusBoard()
    heard = []
    board.listen(heard.append)
    health = {"type": "health", "run_uid": "run-1"}
    try:
        board.post({**health, "kind": "disk", "message": "disk full soon", "active": True})
        board.post({**health, "kind": "ring", "message": "behind", "active": True})
        assert board.health_warnings == ["disk full soon", "behind"]
        board.post({**health, "kind": "disk", "message": "disk full soon", "active": False})
        board.post({**health, "kind": "backlog", "message": "never said", "active": False})
        assert board.health_warnings == ["behind"]
    finally:
        board.close()
    assert len(heard) == 4
