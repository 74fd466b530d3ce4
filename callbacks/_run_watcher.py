"""How a run proceeds, for progress displays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from event_model import DocumentRouter


class RunWatcher(DocumentRouter):
    """Tell a display that runs open, take data and close.

    Parameters
    ----------
    tell : callable
        Called with (event, run uid, details): ``"begin"`` with the start document, ``"stream"``
        with the name of a stream that begins, ``"end"`` with the stop document.
    """

    def __init__(self, tell: Callable[[str, str, dict[str, Any]], None]) -> None:
        super().__init__()
        self._tell = tell
        self._run_uid = ""

    def start(self, doc: dict[str, Any]) -> None:
        """Tell that a run opens."""
        self._run_uid = doc["uid"]
        self._tell("begin", self._run_uid, doc)

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Tell that a stream begins."""
        self._tell("stream", doc["run_start"], {"name": doc["name"]})

    def stop(self, doc: dict[str, Any]) -> None:
        """Tell that the run closes."""
        self._tell("end", doc["run_start"], doc)
