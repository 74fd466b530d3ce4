"""Documents of runs, kept on disk until the catalogue has them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgpack

from apsber_bluesky.core import DataFileError, explain_disk_errors

logger = logging.getLogger(__name__)

DOCUMENTS_SUFFIX: Final = ".documents"
PUBLICATION_SUFFIX: Final = ".publication"
_SESSION_LOCK: Final = "session.lock"
_MAXIMUM_BYTES: Final = 1 << 30

Warn = Callable[[str, str], None]


def journal_root(own: Path, catalog_uri: str) -> Path:
    """The folder of all documents that wait for one catalogue.

    Parameters
    ----------
    own : Path
        The session's corner of the data root.
    catalog_uri : str
        Address of the Tiled server, without its key; empty for the embedded one.
    """
    address = catalog_uri.split("?")[0].partition("://")[2] or "embedded"
    return own / "documents" / re.sub(r"[^A-Za-z0-9.-]+", "_", address).strip("_.")


def entry_name(start_time_s: float, run_uid: str, suffix: str) -> str:
    """Name of a file, such that the files of a folder sort as the runs were taken."""
    return f"{start_time_s:017.6f}-{run_uid}{suffix}"


def take_lock(path: Path) -> int | None:
    """Hold a lock until the descriptor is closed or this process ends; None if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def take_session_lock(folder: Path) -> int | None:
    """Hold the folder of a session that has ended; None if the session lives."""
    return take_lock(folder / _SESSION_LOCK)


class DocumentJournal:
    """Append every document to a file of its run.

    Writing goes to the page cache and takes some ten microseconds, so it may be done by a callback
    of the RunEngine. Whatever becomes of this process and of the catalogue, the documents are
    there: `DocumentDelivery` brings them to the catalogue, at once or later. What the disk does
    not take is held in memory, tried again with the next document, and never stops the scan.

    Parameters
    ----------
    root : Path
        Folder of the catalogue's documents (see `journal_root`); the journal makes a folder of
        its own in it.
    warn : callable
        Called with run uid and message when the disk refuses.

    Attributes
    ----------
    folder : Path
        The journal's own folder.

    Raises
    ------
    StorageError
        If the folder cannot be made.
    """

    def __init__(self, root: Path, warn: Warn = lambda _uid, _message: None) -> None:
        self.folder = root / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._warn = warn
        self._runs: dict[str, _RunFile] = {}
        self._run_of: dict[str, str] = {}
        with explain_disk_errors(self.folder, "keep documents"):
            self.folder.mkdir(mode=0o700, parents=True)
            self._lock = take_session_lock(self.folder)

    def add(self, message: Mapping[str, Any]) -> None:
        """Keep one document.

        Parameters
        ----------
        message : mapping
            ``name`` and ``document``, plain values.
        """
        name, document = message["name"], message["document"]
        uid = self._find_run(name, document)
        if uid is None:
            logger.warning("a %s document belongs to no open run and is not kept", name)
            return
        if name == "start":
            path = self.folder / entry_name(document["time"], uid, DOCUMENTS_SUFFIX)
            self._runs[uid] = _RunFile(path)
        run = self._runs[uid]
        run.waiting += msgpack.packb([name, document])
        self._write(uid, run)
        if name == "stop":
            self._run_of = {key: of for key, of in self._run_of.items() if of != uid}
            run.ended = True
        for other in [key for key, file in self._runs.items() if file.ended]:
            self._finish(other)

    def _find_run(self, name: str, document: Mapping[str, Any]) -> str | None:
        if name == "start":
            return str(document["uid"])
        uid = document.get("run_start")
        for key in ("descriptor", "resource"):
            uid = uid or self._run_of.get(document.get(key, ""))
        if uid not in self._runs:
            return None
        if name in ("descriptor", "resource"):
            self._run_of[document["uid"]] = str(uid)
        return str(uid)

    def _write(self, uid: str, run: _RunFile) -> None:
        try:
            run.write()
        except OSError as error:
            if not run.warned:
                run.warned = True
                message = f"cannot keep documents in {run.path}: {error.strerror}; still trying"
                logger.warning("%s", message)
                self._warn(uid, message)

    def _finish(self, uid: str) -> None:
        run = self._runs[uid]
        if run.waiting:
            self._write(uid, run)
        if not run.waiting:
            run.close()
            del self._runs[uid]

    def close(self) -> None:
        """Leave the folder to whoever delivers it."""
        for uid, run in self._runs.items():
            if run.waiting:
                self._write(uid, run)
            run.close()
        self._runs.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _RunFile:
    """The file of one run, and what the disk did not take yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = bytearray()
        self.ended = False
        self.warned = False
        self._descriptor: int | None = None

    def write(self) -> None:
        """Write what waits; a part that was written is not written again."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
        while self.waiting:
            del self.waiting[: os.write(self._descriptor, self.waiting)]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class JournalReader:
    """Read the documents of a run while they are being written.

    Parameters
    ----------
    path : Path
        A file of a `DocumentJournal`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._unpacker = msgpack.Unpacker(max_buffer_size=_MAXIMUM_BYTES)

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The documents that have come since.

        Yields
        ------
        str, dict
            Name and document. One that is only partly there is left for the next time.

        Raises
        ------
        DataFileError
            If the file holds something else.
        """
        while block := self._file.read(1 << 20):
            self._unpacker.feed(block)
            try:
                for record in self._unpacker:
                    yield self._checked(record)
            except (ValueError, msgpack.exceptions.UnpackException) as error:
                raise DataFileError(f"{self.path} is no journal of documents: {error}") from error

    def _checked(self, record: Any) -> tuple[str, dict[str, Any]]:
        match record:
            case [str(name), dict(document)]:
                return name, document
            case _:
                raise DataFileError(f"{self.path} is damaged: a record is not name and document")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_documents(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file of a journal, e.g. to take it to another catalogue by hand.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of (str, dict)
        Names and documents, as the RunEngine emitted them.

    Raises
    ------
    DataFileError
        If it is no journal.
    """
    reader = JournalReader(path)
    try:
        return list(reader.new())
    finally:
        reader.close()
