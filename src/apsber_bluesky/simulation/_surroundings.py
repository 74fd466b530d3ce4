"""What stands around the sample: its stage, the monochromator, the filters and the ring."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from apsber_bluesky.simulation._filters import Filters
from apsber_bluesky.simulation._monochromator import Monochromator
from apsber_bluesky.simulation._motor import MotorRecord
from apsber_bluesky.simulation._ring import StorageRing
from apsber_bluesky.simulation._scene import Scene


def _axis(name: str, description: str, *, units: str, velocity: float, limit: float) -> MotorRecord:
    return MotorRecord(
        name,
        units=units,
        velocity=velocity,
        acceleration_s=0.1,
        limits=(-limit, limit),
        description=description,
    )


class Surroundings:
    """Everything that an exposure depends on beside rotation and shutter.

    The sample stage carries the rotation stage: moving it moves the rotation axis in the picture.

    Parameters
    ----------
    prefix : str
        PV prefix ``$(P)``.
    energy_keV : float
        Photon energy at first [keV].

    Attributes
    ----------
    x, y, z, roll : MotorRecord
        The sample stage [mm], and the lean of the rotation axis [deg].
    """

    def __init__(self, prefix: str, energy_keV: float) -> None:
        self.x = _axis(f"{prefix}m2", "sample x", units="mm", velocity=20.0, limit=20.0)
        self.y = _axis(f"{prefix}m3", "sample y", units="mm", velocity=10.0, limit=20.0)
        self.z = _axis(f"{prefix}m4", "sample z", units="mm", velocity=10.0, limit=20.0)
        self.roll = _axis(f"{prefix}m5", "axis roll", units="deg", velocity=5.0, limit=5.0)
        self.monochromator = Monochromator(f"{prefix}mono:", energy_keV)
        self.ring = StorageRing(f"{prefix}ring:")
        self.filters = Filters(f"{prefix}filters:", self.monochromator.energy_keV)
        self._axes = (self.x, self.y, self.z, self.roll)

    @property
    def channels(self) -> dict[str, Any]:
        """Every channel by its PV name."""
        merged: dict[str, Any] = {}
        for part in (*self._axes, self.monochromator, self.ring, self.filters):
            merged |= part.channels
        return merged

    def scene(self, at_s: float) -> Scene:
        """How all that was at a recent time (``time.monotonic``)."""
        return Scene(
            x_mm=self.x.position(at_s) - self.x.offset,
            y_mm=self.y.position(at_s) - self.y.offset,
            roll_deg=self.roll.position(at_s) - self.roll.offset,
            energy_keV=self.monochromator.energy_keV(at_s),
            filters=self.filters.inserted(at_s),
            has_beam=self.ring.has_beam,
        )

    async def start(self) -> None:
        """Give every record its first value."""
        for axis in self._axes:
            await axis.start()
        await self.monochromator.start()

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves."""
        axes = [axis.run() for axis in self._axes]
        return [*axes, self.monochromator.run(), self.ring.run(), self.filters.run()]
