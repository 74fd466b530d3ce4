"""One session that runs: how it is, what its runs do, its live slices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from apsber_bluesky.core import FrameError, ServiceError, StreamingLimits
from apsber_bluesky.dashboard._live_pictures import LivePictures
from apsber_bluesky.session import LiveSession
from apsber_bluesky.streaming import ReceiverClient, StatusSubscriber, find_warnings

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 1.0


class SessionLink:
    """Listen to a session; it never notices.

    Parameters
    ----------
    session : LiveSession
        Where it is.
    limits : StreamingLimits
        When the health of its receiver deserves a warning.
    tell_slices : callable
        Called with what `LivePictures` tells.

    Attributes
    ----------
    session : LiveSession
        The session.
    pictures : LivePictures
        Its live slices.
    """

    def __init__(
        self, session: LiveSession, limits: StreamingLimits, tell_slices: Callable[[Any], None]
    ) -> None:
        self.session = session
        self._limits = limits
        self._status: dict[str, Any] = {}
        self._health: dict[str, Any] | None = None
        self._warnings: list[str] = []
        self._subscriber = StatusSubscriber(session.status_address)
        self._client = ReceiverClient(session.control_address, timeout_s=_ANSWER_S)
        self.pictures = LivePictures(session.name_server, session.health_prefix, tell_slices)

    def look(self) -> None:
        """Ask the receiver, and take in what the session has said."""
        try:
            if (status := self._subscriber.latest(0.0)) is not None:
                self._status = status
        except FrameError as error:
            logger.warning("session %d: %s", self.session.pid, error)
        try:
            health = self._client.health()
        except ServiceError as error:
            self._health, self._warnings = None, [str(error)]
            return
        self._health = health.to_dict()
        self._warnings = [w.message for w in find_warnings(health, self._limits)]

    def describe(self) -> dict[str, Any]:
        """The session as plain values."""
        said = [str(text) for text in self._status.get("health", [])]
        return {
            "profile": self.session.profile,
            "pid": self.session.pid,
            "host": self.session.host,
            "began_s": self.session.began_s,
            "health": self._health,
            # The monitor sees growth, which one answer cannot; the same is not said twice.
            "warnings": list(dict.fromkeys([*self._warnings, *said])),
        }

    @property
    def runs(self) -> list[str]:
        """Uids of the runs that the session has told of lately."""
        return list(self._status.get("runs", {}))

    def run_status(self, uid: str) -> dict[str, Any]:
        """What the session has said of a run; empty if nothing."""
        return dict(self._status.get("runs", {}).get(uid, {}))

    def close(self) -> None:
        """Listen no more."""
        self.pictures.close()
        self._client.close()
        self._subscriber.close()
