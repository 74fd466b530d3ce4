"""The photon energy."""

from __future__ import annotations

from collections.abc import Iterable

from ophyd import EpicsMotor

from apsber_bluesky.core import InputError


class Monochromator(EpicsMotor):
    """A monochromator whose energy is a motor record [keV]."""

    @property
    def energy_keV(self) -> float:
        """Photon energy now [keV]."""
        return float(self.position)

    def check(self, energies_keV: Iterable[float]) -> None:
        """Refuse energies that it cannot reach.

        Raises
        ------
        InputError
            If one lies outside its limits; the message names it.
        """
        low, high = self.limits
        for energy in energies_keV:
            if low < high and not low <= energy <= high:
                raise InputError(
                    f"{self.name} cannot go to {energy:g} keV; its limits are {low:g} to"
                    f" {high:g} keV"
                )
