"""The catalogue process: it fills Tiled, and is an embedded server if there is no other.

It is a process of its own, so that neither the server's threads nor a slow catalogue can hold up
the RunEngine. What it delivers lies on disk before, so it may be killed at any time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from apsber_bluesky.core import ApsberError, begin_service
from apsber_bluesky.storage import (
    CatalogUnreachable,
    DocumentDelivery,
    EmbeddedTiled,
    prepare_catalog,
)
from apsber_bluesky.streaming import Outbox

logger = logging.getLogger(__name__)

_NICENESS = 10
_POLL_S = 0.05


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``uri`` (of a Tiled server; empty to
    embed one), ``directory``, ``readable`` (folders whose files an embedded server may serve),
    ``documents`` (folder of the session's `DocumentJournal`), ``status_address``, ``api_key`` and
    ``port`` (of an embedded server; 0 takes a free one), and ``during_scans``: whether it starts
    while scans may run, and has to give way to them from the first. The ready line on standard
    output holds ``uri``.
    """
    settings, stop = begin_service()
    if settings["during_scans"]:
        _give_way()
    try:
        if settings["uri"]:
            _prepare(settings["uri"])
            _serve(settings["uri"], settings, stop)
            return 0
        server = EmbeddedTiled(
            Path(settings["directory"]),
            [Path(folder) for folder in settings["readable"]],
            settings["api_key"],
            settings["port"],
        )
        with server:
            _serve(server.uri, settings, stop)
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    return 0


def _prepare(uri: str) -> None:
    """Find a wrong address or key at once; a server that is away is waited for."""
    try:
        prepare_catalog(uri)
    except CatalogUnreachable as error:
        logger.warning("%s; documents are kept until it is back", error)


def _give_way() -> None:
    """The catalogue catches up when a scan leaves it time; a niceness is that of one thread."""
    for thread in Path("/proc/self/task").iterdir():
        # One that has just ended needs none.
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICENESS)


def _serve(uri: str, settings: dict[str, Any], stop: threading.Event) -> None:
    status = Outbox(settings["status_address"])
    delivery = DocumentDelivery(uri, Path(settings["documents"]), status.send)
    try:
        print(json.dumps({"ready": True, "uri": uri}), flush=True)  # noqa: T201
        _give_way()
        while not stop.is_set():
            if not delivery.turn():
                stop.wait(_POLL_S)
        # What was written before the session stopped is still delivered; the rest is kept.
        while delivery.turn():
            pass
    finally:
        delivery.close()
        status.close()
