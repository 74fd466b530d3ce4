"""``apsber dashboard``: the live web page."""

from __future__ import annotations

import os
import threading
from typing import Annotated, Any

import typer

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
)
from apsber_bluesky.core import forgo_real_time


def dashboard(
    port: Annotated[
        int | None, typer.Option(help="Port, instead of the profile's; 0 for any free one.")
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a web page of the runs and of the session that goes on, until Ctrl-C."""
    # Before any thread is started, for PV Access has some of its own.
    forgo_real_time()
    from apsber_bluesky.dashboard import Dashboard

    output = Output(as_json=as_json)
    changes: dict[str, Any] = {} if port is None else {"dashboard": {"port": port}}
    settings = profile_with(profile, data_root, changes)
    stop = threading.Event()
    with handle_interrupts() as interrupt, interrupt.calls(stop.set):
        server = Dashboard(settings)
        server.start()
        try:
            output.say(f"page      {server.link}")
            output.say(f"data      {settings.session.data_root}")
            output.say("Whoever has this link may look, and nobody can change anything.")
            output.result({"ready": True, "url": server.link, "pid": os.getpid()})
            while not stop.wait(0.3):
                server.check()
        finally:
            server.close()
