"""The catalogue process serves documents that lie on disk, whether or not its server is there."""

from __future__ import annotations

import socket
import time

import pytest

from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.storage import DocumentJournal, read_documents

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def nobody():
    """An address at which nobody answers, and nobody else comes to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_is_away_neither_stops_the_start_nor_holds_up_who_waits(tmp_path, nobody):
    board = StatusBoard()
    journal = DocumentJournal(tmp_path / "documents")
    service = ServiceProcess(
        "catalog", ["apsber_bluesky.session", "catalog"], tmp_path / "catalog.log"
    )
    try:
        service.configure(
            {
                "uri": nobody,
                "directory": "",
                "readable": [],
                "documents": str(journal.folder),
                "status_address": board.address,
                "api_key": "",
                "port": 0,
                "during_scans": False,
            }
        )
        service.wait_ready(90)
        start, stop = {"uid": "a", "time": 5.0}, {"uid": "z", "run_start": "a", "time": 6.0}
        journal.add({"name": "start", "document": start})
        journal.add({"name": "stop", "document": stop})
        board.post({"type": "finished", "run_uid": "a"})
        summary = board.wait_finished("a", 60, service.check, catalogued=True)
        (warning,) = summary["warnings"]
        assert warning.startswith("catalogue: the documents are kept in ")
        assert "does not answer" in warning
        journal.close()
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 8
        assert not service.is_running
        (path,) = journal.folder.glob("*.documents")
        assert read_documents(path) == [("start", start), ("stop", stop)]
    finally:
        service.stop()
        journal.close()
        board.close()
