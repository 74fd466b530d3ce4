"""The storage ring: current and permit, and how a test takes them away."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from apsber_bluesky.simulation import _channels as ca

_PERIOD_S = 0.5
_CURRENT_MA = 102.0
_TOP_UP_S = 60.0


class StorageRing:
    """Current and shutter permit.

    ``SimulateDump`` = 1 loses the beam, 0 brings it back; ``SimulatePermit`` = 0 takes the permit
    to open shutters away. Either way no light arrives.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:ring:"``.
    """

    def __init__(self, prefix: str) -> None:
        self._current = ca.read_only(ca.double(_CURRENT_MA, units="mA", precision=3))
        self._permit = ca.read_only(ca.integer(1))
        self._dump = ca.integer(0)
        self._grant = ca.integer(1)
        self.channels: dict[str, Any] = {
            f"{prefix}Current": self._current,
            f"{prefix}Permit": self._permit,
            f"{prefix}SimulateDump": self._dump,
            f"{prefix}SimulatePermit": self._grant,
        }
        self._dump.on_put = self._put_dump
        self._grant.on_put = self._put_permit

    @property
    def has_beam(self) -> bool:
        """Whether light can arrive."""
        return not self._dump.value and bool(self._permit.value)

    async def _put_dump(self, value: int) -> None:
        await self._post_current()

    async def _put_permit(self, value: int) -> None:
        await self._permit.post(int(bool(value)))

    async def _post_current(self) -> None:
        phase = math.fmod(time.monotonic(), _TOP_UP_S) / _TOP_UP_S
        stored = _CURRENT_MA * (1.0 + 1e-3 * (0.5 - phase))
        await self._current.post(0.0 if self._dump.value else stored)

    async def run(self) -> None:
        """The current decays by a per mille and is topped up every minute; ends when cancelled."""
        while True:
            await self._post_current()
            await asyncio.sleep(_PERIOD_S)
