"""Bring what a journal keeps to the catalogue: in order, once, and whole."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import ApsberError
from apsber_bluesky.storage._catalog_client import connect_catalog, is_unreachable
from apsber_bluesky.storage._document_journal import (
    DOCUMENTS_SUFFIX,
    PUBLICATION_SUFFIX,
    JournalReader,
    take_lock,
    take_session_lock,
)
from apsber_bluesky.storage._embedded_tiled import RAW_CONTAINER, prepare_catalog
from apsber_bluesky.storage._publication import Publication
from apsber_bluesky.storage._run_delivery import RunDelivery

logger = logging.getLogger(__name__)

_DELIVERY_LOCK: Final = "delivery.lock"
_MOST_ATTEMPTS: Final = 3
_LOOK_AGAIN_S: Final = 5.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0

Tell = Callable[[dict[str, Any]], None]


@dataclass
class _Refused:
    """How often the catalogue refused a file, and when it is tried again."""

    attempts: int = 0
    again_s: float = 0.0

    def note(self) -> None:
        """One more refusal."""
        self.attempts += 1
        self.again_s = time.monotonic() + _FIRST_PAUSE_S * self.attempts

    @property
    def rests(self) -> bool:
        """Whether it is left alone for now."""
        return self.attempts >= _MOST_ATTEMPTS or time.monotonic() < self.again_s


class _Kept:
    """A run that waits on disk: look for its end, which somebody may be waiting for."""

    def __init__(self, path: Path) -> None:
        self.uid = ""
        self.has_ended = False
        self._reader = JournalReader(path)

    def look(self) -> bool:
        """Whether its last document has come just now."""
        if self.has_ended:
            return False
        for name, document in self._reader.new():
            self.uid = document["uid"] if name == "start" else self.uid
            self.has_ended = name == "stop"
        if self.has_ended:
            self._reader.close()
        return self.has_ended

    def close(self) -> None:
        self._reader.close()


@dataclass
class _Folder:
    """One session's folder."""

    path: Path
    is_own: bool
    locks: list[int] = field(default_factory=list)

    def entries(self) -> list[Path]:
        """What waits in it, in the order of the runs."""
        kinds = (DOCUMENTS_SUFFIX, PUBLICATION_SUFFIX)
        return sorted(p for p in self.path.iterdir() if p.suffix in kinds)

    def release(self) -> None:
        """Let go of it."""
        while self.locks:
            os.close(self.locks.pop())


