"""What stands around the sample: shutter, sample axis, storage ring."""

from __future__ import annotations

import contextlib
from typing import Literal

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.status import Status, SubscriptionStatus
from ophyd.utils.errors import InvalidState

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._safe_state import SafePut
from apsber_bluesky.devices._watched_motor import WatchedMotor

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

    _opening: Status | None = None

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
        self._opening = moved if value == "open" else None
        self.command.put(_COMMANDS[value])
        return moved

    def stop(self, *, success: bool = False) -> None:
        """Close: a shutter is safe when it is closed."""
        opening, self._opening = self._opening, None
        self.command.put(_COMMANDS["close"])
        if opening is not None and not opening.done:
            # It will not open now: a failure would be thrown into a plan that was only paused.
            with contextlib.suppress(InvalidState):
                opening.set_finished()
        super().stop(success=success)

    def safe_puts(self) -> list[SafePut]:
        """Close."""
        return [(self.command.setpoint_pvname, _COMMANDS["close"])]


class SampleAxis(WatchedMotor):
    """A linear axis that moves the sample [mm]."""


class StorageRing(Device):
    """The storage ring."""

    current = Cpt(EpicsSignalRO, "Current", kind="hinted")  # [mA]
    permit = Cpt(EpicsSignalRO, "Permit", kind="normal")  # 1 while shutters may be opened
