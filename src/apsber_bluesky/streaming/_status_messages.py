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


class StatusPublisher(ConflatedPublisher):
    """Show a state to processes of this computer; showing never waits.

    Attributes
    ----------
    address : str
        Where a `StatusSubscriber` finds it.
    """

    def show(self, state: Mapping[str, Any]) -> None:
        """Show plain JSON values; a state not yet seen by somebody is replaced."""
        self.send({"protocol": PROTOCOL}, json.dumps(state).encode())


class StatusSubscriber(ConflatedSubscriber[dict[str, Any]]):
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
        super().__init__(address, _parse, maximum_bytes=MAXIMUM_STATUS_BYTES)


def _parse(message: bytes) -> dict[str, Any]:
    _, body = split_message(message, "status", PROTOCOL)
    try:
        state = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"status of {len(body)} bytes is not JSON: {error}") from error
    if not isinstance(state, dict):
        raise FrameError(f"status is {type(state).__name__}, not a map")
    return state
