"""The guard: makes the beamline safe when the process of the session dies during a run."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import (
    ApsberError,
    RunLedger,
    RunState,
    find_run,
    forgo_real_time,
    note_sigterm,
)
from apsber_bluesky.streaming import Inbox

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.05
_CONNECT_S: Final = 2.0
#: The worker marks a run aborted itself when it ends with the session.
_WORKER_S: Final = 5.0
_REASON: Final = "the process of the session died during the scan"


class Guard:
    """What is to be done if the session dies now.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    """

    def __init__(self, data_root: Path) -> None:
        # Imported here, for it reads the environment that the session has prepared.
        import epics

        self._epics = epics
        self._data_root = data_root
        self._run_uid: str | None = None
        self._puts: list[tuple[str, float | str]] = []
        self._pvs: dict[str, Any] = {}

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message of the session."""
        if message["type"] == "run":
            self._run_uid = str(message["uid"])
            self._puts = [(str(name), value) for name, value in message["puts"]]
            # Connected before they are needed.
            for name, _ in self._puts:
                if name not in self._pvs:
                    self._pvs[name] = self._epics.PV(name, auto_monitor=False)
        elif message["type"] == "idle":
            self._run_uid, self._puts = None, []

    def act(self) -> None:
        """The session has died: make everything safe and close the run, if there is one."""
        if self._run_uid is None:
            return
        logger.warning("the session died during run %s: making the beamline safe", self._run_uid)
        deadline = time.monotonic() + _CONNECT_S
        for name, value in self._puts:
            pv = self._pvs[name]
            if pv.wait_for_connection(timeout=max(deadline - time.monotonic(), 0.01)):
                pv.put(value, wait=False)
                logger.warning("%s = %s", name, value)
            else:
                logger.error("%s is not connected", name)
        self._epics.ca.flush_io()
        self._close_run(self._run_uid)

    def _close_run(self, uid: str) -> None:
        deadline = time.monotonic() + _WORKER_S
        try:
            with RunLedger(find_run(self._data_root, uid).ledger) as ledger:
                while ledger.state is RunState.ACQUIRING and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                if ledger.state is RunState.ACQUIRING:
                    ledger.set_state(RunState.ABORTED, _REASON)
                logger.warning("run %s is %s: %s", uid, ledger.state, ledger.reason)
        except ApsberError as error:
            # It had not begun.
            logger.warning("run %s: %s", uid, error)


def main() -> int:
    """Run the guard until the session ends, in good order or not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    # Not `begin_service`: this process is not to end with its parent.
    stop = note_sigterm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    forgo_real_time()
    inbox = Inbox()
    guard = Guard(Path(settings["data_root"]))
    answer = {"ready": True, "inbox_address": inbox.address}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    try:
        while not stop.is_set():
            message = inbox.receive(_POLL_S)
            if message is not None:
                guard.hear(message)
            elif os.getppid() != settings["parent_pid"]:
                guard.act()
                break
    finally:
        inbox.close()
    return 0
