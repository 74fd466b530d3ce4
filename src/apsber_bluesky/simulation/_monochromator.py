"""The monochromator: photon energy as an axis."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from apsber_bluesky.simulation._motor import MotorRecord


class Monochromator:
    """A double-crystal monochromator, whose energy is a motor record [keV].

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:mono:"``.
    energy_keV : float
        Energy that it stands at when the beamline starts [keV].
    """

    def __init__(self, prefix: str, energy_keV: float) -> None:
        self.axis = MotorRecord(
            f"{prefix}energy",
            units="keV",
            velocity=10.0,
            acceleration_s=0.1,
            limits=(4.0, 120.0),
            description="photon energy",
            position=energy_keV,
        )
        self.channels: dict[str, Any] = self.axis.channels

    def energy_keV(self, at_s: float) -> float:
        """Energy at a time (``time.monotonic``) [keV]; small steps are the encoder's."""
        return round(self.axis.position(at_s), 6)

    async def start(self) -> None:
        """Give the record its first values."""
        await self.axis.start()

    def run(self) -> Coroutine[Any, Any, None]:
        """Keep the record up to date; ends when cancelled."""
        return self.axis.run()
