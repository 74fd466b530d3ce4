"""The receiver as a process of its own: settings in on standard input, a ready line out."""

from __future__ import annotations

import json
from pathlib import Path

from apsber_bluesky.core import ApsberError, StreamingSettings, begin_service
from apsber_bluesky.streaming._message_memory import keep_message_memory
from apsber_bluesky.streaming._messages import Outbox
from apsber_bluesky.streaming._receiver import Receiver
from apsber_bluesky.streaming._ring import FrameRing


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``frame_address``, ``data_root``,
    ``ring_descriptor``, ``status_address`` and the settings ``streaming``; ``state_file``, from
    which a receiver goes on that follows one which was killed; and ``control_address``, that of
    the one before. The ready line on standard output holds ``control_address``.
    """
    keep_message_memory()
    settings, stop = begin_service()
    status = Outbox(settings["status_address"])

    def report(run_uid: str, stream: str, received: int, expected: int) -> None:
        status.send(
            {
                "type": "frames",
                "run_uid": run_uid,
                "stream": stream,
                "received": received,
                "expected": expected,
            }
        )

    def warn(run_uid: str, text: str) -> None:
        status.send({"type": "warning", "run_uid": run_uid, "stage": "receive", "message": text})

    ring = FrameRing(settings["ring_descriptor"])
    try:
        ring.touch()
        receiver = Receiver(
            settings["frame_address"],
            Path(settings["data_root"]),
            ring,
            settings=StreamingSettings(**settings["streaming"]),
            report=report,
            warn=warn,
            control_address=settings.get("control_address", "tcp://127.0.0.1:*"),
            state_file=Path(settings["state_file"]) if "state_file" in settings else None,
        )
        print(json.dumps({"ready": True, "control_address": receiver.control_address}), flush=True)  # noqa: T201
        try:
            receiver.serve(stop.is_set)
        finally:
            receiver.close()
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    finally:
        ring.close()
        status.close()
    return 0
