"""Filters that are put into the beam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.status import AndStatus, Status, SubscriptionStatus

from apsber_bluesky.core import InputError

_STATES = {"in": "In", "out": "Out"}


class Filter(Device):
    """One filter: ``bps.mv(filter, "in")`` waits until it says that it is in."""

    command = Cpt(EpicsSignal, "Command", string=True, kind="omitted")
    state = Cpt(EpicsSignalRO, "Status_RBV", string=True, kind="normal")
    material = Cpt(EpicsSignalRO, "Material_RBV", string=True, kind="config")
    thickness_um = Cpt(EpicsSignalRO, "Thickness_RBV", kind="config")

    #: How long it may take [s].
    timeout_s = 10.0

    def set(self, value: Literal["in", "out"]) -> Status:
        """Put it in or take it out.

        Raises
        ------
        InputError
            If `value` is neither ``in`` nor ``out``.
        """
        if value not in _STATES:
            raise InputError(f"{self.name} can be set to 'in' or 'out', not {value!r}")
        moved = SubscriptionStatus(
            self.state,
            lambda *, value, wanted=_STATES[value], **_: value == wanted,
            timeout=self.timeout_s,
        )
        self.command.put(_STATES[value])
        return moved


class Filters(Device):
    """Three filters; ``bps.mv(filters, [1, 3])`` puts these two in and takes the other out.

    Other numbers of filters: a subclass with more components named ``filter<number>``.
    """

    filter1 = Cpt(Filter, "1:", kind="normal")
    filter2 = Cpt(Filter, "2:", kind="normal")
    filter3 = Cpt(Filter, "3:", kind="normal")
    transmission = Cpt(EpicsSignalRO, "Transmission_RBV", kind="hinted")

    @property
    def numbers(self) -> list[int]:
        """Numbers of the filters that there are."""
        names = (name for name in self.component_names if name.startswith("filter"))
        return sorted(int(name.removeprefix("filter")) for name in names)

    def set(self, numbers: Iterable[int]) -> Status:
        """Put filters in, and take all others out.

        Parameters
        ----------
        numbers : iterable of int
            Those that shall be in, from 1.

        Raises
        ------
        InputError
            If there is no such filter.
        """
        wanted = set(numbers)
        if unknown := wanted - set(self.numbers):
            raise InputError(f"{self.name} has no filter {unknown}; it has {self.numbers}")
        moved: Status | None = None
        for number in self.numbers:
            one = getattr(self, f"filter{number}").set("in" if number in wanted else "out")
            moved = one if moved is None else AndStatus(moved, one)
        if moved is None:
            raise InputError(f"{self.name} has no filters at all")
        return moved
