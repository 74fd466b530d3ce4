"""Filters in the beam."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._materials import attenuation_per_um

_TRAVEL_S = 0.1
_REFRESH_S = 0.5


@dataclass(frozen=True, slots=True)
class Foil:
    """What one filter is made of.

    Attributes
    ----------
    material : str
        Chemical formula.
    thickness_um : float
        Thickness along the beam [um].
    """

    material: str
    thickness_um: float


FOILS = (Foil("Al", 250.0), Foil("Al", 1000.0), Foil("Cu", 50.0))
"""Filters of the simulated beamline, from the first on."""


def transmission_of(foils: tuple[Foil, ...], energy_keV: float) -> float:
    """Part of the light that passes some foils at an energy [keV]; 1 without any."""
    if not foils:
        return 1.0
    depth = sum(f.thickness_um * attenuation_per_um(f.material, energy_keV) for f in foils)
    return math.exp(-depth)


class _Slot:
    """One filter: a put to ``Command`` ends when it has arrived."""

    def __init__(self, prefix: str, foil: Foil) -> None:
        self.foil = foil
        self._command = ca.choice(("Out", "In"))
        self._status = ca.read_only(ca.choice(("Out", "In")))
        self.channels: dict[str, Any] = {
            f"{prefix}Command": self._command,
            f"{prefix}Status_RBV": self._status,
            f"{prefix}Material_RBV": ca.read_only(ca.text(foil.material)),
            f"{prefix}Thickness_RBV": ca.read_only(ca.double(foil.thickness_um, units="um")),
        }
        self._orders = 0
        self._changed_s = time.monotonic()
        self._command.on_put = self._put

    def is_in(self, at_s: float) -> bool:
        """Whether it was in the beam at a recent time (``time.monotonic``) [s]."""
        is_in = bool(self._status.value == "In")
        return is_in if at_s >= self._changed_s else not is_in

    async def _put(self, value: str) -> None:
        self._orders += 1
        order = self._orders
        await asyncio.sleep(_TRAVEL_S)
        # An order that another has overtaken moves nothing.
        if order == self._orders and value != self._status.value:
            self._changed_s = time.monotonic()
            await self._status.post(value)


class Filters:
    """Three foils that can be put into the beam.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:filters:"``.
    energy_keV : callable
        Photon energy at a time (``time.monotonic``) [keV].
    """

    def __init__(self, prefix: str, energy_keV: Callable[[float], float]) -> None:
        self._energy_keV = energy_keV
        self._slots = [_Slot(f"{prefix}{n}:", foil) for n, foil in enumerate(FOILS, 1)]
        self._transmission = ca.read_only(ca.double(1.0, precision=6))
        self.channels: dict[str, Any] = {f"{prefix}Transmission_RBV": self._transmission}
        for slot in self._slots:
            self.channels |= slot.channels

    def inserted(self, at_s: float) -> tuple[Foil, ...]:
        """Foils that were in the beam at a recent time (``time.monotonic``)."""
        return tuple(slot.foil for slot in self._slots if slot.is_in(at_s))

    async def run(self) -> None:
        """Publish the transmission; ends when cancelled."""
        while True:
            now = time.monotonic()
            foils, energy = self.inserted(now), self._energy_keV(now)
            value = await asyncio.to_thread(transmission_of, foils, energy)
            await self._transmission.post(value)
            await asyncio.sleep(_REFRESH_S)
