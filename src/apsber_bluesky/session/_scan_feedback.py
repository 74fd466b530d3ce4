"""What the worker finds out of a running run, for the plan that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from apsber_bluesky.core import LiveMetric


class _Board(Protocol):
    def listen(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Call `listener` with every message."""
        ...


class BoardFeedback:
    """Keeps the newest quality numbers of the run that was heard of last.

    Implements `apsber_bluesky.core.ScanFeedback`.

    Parameters
    ----------
    board : StatusBoard
        Where the worker tells them (messages of type ``feedback``).
    """

    def __init__(self, board: _Board) -> None:
        # One object is put in place of another, for the board has a thread of its own.
        self._newest: tuple[str, dict[str, LiveMetric]] = ("", {})
        board.listen(self._note)

    def _note(self, message: dict[str, Any]) -> None:
        if message["type"] != "feedback":
            return
        uid, known = self._newest
        metric = LiveMetric(message["name"], message["value"], message["projections"])
        others = known if uid == message["run_uid"] else {}
        self._newest = message["run_uid"], {**others, metric.name: metric}

    def latest(self, run_uid: str, name: str) -> LiveMetric | None:
        """The newest number of that name; None if there is none yet."""
        uid, known = self._newest
        return known.get(name) if uid == run_uid else None
