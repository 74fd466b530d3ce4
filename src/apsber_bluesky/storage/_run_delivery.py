"""One run on its way from its journal to the catalogue."""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.storage._document_journal import JournalReader

#: How often what has come of a stream is written [s]. A write takes some 60 ms however much it
#: holds, and where two processors share a core the RunEngine would feel more of them.
WRITE_PERIOD_S: Final = 1.0
_LATER: Final = 10_000
# The writer always holds the first word of frames back until the next; at 1 it would forget it.
_NOW: Final = 2


class RunDelivery:
    """Write the documents of one run to the catalogue, while they come or afterwards.

    Parameters
    ----------
    path : Path
        File of the journal.
    raw : tiled client
        Container of the runs.

    Attributes
    ----------
    uid : str
        Uid of the run; empty until its start document was read.
    is_complete : bool
        Whether the catalogue has all of it.
    """

    def __init__(self, path: Path, raw: Any) -> None:
        self.uid = ""
        self.is_complete = False
        self._path = path
        self._reader = JournalReader(path)
        self._raw = raw
        self._writer: Any = None
        self._streams: dict[str, str] = {}
        self._num_events: Counter[str] = Counter()

    def deliver(self, *, is_over: bool) -> int:
        """Write what has come.

        Parameters
        ----------
        is_over : bool
            Whether nobody writes the journal any more. A run that was not ended is then ended here,
            as aborted.

        Returns
        -------
        int
            Number of documents.
        """
        count = 0
        for name, document in self._reader.new():
            count += 1
            if name == "start":
                self._begin(document)
            if not self.is_complete:
                self._write(name, document)
        if is_over and not self.is_complete:
            if self.uid:
                self._write("stop", self._stop_document())
            self.is_complete = True
        return count

    def close(self) -> None:
        """Leave the journal."""
        self._reader.close()

    def _begin(self, start: dict[str, Any]) -> None:
        from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter

        self.uid = start["uid"]
        if self.uid in self._raw:
            if self._raw[self.uid].metadata.get("stop"):
                self.is_complete = True
                return
            # Half a run, of an attempt that was cut short. Files outside the catalogue stay.
            self._raw.delete_contents([self.uid], recursive=True, external_only=False)
        self._writer = TiledWriter(self._raw, batch_size=_LATER, normalizer=_Paced)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        if name == "descriptor":
            self._streams[document["uid"]] = document["name"]
        if name == "event":
            self._num_events[self._streams[document["descriptor"]]] += 1
        self._writer(name, document)
        self.is_complete = name == "stop"

    def _stop_document(self) -> dict[str, Any]:
        return {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "time": self._path.stat().st_mtime,
            "exit_status": "abort",
            "reason": "the session that took it ended before the run did",
            "num_events": dict(self._num_events),
        }


class _Paced:
    """What TiledWriter takes as its normalizer: it also sets the pace of writing.

    Events come by the hundred and frames by the thousand, and a client that follows the run wants
    to see them soon, but each write costs as much as any other.
    """

    def __init__(self, **options: Any) -> None:
        from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer

        self._normalizer = RunNormalizer(**options)
        self._writer: Any = None
        self._written_s: dict[str, float] = {}

    def subscribe(self, writer: Any) -> None:
        """Take the writer; TiledWriter calls it."""
        self._writer = writer
        self._normalizer.subscribe(writer)

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        """Hand a document on."""
        if name in ("event", "event_page", "stream_datum"):
            stream, now = f"{name} {document['descriptor']}", time.monotonic()
            is_due = now - self._written_s.get(stream, -math.inf) >= WRITE_PERIOD_S
            if is_due:
                self._written_s[stream] = now
            # The writer takes the size for all its life, though it reads it with each document.
            self._writer._batch_size = _NOW if is_due else _LATER  # noqa: SLF001
        self._normalizer(name, document)
