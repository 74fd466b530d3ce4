"""What anybody may ask of a scan that turns on and on: process variables, and what was captured."""

from __future__ import annotations

import threading
from typing import Any, Final

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, Signal

#: What can be asked for, by the name of the signal.
REQUESTS: Final = ("capture", "flats", "darks", "end")


class CaptureRequests(Device):
    """Four commands and two readings of a soft IOC, for any client of the control system.

    Whoever writes 1 to a command asks for it once; the plan writes 0 when it has seen it. They
    need no more than records that keep what is written to them.

    Attributes
    ----------
    capture, flats, darks, end : EpicsSignal
        Keep the projections from some time before until some time after; take flats again; take
        darks again; end the scan.
    count : EpicsSignal
        Captures that are whole.
    state : EpicsSignal
        What the scan is doing.
    """

    capture = Cpt(EpicsSignal, "Capture", kind="omitted")
    flats = Cpt(EpicsSignal, "Flats", kind="omitted")
    darks = Cpt(EpicsSignal, "Darks", kind="omitted")
    end = Cpt(EpicsSignal, "End", kind="omitted")
    count = Cpt(EpicsSignal, "Count", kind="omitted")
    state = Cpt(EpicsSignal, "State", string=True, kind="omitted")

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._listens = False
        self._told: dict[str, Any] = {}

    def begin(self) -> None:
        """Forget what was asked for before the scan, and listen from now on."""
        for name in REQUESTS:
            getattr(self, name).put(0, wait=True)
        self._told.clear()
        with self._lock:
            self._asked.clear()
            if self._listens:
                return
            self._listens = True
        for name in REQUESTS:
            getattr(self, name).subscribe(self._noter(name), run=False)

    def _noter(self, name: str) -> Any:
        # A change is noted when it comes: what is read back may be older than what was written.
        def note(*, value: Any, **_: Any) -> None:
            if value:
                with self._lock:
                    self._asked.append(name)

        return note

    def take(self) -> list[str]:
        """What was asked for since the last call, in order; the commands are reset."""
        with self._lock:
            asked, self._asked = self._asked, []
        for name in set(asked):
            getattr(self, name).put(0, wait=True)
        return asked

    def tell(self, state: str, count: int) -> None:
        """Say what the scan is doing, and how many captures are whole."""
        for signal, value in ((self.state, state), (self.count, count)):
            if self._told.get(signal.name) != value:
                signal.put(value)
                self._told[signal.name] = value


class CaptureReading(Device):
    """One capture, as a device that a plan can read into its run; nothing of it is hardware.

    Attributes
    ----------
    number : Signal
        Number of the capture, from 1.
    first, end : Signal
        Its projections in the stream, `end` excluded.
    asked : Signal
        Projections that there were when it was asked for.
    start_deg : Signal
        Angle of its first projection [deg].
    """

    number = Cpt(Signal, value=0, kind="normal")
    first = Cpt(Signal, value=0, kind="normal")
    end = Cpt(Signal, value=0, kind="normal")
    asked = Cpt(Signal, value=0, kind="normal")
    start_deg = Cpt(Signal, value=0.0, kind="normal")

    def __init__(self, *, name: str = "capture", **kwargs: Any) -> None:
        super().__init__("", name=name, **kwargs)
