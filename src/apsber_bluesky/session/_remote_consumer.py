"""The pipeline as the RunEngine's process sees it: messages to the worker."""

from __future__ import annotations

from typing import Any

from apsber_bluesky.core import FrameConsumer, FrameRange, RunDescription
from apsber_bluesky.streaming import Outbox


class RemoteFrameConsumer:
    """Hand on to the worker's inbox; implements `apsber_bluesky.core.FrameConsumer`.

    Parameters
    ----------
    outbox : Outbox
        Connected to the worker; sending never waits.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def begin_run(self, run: RunDescription) -> None:
        """Tell that a run has opened."""
        self._outbox.send({"type": "begin_run", "run": run.model_dump(mode="json")})

    def frames(self, frames: FrameRange) -> None:
        """Tell that frames are on disk."""
        self._outbox.send({"type": "frames", "frames": frames.to_dict()})

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """Tell which projections are to be one volume."""
        self._outbox.send({"type": "capture", "run_uid": run_uid, "start": start, "stop": stop})

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """Tell that the run has closed."""
        self._outbox.send(
            {
                "type": "end_run",
                "run_uid": run_uid,
                "exit_status": exit_status,
                "reason": reason,
            }
        )


def deliver(message: dict[str, Any], consumer: FrameConsumer) -> None:
    """Make the call that a message of `RemoteFrameConsumer` stands for."""
    match message["type"]:
        case "begin_run":
            consumer.begin_run(RunDescription(**message["run"]))
        case "frames":
            consumer.frames(FrameRange(**message["frames"]))
        case "capture":
            consumer.capture(message["run_uid"], message["start"], message["stop"])
        case "end_run":
            consumer.end_run(message["run_uid"], message["exit_status"], message["reason"])
