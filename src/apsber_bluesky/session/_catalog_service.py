"""The catalogue process: the writer that fills Tiled, and an embedded server if there is no other.

It is a process of its own, so that neither the server's threads nor a slow catalogue can hold up
the RunEngine.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from apsber_bluesky.core import ApsberError, begin_service
from apsber_bluesky.storage import RAW_CONTAINER, EmbeddedTiled, connect_catalog, prepare_catalog
from apsber_bluesky.streaming import Inbox, Outbox

logger = logging.getLogger(__name__)

#: Events per write; the rest follow when the run stops. A write takes some 60 ms however many
#: events it holds, and where two processors share a core the RunEngine would feel more of them.
BATCH_SIZE = 250
_NICENESS = 10


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``uri`` (of a Tiled server; empty to
    embed one), ``directory``, ``readable`` (folders whose files an embedded server may serve),
    ``backup_directory``, ``status_address`` and ``api_key``. The ready line on standard output
    holds ``uri`` and ``inbox_address``.
    """
    settings, stop = begin_service()
    # The catalogue catches up when the scan leaves it time.
    os.nice(_NICENESS)
    try:
        if settings["uri"]:
            prepare_catalog(settings["uri"])
            _serve(settings["uri"], settings, stop)
            return 0
        server = EmbeddedTiled(
            Path(settings["directory"]),
            [Path(folder) for folder in settings["readable"]],
            settings["api_key"],
        )
        with server:
            _serve(server.uri, settings, stop)
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    return 0


def _serve(uri: str, settings: dict[str, Any], stop: threading.Event) -> None:
    from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter

    backup = Path(settings["backup_directory"])
    backup.mkdir(parents=True, exist_ok=True)
    writer = TiledWriter(
        connect_catalog(uri)[RAW_CONTAINER],
        backup_directory=str(backup),
        batch_size=BATCH_SIZE,
    )
    inbox, status = Inbox(), Outbox(settings["status_address"])
    try:
        ready = {"ready": True, "uri": uri, "inbox_address": inbox.address}
        print(json.dumps(ready), flush=True)  # noqa: T201
        while not stop.is_set():
            if (message := inbox.receive(timeout_s=0.1)) is not None:
                _write(writer, message, status)
        # What was sent before the session stopped is still written.
        while (message := inbox.receive(timeout_s=0.2)) is not None:
            _write(writer, message, status)
    finally:
        status.close()
        inbox.close()


def _write(writer: Any, message: dict[str, Any], status: Outbox) -> None:
    name, document = message["name"], message["document"]
    try:
        writer(name, document)
    except Exception as error:
        # The writer keeps documents that the server refuses in its backup folder; a run that it
        # cannot write at all must not end the service.
        logger.exception("document %r could not be catalogued", name)
        if "run_start" in document or name == "start":
            uid = document.get("run_start", document.get("uid", ""))
            details = {"stage": "catalogue", "message": f"{type(error).__name__}: {error}"}
            status.send({"type": "warning", "run_uid": uid, **details})
    if name == "stop":
        status.send({"type": "catalogued", "run_uid": document["run_start"]})
