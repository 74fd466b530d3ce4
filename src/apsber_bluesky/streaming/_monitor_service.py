"""The monitor as a process of its own: settings in on standard input, a ready line out."""

from __future__ import annotations

import json
import os

from apsber_bluesky.core import ApsberError, StreamingSettings, begin_service
from apsber_bluesky.streaming._client import ReceiverClient
from apsber_bluesky.streaming._messages import Outbox
from apsber_bluesky.streaming._monitor import Monitor
from apsber_bluesky.streaming._ring import FrameRing

_NICENESS = 10
_TIMEOUT_S = 2.0


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``control_address`` of the receiver,
    ``ring_descriptor``, ``status_address``, the settings ``streaming``, and ``live_slices``, where
    the worker shows slices of the volume, or null. The ready line on standard output holds
    ``name_server``, where PV Access clients find the PVs.
    """
    settings, stop = begin_service()
    os.nice(_NICENESS)
    streaming = StreamingSettings(**settings["streaming"])
    status = Outbox(settings["status_address"])
    client = ReceiverClient(settings["control_address"], timeout_s=_TIMEOUT_S)
    ring = FrameRing(settings["ring_descriptor"])
    try:
        monitor = Monitor(client, ring, streaming, status.send, settings.get("live_slices"))
        print(json.dumps({"ready": True, "name_server": monitor.name_server}), flush=True)  # noqa: T201
        try:
            monitor.serve(stop)
        finally:
            monitor.close()
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    finally:
        ring.close()
        client.close()
        status.close()
    return 0