class DocumentDelivery:
    """Bring documents and publications to a catalogue, those of earlier sessions first.

    A run that the catalogue has only a part of, because it went away or this process was killed, is
    removed there and written again from its journal; a run that it has is not touched. While the
    server does not answer, what comes is left on disk, and delivered when it answers again. A run
    that it refuses three times is left on disk until the next start, so that it does not keep the
    others.

    Parameters
    ----------
    uri : str
        Address of the Tiled server; the key may be in it.
    own : Path
        Folder of this session's `DocumentJournal`. The folders beside it are those of others.
    tell : callable
        Takes messages ``{"type": "catalogued", "run_uid": ...}`` when a run is in the catalogue, or
        kept for later, and ``{"type": "warning", "stage": "catalogue", ...}`` when it is kept.
    """

    def __init__(self, uri: str, own: Path, tell: Tell) -> None:
        self._uri = uri
        self._tell = tell
        self._own = _Folder(own, is_own=True)
        self._client: Any = None
        self._runs: dict[Path, RunDelivery] = {}
        self._refused: dict[Path, _Refused] = {}
        self._kept: dict[Path, _Kept] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._not_before_s = 0.0
        self._reason = ""
        self._others: list[_Folder] = []
        self._looked_s = -_LOOK_AGAIN_S

    @property
    def is_waiting(self) -> bool:
        """Whether the server does not answer, and delivery pauses."""
        return time.monotonic() < self._not_before_s

    def turn(self) -> bool:
        """Deliver what is there.

        Returns
        -------
        bool
            Whether there was anything to deliver and the catalogue took it.
        """
        if not self._own.locks:
            self._hold(self._own)
        busy = False
        for folder in [] if self.is_waiting else [*self._left_behind(), self._own]:
            for entry in folder.entries():
                if not self._refused.get(entry, _NEVER).rests:
                    busy = self._deliver(entry, folder) or busy
                # In order: nothing overtakes what cannot be delivered now.
                if self.is_waiting:
                    break
            self._clear(folder)
        self._tell_what_is_kept()
        return busy

    def close(self) -> None:
        """Stop; what was not delivered stays where it is."""
        for run in self._runs.values():
            run.close()
        for kept in self._kept.values():
            kept.close()
        for folder in [*self._others, self._own]:
            folder.release()
        self._disconnect()

    def _hold(self, folder: _Folder) -> bool:
        """Be the one who delivers what is in a folder."""
        lock = take_lock(folder.path / _DELIVERY_LOCK)
        if lock is not None:
            folder.locks.append(lock)
        return lock is not None

    def _left_behind(self) -> list[_Folder]:
        """Folders of sessions that have ended."""
        if time.monotonic() - self._looked_s < _LOOK_AGAIN_S:
            return list(self._others)
        self._looked_s = time.monotonic()
        mine = {self._own.path, *(folder.path for folder in self._others)}
        for path in set(self._own.path.parent.iterdir()) - mine:
            if not path.is_dir() or (lock := take_session_lock(path)) is None:
                continue
            folder = _Folder(path, is_own=False, locks=[lock])
            if self._hold(folder):
                self._others.append(folder)
            else:
                folder.release()
        self._others.sort(key=lambda folder: [path.name for path in folder.entries()][:1])
        return list(self._others)

    def _clear(self, folder: _Folder) -> None:
        """Remove the folder of a session that has ended when all of it is delivered."""
        if folder.is_own or folder.entries():
            return
        for path in folder.path.iterdir():
            path.unlink()
        folder.path.rmdir()
        folder.release()
        self._others.remove(folder)

    def _deliver(self, entry: Path, folder: _Folder) -> bool:
        """Deliver what is new of one file; whether there was something."""
        try:
            if entry.suffix == DOCUMENTS_SUFFIX:
                return self._deliver_documents(entry, folder)
            Publication.read(entry).publish(self._root())
            entry.unlink()
        except Exception as error:
            # Whatever the writer stumbles over, the documents stay and others go on.
            if is_unreachable(error):
                logger.warning("%s was not delivered: %s", entry.name, error)
            else:
                logger.exception("%s was not delivered", entry.name)
            self._failed(entry, error)
            return False
        logger.info("published %s", entry.name)
        return True

    def _deliver_documents(self, entry: Path, folder: _Folder) -> bool:
        run = self._runs.get(entry)
        if run is None:
            run = self._runs[entry] = RunDelivery(entry, self._root()[RAW_CONTAINER])
        count = run.deliver(is_over=not folder.is_own)
        if run.is_complete:
            run.close()
            del self._runs[entry]
            entry.unlink()
            if kept := self._kept.pop(entry, None):
                kept.close()
                logger.info("run %s is delivered", run.uid)
            self._tell({"type": "catalogued", "run_uid": run.uid})
        return count > 0

    def _root(self) -> Any:
        if self._client is None:
            prepare_catalog(self._uri)
            self._client = connect_catalog(self._uri)
        self._pause_s = _FIRST_PAUSE_S
        return self._client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.context.close()
            self._client = None

    def _failed(self, entry: Path, error: Exception) -> None:
        run = self._runs.pop(entry, None)
        if run is not None:
            run.close()
        reason = f"{type(error).__name__}: {error}"
        if self._answers():
            refused = self._refused.setdefault(entry, _Refused())
            refused.note()
            if refused.attempts == _MOST_ATTEMPTS:
                self._keep(entry, f"the catalogue refuses it, {reason}")
            return
        self._reason = reason
        # Other runs that were being written have lost their place, too.
        for other in self._runs.values():
            other.close()
        self._runs.clear()
        self._disconnect()
        self._not_before_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _answers(self) -> bool:
        """Whether the server is there and lets us in."""
        try:
            client = connect_catalog(self._uri)
        except ApsberError:
            return False
        client.context.close()
        return True

    def _tell_what_is_kept(self) -> None:
        """Nobody must wait for a run that waits itself."""
        if self.is_waiting:
            for entry in self._own.entries():
                self._keep(entry, f"the catalogue does not answer, {self._reason}")
        for kept in self._kept.values():
            if kept.look():
                self._tell({"type": "catalogued", "run_uid": kept.uid})

    def _keep(self, entry: Path, reason: str) -> None:
        if entry in self._kept or entry.suffix != DOCUMENTS_SUFFIX:
            return
        kept = self._kept[entry] = _Kept(entry)
        has_ended = kept.look()
        message = f"the documents are kept in {entry} and delivered later: {reason}"
        self._tell(
            {"type": "warning", "run_uid": kept.uid, "stage": "catalogue", "message": message}
        )
        if has_ended:
            self._tell({"type": "catalogued", "run_uid": kept.uid})


_NEVER: Final = _Refused()
