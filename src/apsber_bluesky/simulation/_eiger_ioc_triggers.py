"""When a simulated EIGER exposes: its own clock, software triggers, or pulses."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from apsber_bluesky.simulation._camera import Exposure, Look
from apsber_bluesky.simulation._eiger_ioc_series import ArmedSeries
from apsber_bluesky.simulation._pulses import Pulse

# Rounding of times of the order of the uptime; exposures are many times longer.
_CLOCK_SLACK_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to be made.

    Attributes
    ----------
    seen : Exposure
        What there was to see.
    began_s : float
        Unix time of its start [s].
    exposure_s : float
        How long it was exposed [s].
    """

    seen: Exposure
    began_s: float
    exposure_s: float


class Triggers:
    """The triggers of one acquisition.

    Parameters
    ----------
    armed : ArmedSeries
        What the detector waits for.
    look : callable
        Says what an exposure at a given time (``time.monotonic``) sees.
    exposure_s : callable
        The exposure time of now [s]; in mode ``inte`` it may change from trigger to trigger.
    ignored : frozenset of int
        Numbers of pulses that are ignored, to simulate trouble.
    """

    def __init__(
        self,
        armed: ArmedSeries,
        look: Look,
        exposure_s: Callable[[], float],
        ignored: frozenset[int],
    ) -> None:
        self._armed, self._look, self._exposure_s = armed, look, exposure_s
        self._ignored = ignored
        self._pulses: asyncio.Queue[tuple[float, float | None]] = asyncio.Queue()
        self._stopped = asyncio.Event()
        self._busy_until_s = -math.inf
        self._count = 0
        self._external = armed.mode in ("exts", "exte")

    def stop(self) -> None:
        """Expect no more triggers."""
        self._stopped.set()

    def software(self) -> None:
        """The record ``Trigger`` was processed; it counts only where it is waited for."""
        if not self._external and self._armed.by_software:
            self._pulses.put_nowait((time.monotonic(), None))

    def take(self, pulses: list[Pulse]) -> None:
        """Take pulses; those that come while the detector is busy are ignored.

        That is decided by the times of the pulses, not by how fast this program is.
        """
        if not self._external:
            return
        for pulse in pulses:
            number, self._count = self._count, self._count + 1
            if pulse.time_s < self._busy_until_s - _CLOCK_SLACK_S or number in self._ignored:
                continue
            # The simulated pulses have no length: gates are as long as the exposure time.
            self._busy_until_s = pulse.time_s + self._busy_s()
            self._pulses.put_nowait((pulse.time_s, pulse.position))

    def _busy_s(self) -> float:
        if self._armed.mode == "exte":
            return self._exposure_s()
        # The last image of a trigger blocks the next for its exposure, not for its period.
        period_s, exposure_s = self._armed.series.frame_time_s, self._exposure_s()
        return (self._armed.images_per_trigger - 1) * period_s + exposure_s

    async def shots(self) -> AsyncIterator[Shot]:
        """The images of the series in order, each when its exposure has ended."""
        waits = self._external or self._armed.by_software
        begins_s = time.monotonic()
        for _ in range(self._armed.num_triggers):
            position: float | None = None
            if waits:
                found = await self._next_pulse()
                if found is None:
                    return
                begins_s, position = found
            exposure_s = self._exposure_s()
            period_s = max(self._armed.series.frame_time_s, exposure_s)
            for image in range(self._armed.images_per_trigger):
                start_s = begins_s + image * period_s
                if await self._stops_before(start_s + exposure_s):
                    return
                yield self._shot(start_s, exposure_s, position if image == 0 else None)
            begins_s += self._armed.images_per_trigger * period_s

    async def _next_pulse(self) -> tuple[float, float | None] | None:
        pulse = asyncio.ensure_future(self._pulses.get())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait([pulse, stopped], return_when=asyncio.FIRST_COMPLETED)
            # Exposures that were triggered are finished, as those on their way to the memory are.
            return pulse.result() if pulse.done() else None
        finally:
            pulse.cancel()
            stopped.cancel()

    async def _stops_before(self, until_s: float) -> bool:
        """Wait until a time; whether the acquisition is stopped before."""
        wait_s = until_s - time.monotonic()
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)
        return self._stopped.is_set()

    def _shot(self, start_s: float, exposure_s: float, position: float | None) -> Shot:
        seen = self._look(start_s + exposure_s / 2)
        began_s = seen.time_s - exposure_s / 2
        if position is not None:
            # A pulse says where the axis was when the exposure began.
            seen = replace(self._look(start_s), angle_deg=position)
            began_s = seen.time_s
        return Shot(seen, began_s, exposure_s)
