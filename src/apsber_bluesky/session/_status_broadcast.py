"""The session's runs, stage by stage, for those who look on from another process."""

from __future__ import annotations

import copy
import threading
from typing import Any, Final

from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.streaming import StatusPublisher

#: Who comes later sees it within this time; more often only what has changed [s].
_REPEAT_S: Final = 1.0
_PERIOD_S: Final = 0.1

# The newest are enough for somebody who looks on, whatever a session of weeks has seen.
_RUNS: Final = 4
_STAGES: Final = 40
_WARNINGS: Final = 30
_TEXT: Final = 400


class StatusBroadcast:
    """Show what a board hears, as one state: of a slow reader only the newest is kept.

    The state is ``runs`` (uid -> ``stages``, ``warnings``, ``live_slices``, ``finished``), where a
    stage is ``[done, total]``, and ``health``, the warnings of the stream of frames.

    Parameters
    ----------
    board : StatusBoard
        What it shows.

    Attributes
    ----------
    address : str
        Where `apsber_bluesky.streaming.StatusSubscriber` connects.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._runs: dict[str, dict[str, Any]] = {}
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._publisher = StatusPublisher()
        self.address = self._publisher.address
        board.listen(self.take)
        self._thread = threading.Thread(target=self._serve, name="status-broadcast", daemon=True)
        self._thread.start()

    def take(self, message: dict[str, Any]) -> None:
        """Take in a message of the board."""
        uid = str(message.get("run_uid", ""))
        with self._lock:
            if uid:
                self._enter(self._run(uid), message)
        self._changed.set()

    def _run(self, uid: str) -> dict[str, Any]:
        if uid not in self._runs:
            self._runs[uid] = {"stages": {}, "warnings": [], "live_slices": {}, "finished": False}
            while len(self._runs) > _RUNS:
                del self._runs[next(iter(self._runs))]
        return self._runs[uid]

    @staticmethod
    def _enter(run: dict[str, Any], message: dict[str, Any]) -> None:
        match message["type"]:
            case "stage" if len(run["stages"]) < _STAGES:
                run["stages"][str(message["stage"])[:_TEXT]] = [message["done"], message["total"]]
            case "warning" if len(run["warnings"]) < _WARNINGS:
                run["warnings"].append(f"{message['stage']}: {message['message']}"[:_TEXT])
            case "live_slices":
                hidden = ("type", "run_uid")
                run["live_slices"] = {k: v for k, v in message.items() if k not in hidden}
            case "finished":
                run["finished"] = True

    def state(self) -> dict[str, Any]:
        """What is shown now, as plain JSON values."""
        health = [text[:_TEXT] for text in self._board.health_warnings]
        with self._lock:
            runs = copy.deepcopy(self._runs)
        return {"runs": runs, "health": health}

    def _serve(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._changed.wait(_REPEAT_S)
            self._changed.clear()
            self._publisher.show(self.state())

    def close(self) -> None:
        """Show it no more."""
        self._stop.set()
        self._changed.set()
        self._thread.join()
        self._publisher.close()
