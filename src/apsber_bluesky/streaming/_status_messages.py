"""What a session is doing, for anybody of this computer who looks on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._conflated import (
    ConflatedPublisher,
    ConflatedSubscriber,
    split_message,
)

PROTOCOL: Final = "apsber-status/1"
MAXIMUM_STATUS_BYTES: Final = 1 << 20


class StatusPublisher:
    """Show a state to processes of this computer; showing never waits.

    Attributes
    ----------
    address : str
        Where a `StatusSubscriber` finds it.
    """

    def __init__(self) -> None:
        self._publisher = ConflatedPublisher()
        self.address = self._publisher.address

    def show(self, state: Mapping[str, Any]) -> None:
        """Show plain JSON values; a state not yet seen by somebody is replaced."""
        self._publisher.send({"protocol": PROTOCOL}, json.dumps(state).encode())

    def close(self) -> None:
        """Close the socket."""
        self._publisher.close()


class StatusSubscriber:
    """See the newest state.

    Parameters
    ----------
    address : str
        Where the publisher is.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(self, address: str) -> None:
        self._subscriber = ConflatedSubscriber(address, maximum_bytes=MAXIMUM_STATUS_BYTES)

    def latest(self, timeout_s: float) -> dict[str, Any] | None:
        """The newest state that has not been seen yet, None when none comes in time.

        Raises
        ------
        FrameError
            If something else was published.
        """
        message = self._subscriber.latest(timeout_s)
        return None if message is None else _parse(message)

    def close(self) -> None:
        """Close the socket."""
        self._subscriber.close()


def _parse(message: bytes) -> dict[str, Any]:
    _, body = split_message(message, "status", PROTOCOL)
    try:
        state = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"status of {len(body)} bytes is not JSON: {error}") from error
    if not isinstance(state, dict):
        raise FrameError(f"status is {type(state).__name__}, not a map")
    return state
