"""What the processes of a session say about its runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from apsber_bluesky.core import ServiceError
from apsber_bluesky.streaming import Inbox

logger = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]


class StatusBoard:
    """Collect status messages in a thread, and tell listeners.

    Attributes
    ----------
    address : str
        Where the processes send to.
    """

    def __init__(self) -> None:
        self._inbox = Inbox()
        self.address = self._inbox.address
        self._listeners: list[Listener] = []
        self._finished: dict[str, dict[str, Any]] = {}
        self._catalogued: set[str] = set()
        self._warnings: dict[str, list[str]] = {}
        self._health: dict[str, str] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="status-board", daemon=True)
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every message, from the board's thread."""
        self._listeners.append(listener)

    @property
    def health_warnings(self) -> list[str]:
        """What is wrong with the stream of frames at the moment."""
        with self._changed:
            return list(self._health.values())

    def post(self, message: dict[str, Any]) -> None:
        """Take in a message."""
        uid = message.get("run_uid", "")
        with self._changed:
            match message["type"]:
                case "finished":
                    self._finished[uid] = message
                case "catalogued":
                    self._catalogued.add(uid)
                case "warning":
                    warning = f"{message['stage']}: {message['message']}"
                    self._warnings.setdefault(uid, []).append(warning)
                case "health" if message["active"]:
                    self._health[message["kind"]] = message["message"]
                case "health":
                    self._health.pop(message["kind"], None)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(message)

    def _listen(self) -> None:
        while not self._stop.is_set():
            message = self._inbox.receive(timeout_s=0.1)
            if message is None:
                continue
            try:
                self.post(message)
            except Exception:
                # A display that fails must not stop the books.
                logger.exception("a listener failed on %r", message.get("type"))

    def wait_finished(
        self, run_uid: str, timeout_s: float, check: Callable[[], None], *, catalogued: bool
    ) -> dict[str, Any]:
        """Wait until a run has been through all its stages.

        Parameters
        ----------
        run_uid : str
            The run.
        timeout_s : float
            How long to wait [s].
        check : callable
            Called now and then; raises when waiting is in vain.
        catalogued : bool
            Whether to wait for its documents to be in the catalogue, too.

        Returns
        -------
        dict
            The summary of the run, with the ``warnings`` it met.

        Raises
        ------
        ServiceError
            If it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._is_done(run_uid, catalogued=catalogued):
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"run {run_uid} was not finished after {timeout_s:g} s; see the logs"
                    )
                self._changed.wait(0.2)
                # A service that has ended matters only to a run that still needs it.
                if not self._is_done(run_uid, catalogued=catalogued):
                    check()
            summary = {k: v for k, v in self._finished[run_uid].items() if k not in _ENVELOPE}
            return {**summary, "warnings": self._warnings.get(run_uid, [])}

    def _is_done(self, run_uid: str, *, catalogued: bool) -> bool:
        return run_uid in self._finished and (not catalogued or run_uid in self._catalogued)

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._inbox.close()


_ENVELOPE = ("type", "run_uid")
