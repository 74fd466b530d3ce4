"""The receiver is told of a run when it opens, through the same documents as everybody."""

from __future__ import annotations

from apsber_bluesky.core import FrameRange, FrameReceiver, RunDescription


class RunAnnouncer:
    """Tell a `FrameReceiver` which proposal a run belongs to; a `FrameConsumer`.

    Parameters
    ----------
    receiver : FrameReceiver
        Who is told.
    """

    def __init__(self, receiver: FrameReceiver) -> None:
        self._receiver = receiver

    def begin_run(self, run: RunDescription) -> None:
        """Tell of the run."""
        self._receiver.begin_run(run)

    def frames(self, frames: FrameRange) -> None:
        """The receiver knows its frames."""

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """The receiver keeps all frames alike."""

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """The camera closes its series."""
