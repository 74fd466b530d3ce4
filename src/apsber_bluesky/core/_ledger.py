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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core._books import FrameBooks, FrameState, SeriesBooks
from apsber_bluesky.core._errors import InputError, StorageError
from apsber_bluesky.core._files import explain_disk_errors
from apsber_bluesky.core._number_ranges import MAXIMUM_FRAMES

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
CREATE TABLE IF NOT EXISTS frames (
    stream TEXT, page INTEGER, states BLOB NOT NULL, PRIMARY KEY (stream, page)
) WITHOUT ROWID;
"""
# Frames in one row of `frames`, a byte each: a chunk that was used changes one small row, and a
# stream of a million frames has few.
_PAGE_FRAMES = 4096


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
    read_only : bool
        Whether only to look: nothing in the run folder is touched, which may be read-only.

    Raises
    ------
    StorageError
        If the ledger is missing, unreadable or its place cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        if not create and not path.is_file():
            raise StorageError(f"no ledger at {path}; is this the folder of a run?")
        self._path = path
        with explain_disk_errors(path, "open the run ledger"):
            if create:
                path.touch()
        try:
            # Callers lock; the two threads of a service may share one ledger.
            self._connection = sqlite3.connect(
                _look_only(path) if read_only else path,
                timeout=_BUSY_TIMEOUT_S,
                check_same_thread=False,
                uri=read_only,
            )
        except sqlite3.Error as error:
            raise StorageError(f"cannot open the run ledger {path}: {error}") from error
        if read_only:
            return
        try:
            _enter_wal_mode(self._connection)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
            self._connection.create_function("add_states", 2, _add_states, deterministic=True)
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

    def _fetch(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
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
        """Record the books of a stream.

        Receiver and worker both write them and only the worker knows what was used, so that
        number never becomes less here; see `set_used`.
        """
        with self._change() as connection:
            connection.execute(
                "INSERT INTO series VALUES (?1, ?2) ON CONFLICT (stream) DO UPDATE SET books="
                "json_set(excluded.books, '$.used', max(coalesce(json_extract(books, '$.used'), 0),"
                " json_extract(excluded.books, '$.used')))",
                (stream, json.dumps(books.to_dict())),
            )

    def set_used(self, stream: str, used: int) -> None:
        """Record how many frames of a stream were used; its other numbers stay as they are."""
        with self._change() as connection:
            connection.execute(
                "UPDATE series SET books=json_set(books, '$.used', ?) WHERE stream=?",
                (used, stream),
            )

    @property
    def books(self) -> FrameBooks:
        """The books of all streams."""
        rows = self._fetch("SELECT stream, books FROM series")
        return FrameBooks({name: SeriesBooks.from_dict(json.loads(own)) for name, own in rows})

    def mark_frames(self, stream: str, state: FrameState, frames: range | Iterable[int]) -> None:
        """Add a state to frames; those that they have stay.

        Any process may mark any frame at any time: states are added in the database itself, all
        frames of a call in one transaction.

        Parameters
        ----------
        stream : str
            Bluesky stream.
        state : FrameState
            One state or several.
        frames : range or iterable of int
            Indices in the stream.

        Raises
        ------
        InputError
            If an index is negative or beyond `MAXIMUM_FRAMES`.
        StorageError
            If the ledger cannot be written.
        """
        pages = list(_pages(stream, state, frames))
        with self._change() as connection:
            connection.executemany(
                "INSERT INTO frames VALUES (?, ?, ?) ON CONFLICT (stream, page) DO UPDATE"
                " SET states=add_states(states, excluded.states)",
                pages,
            )

    def frame_states(self, stream: str, frames: range | None = None) -> NDArray[np.uint8]:
        """What has happened to each frame of a stream.

        Parameters
        ----------
        stream : str
            Bluesky stream.
        frames : range, optional
            Indices in the stream, in steps of 1; without it all, up to the last frame that is
            expected or marked.

        Returns
        -------
        ndarray of uint8, shape (n,)
            Sum of the `FrameState` of each frame, 0 for one that nobody has marked. Runs of older
            versions have only zeros.
        """
        first, last = (0, MAXIMUM_FRAMES) if frames is None else (frames.start, frames.stop)
        rows = self._fetch(
            "SELECT page, states FROM frames WHERE stream=? AND page BETWEEN ? AND ? ORDER BY page",
            (stream, first // _PAGE_FRAMES, last // _PAGE_FRAMES),
        )
        if frames is None:
            expected = self.books.streams.get(stream, SeriesBooks()).expected
            last = max([expected, *(page * _PAGE_FRAMES + len(own) for page, own in rows[-1:])])
        begin = first // _PAGE_FRAMES * _PAGE_FRAMES
        states = np.zeros((last // _PAGE_FRAMES + 1) * _PAGE_FRAMES - begin, np.uint8)
        for page, marked in rows:
            place = page * _PAGE_FRAMES - begin
            states[place : place + len(marked)] = np.frombuffer(marked, np.uint8)
        return states[first - begin : last - begin]

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


def _pages(
    stream: str, state: FrameState, frames: range | Iterable[int]
) -> Iterator[tuple[str, int, bytes]]:
    """Rows of the table `frames` that mark these frames; a row ends with its last marked frame."""
    numbers = np.fromiter(frames, np.int64)
    if not len(numbers):
        return
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest >= MAXIMUM_FRAMES:
        raise InputError(
            f"frame {lowest if lowest < 0 else highest} of stream {stream!r} cannot be marked;"
            f" frames count from 0 to {MAXIMUM_FRAMES - 1}"
        )
    numbers.sort()
    page_of = numbers // _PAGE_FRAMES
    for own in np.split(numbers, np.flatnonzero(np.diff(page_of)) + 1):
        page, places = int(own[0] // _PAGE_FRAMES), own % _PAGE_FRAMES
        marked = np.zeros(int(places[-1]) + 1, np.uint8)
        marked[places] = int(state)
        yield stream, page, marked.tobytes()


def _add_states(old: bytes, new: bytes) -> bytes:
    size = max(len(old), len(new))
    both = int.from_bytes(old, "little") | int.from_bytes(new, "little")
    return both.to_bytes(size, "little")


def _look_only(path: Path) -> str:
    """URI of a ledger that is not to be changed.

    SQLite would put two files beside a ledger that nobody has open, even to read it.
    """
    is_open = path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?{'mode=ro' if is_open else 'immutable=1'}"


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
        with contextlib.closing(sqlite3.connect(_look_only(path), uri=True)) as connection:
            row = connection.execute(query).fetchone()
    except sqlite3.Error:
        row = None
    return float(row[0] or row[1]) if row else path.stat().st_mtime
