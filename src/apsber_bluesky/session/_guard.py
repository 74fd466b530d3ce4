"""Tell the guard, a process that outlives the session, what a run leaves to be made safe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.devices import FastShutter, HasSafeState
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.streaming import Outbox

logger = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 30.0


class RunGuard:
    """Keep the guard informed; a callback of the RunEngine.

    If the process of the session dies during a run, even by ``kill -9``, nobody is left to close
    the shutter. The guard lives on: it closes the shutter, stops the axes and the detectors, and
    marks the run as aborted. Between runs it leaves everything as it is.

    Parameters
    ----------
    connected : callable
        The devices that are connected.
    data_root : Path
        Folder below which runs are kept.
    log : Path
        File that takes what the guard has to say.
    """

    def __init__(self, connected: Callable[[], Iterable[Any]], data_root: Path, log: Path) -> None:
        self._connected = connected
        self._service = ServiceProcess("guard", ["apsber_bluesky.session", "guard"], log)
        try:
            self._service.configure({"data_root": str(data_root.resolve())})
            answer = self._service.wait_ready(_START_TIMEOUT_S)
        except BaseException:
            self._service.stop()
            raise
        self._outbox = Outbox(answer["inbox_address"])

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        """Take a document."""
        if name == "start":
            self._run_begins(document["uid"])
        elif name == "stop":
            # The plan has left everything safe.
            self._outbox.send({"type": "idle"})

    def _run_begins(self, uid: str) -> None:
        puts: list[tuple[str, float | str]] = []
        devices = [device for device in self._connected() if isinstance(device, HasSafeState)]
        # The shutter first: the rest can wait for a tenth of a second.
        for device in sorted(devices, key=lambda device: not isinstance(device, FastShutter)):
            puts += device.safe_puts()
        self._outbox.send({"type": "run", "uid": uid, "puts": puts})

    def close(self) -> None:
        """End the guard; it has nothing to do for a session that ends in good order."""
        self._outbox.close()
        self._service.stop()
