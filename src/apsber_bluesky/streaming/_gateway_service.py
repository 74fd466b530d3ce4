"""The gateway as a process of its own: settings in on standard input, a ready line out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from p4p import gw

from apsber_bluesky.core import ApsberError, ConfigurationError, begin_service


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid`` and ``configuration``, the path of a
    ``gw.json`` of one server with one interface. The ready line on standard output holds
    ``server_port`` and ``broadcast_port``.
    """
    settings, stop = begin_service()
    try:
        app, ports = _start(settings["configuration"])
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    print(json.dumps({"ready": True, **ports}), flush=True)  # noqa: T201
    _run(app, stop)
    return 0


def _start(configuration: str) -> tuple[Any, dict[str, int]]:
    try:
        app = gw.App(gw.getargs().parse_args([configuration]))
    except SystemExit as error:
        raise ConfigurationError(
            f"p4p did not start a gateway from {configuration}; its log says why"
        ) from error
    (server,) = app.servers.values()
    served = server.conf()
    with Path(configuration).open(encoding="utf-8") as file:
        (wanted,) = json.load(file)["servers"]
    ports = {
        "server_port": int(served["EPICS_PVAS_SERVER_PORT"]),
        "broadcast_port": int(served["EPICS_PVAS_BROADCAST_PORT"]),
    }
    # It takes another port, with a line in its log, when somebody was faster.
    if ports["server_port"] != wanted["serverport"]:
        server.stop()
        raise ConfigurationError(
            f"gateway.server_port {wanted['serverport']} is taken; give another port"
        )
    return app, ports


def _run(app: Any, stop: threading.Event) -> None:
    def sleep(seconds: float) -> None:
        # What p4p's own loop, which sleeps for half a minute at a time, ends with in good order.
        if stop.wait(seconds):
            raise KeyboardInterrupt

    app.sleep = sleep
    app.run()
