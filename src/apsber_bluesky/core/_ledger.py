"""The run ledger: what was expected, seen and done, in one SQLite file per run.

Receiver and worker are two processes that write to it, so it is kept in WAL mode and every change
is one short transaction.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from apsber_bluesky.core._errors import StorageError
from apsber_bluesky.core._files import explain_disk_errors
from apsber_bluesky.core._frames import FrameBooks, SeriesBooks

_BUSY_TIMEOUT_S = 30.0
_BUSY_PAUSE_S = 0.02

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    state TEXT NOT NULL, reason TEXT NOT NULL, updated_s REAL NOT NULL, description TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS series (stream TEXT PRIMARY KEY, books TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS stages (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, started_s REAL NOT NULL, finished_s REAL,
    record TEXT
);
"""


class RunState(enum.StrEnum):
    """How far a run is."""

    ACQUIRING = "acquiring"
    PROCESSING = "processing"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    ABORTED = "aborted"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the run by itself."""
        return self not in (RunState.ACQUIRING, RunState.PROCESSING)


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage of a run as the ledger has it."""

    name: str
    state: str
    started_s: float
    finished_s: float | None
    record: dict[str, Any] | None

    @property
    def seconds(self) -> float | None:
        """How long the stage took [s], None while it runs."""
        return None if self.finished_s is None else self.finished_s - self.started_s


class RunLedger:
    """The ledger of one run.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite`` in the run folder.
    create : bool
        Whether to make a new one; otherwise it must be there.

    Raises
    ------
    StorageError
        If the ledger is missing, unreadable or its place cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.is_file():
            raise StorageError(f"no ledger at {path}; is this the folder of a run?")
        self._path = path
        with explain_disk_errors(path, "open the run ledger"):
            if create:
                path.touch()
        try:
            # Callers lock; the two threads of a service may share one ledger.
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StorageError(f"cannot open the run ledger {path}: {error}") from error
        try:
            _enter_wal_mode(self._connection)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._connection.close()
            raise StorageError(f"cannot open the run ledger {path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection as connection:
                yield connection
        except sqlite3.Error as error:
            raise StorageError(f"cannot write the run ledger {self._path}: {error}") from error

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"cannot read the run ledger {self._path}: {error}") from error

    def set_state(self, state: RunState, reason: str = "") -> None:
        """Record how far the run is, and why."""
        with self._change() as connection:
            connection.execute(
                "INSERT INTO run VALUES (1, ?, ?, ?, '{}') ON CONFLICT (one) DO UPDATE"
                " SET state=excluded.state, reason=excluded.reason, updated_s=excluded.updated_s",
                (str(state), reason, time.time()),
            )

    def describe(self, description: dict[str, Any]) -> None:
        """Record what the run is (plain JSON values); its state stays as it is."""
        with self._change() as connection:
            connection.execute(
                "INSERT INTO run VALUES (1, ?, '', ?, ?) ON CONFLICT (one) DO UPDATE"
                " SET description=excluded.description",
                (str(RunState.ACQUIRING), time.time(), json.dumps(description)),
            )

    @property
    def state(self) -> RunState:
        """How far the run is."""
        rows = self._fetch("SELECT state FROM run")
        return RunState(rows[0][0]) if rows else RunState.ACQUIRING

    @property
    def reason(self) -> str:
        """Why the run is in its state."""
        rows = self._fetch("SELECT reason FROM run")
        return str(rows[0][0]) if rows else ""

    @property
    def description(self) -> dict[str, Any]:
        """What `describe` recorded."""
        rows = self._fetch("SELECT description FROM run")
        return dict(json.loads(rows[0][0])) if rows else {}

    def set_books(self, stream: str, books: SeriesBooks) -> None:
        """Record the books of a stream."""
        with self._change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO series VALUES (?, ?)", (stream, json.dumps(asdict(books)))
            )

    @property
    def books(self) -> FrameBooks:
        """The books of all streams."""
        rows = self._fetch("SELECT stream, books FROM series")
        return FrameBooks({stream: SeriesBooks(**json.loads(books)) for stream, books in rows})

    def start_stage(self, name: str) -> None:
        """Record that a stage runs."""
        with self._change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO stages VALUES (?, 'running', ?, NULL, NULL)",
                (name, time.time()),
            )

    def finish_stage(
        self, name: str, state: str = "done", record: dict[str, Any] | None = None
    ) -> None:
        """Record how a stage ended: ``done``, ``failed`` or ``cancelled``."""
        with self._change() as connection:
            connection.execute(
                "UPDATE stages SET state=?, finished_s=?, record=? WHERE name=?",
                (state, time.time(), None if record is None else json.dumps(record), name),
            )

    @property
    def stages(self) -> list[StageEntry]:
        """All stages, in the order in which they started."""
        rows = self._fetch(
            "SELECT name, state, started_s, finished_s, record FROM stages ORDER BY started_s"
        )
        return [
            StageEntry(name, state, started, finished, json.loads(record) if record else None)
            for name, state, started, finished, record in rows
        ]


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite's own timeout does not hold while another process does the same."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return


def began_s(path: Path) -> float:
    """When a run began, Unix time [s]; for a ledger that cannot say, when it was last changed.

    The times of files and folders will not do: looking at an old run touches its folder.
    """
    query = "SELECT json_extract(description, '$.start_time_s'), updated_s FROM run"
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            row = connection.execute(query).fetchone()
    except sqlite3.Error:
        row = None
    return float(row[0] or row[1]) if row else path.stat().st_mtime
