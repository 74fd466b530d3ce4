"""The fast shutter."""

from __future__ import annotations

import asyncio
import time

from apsber_bluesky.simulation import _channels as ca

_TRAVEL_S = 0.05


class FastShutter:
    """A shutter that takes 50 ms; a put to ``Command`` ends when it has arrived.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:shutter:"``.
    """

    def __init__(self, prefix: str) -> None:
        self._command = ca.choice(("Close", "Open"))
        self._status = ca.read_only(ca.choice(("Closed", "Open")))
        self.channels = {
            f"{prefix}Command": self._command,
            f"{prefix}Status_RBV": self._status,
        }
        self._orders = 0
        self._changed_s = time.monotonic()
        self._command.on_put = self._put

    def is_open(self, at_s: float) -> bool:
        """Whether the beam passed at a recent time (``time.monotonic``) [s]."""
        is_open = bool(self._status.value == "Open")
        return is_open if at_s >= self._changed_s else not is_open

    async def _put(self, value: str) -> None:
        self._orders += 1
        order = self._orders
        await asyncio.sleep(_TRAVEL_S)
        status = "Open" if value == "Open" else "Closed"
        if order == self._orders and status != self._status.value:
            self._changed_s = time.monotonic()
            await self._status.post(status)
