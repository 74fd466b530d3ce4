"""The records of the position-synchronised output."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._motor import MotorRecord
from apsber_bluesky.simulation._pulses import Pulse, PulseTrain
from apsber_bluesky.simulation._trajectory import Trajectory


class PulseOutput:
    """``rot:pso:``: while armed, the moving axis triggers the camera.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:rot:pso:"``.
    axis : MotorRecord
        The axis whose position counts.
    trigger : callable
        Called with the pulses of each stretch of motion.
    """

    def __init__(
        self, prefix: str, axis: MotorRecord, trigger: Callable[[list[Pulse]], None]
    ) -> None:
        self._axis, self._trigger = axis, trigger
        self._train: PulseTrain | None = None
        self._records: dict[str, Any] = {
            "Start": ca.double(0.0, units="deg", precision=6),
            "Delta": ca.double(1.0, units="deg", precision=6),
            "NumPulses": ca.integer(0),
            "Arm": ca.integer(0),
            "Armed_RBV": ca.read_only(ca.integer(0)),
            "Pulses_RBV": ca.read_only(ca.integer(0)),
            "Message_RBV": ca.read_only(ca.text()),
        }
        self.channels = {f"{prefix}{name}": record for name, record in self._records.items()}
        self._records["Arm"].on_put = self._arm
        self._changed = asyncio.Event()
        axis.listeners.append(self._moved)

    def _value(self, name: str) -> Any:
        return self._records[name].value

    def _refusal(self) -> str:
        """Why the output cannot be armed, or nothing."""
        if not math.isfinite(self._value("Start")):
            return "Start is not a number"
        if not math.isfinite(self._value("Delta")) or self._value("Delta") == 0.0:
            return "Delta must not be 0"
        if self._value("NumPulses") < 1:
            return "NumPulses must be at least 1"
        return ""

    async def _arm(self, value: int) -> None:
        self._axis.advance()
        refusal = self._refusal() if value else ""
        armed = bool(value) and not refusal
        self._train = None
        if armed:
            self._train = PulseTrain(
                self._value("Start"), self._value("Delta"), self._value("NumPulses")
            )
            await self._records["Pulses_RBV"].post(0)
        await self._records["Message_RBV"].post(refusal)
        await self._records["Armed_RBV"].post(int(armed))
        await self._records["Arm"].post(int(armed))

    def _moved(self, path: Trajectory, since_s: float, until_s: float) -> None:
        train = self._train
        if train is None or train.finished:
            return
        pulses = train.advance(path, since_s, until_s)
        if pulses:
            self._trigger(pulses)
            self._changed.set()

    async def run(self) -> None:
        """Publish how many pulses were given; ends when cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            train = self._train
            if train is None:
                continue
            await self._records["Pulses_RBV"].post(train.fired)
            if train.finished:
                await self._records["Arm"].post(0)
                await self._records["Armed_RBV"].post(0)
