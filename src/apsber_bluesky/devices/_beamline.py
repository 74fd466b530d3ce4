"""What stands around the sample: shutter, sample axis, storage ring."""

from __future__ import annotations

from typing import Literal

from ophyd import Component as Cpt
from ophyd import Device, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.status import Status, SubscriptionStatus

from apsber_bluesky.core import InputError

_COMMANDS = {"open": "Open", "close": "Close"}
_STATES = {"open": "Open", "close": "Closed"}


class FastShutter(Device):
    """A shutter that opens and closes in milliseconds.

    ``bps.mv(shutter, "open")`` waits until the shutter says that it is open.
    """

    command = Cpt(EpicsSignal, "Command", string=True, kind="omitted")
    state = Cpt(EpicsSignalRO, "Status_RBV", string=True, kind="hinted")

    #: How long the shutter may take [s].
    timeout_s = 5.0

    def set(self, value: Literal["open", "close"]) -> Status:
        """Open or close.

        Raises
        ------
        InputError
            If `value` is neither ``open`` nor ``close``.
        """
        if value not in _COMMANDS:
            raise InputError(f"{self.name} can be set to 'open' or 'close', not {value!r}")
        moved = SubscriptionStatus(
            self.state,
            lambda *, value, wanted=_STATES[value], **_: value == wanted,
            timeout=self.timeout_s,
        )
        self.command.put(_COMMANDS[value])
        return moved

    def stop(self, *, success: bool = False) -> None:
        """Close: a shutter is safe when it is closed."""
        self.command.put(_COMMANDS["close"])
        super().stop(success=success)


class SampleAxis(EpicsMotor):
    """A linear axis that moves the sample [mm]."""


class StorageRing(Device):
    """The storage ring."""

    current = Cpt(EpicsSignalRO, "Current", kind="hinted")
    permit = Cpt(EpicsSignalRO, "Permit", kind="normal")
