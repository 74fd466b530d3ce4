"""The position-synchronised output of an Aerotech controller, as it is spoken to in commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._motor import MotorRecord
from apsber_bluesky.simulation._pulses import Pulse, PulseTrain
from apsber_bluesky.simulation._trajectory import Trajectory

COUNTS_PER_TURN = 11_840_000
"""Encoder counts of a full turn."""

_DONE, _UNKNOWN, _REFUSED = "%", "!", "#"
_COUNT = r"([+-]?[0-9]{1,12})"
_NUMBER = r"[0-9.eE+-]{1,20}"
_AXIS = r"[A-Z@][A-Z0-9_]{0,9}"


class AerotechController:
    """``rot:PSOCommand``: the moving axis triggers the camera as commands have laid down.

    Parameters
    ----------
    prefix : str
        PV prefix of the asyn record, e.g. ``"S123:rot:"``.
    axis : MotorRecord
        The axis whose encoder counts.
    trigger : callable
        Called with the pulses of each stretch of motion.
    """

    def __init__(
        self, prefix: str, axis: MotorRecord, trigger: Callable[[list[Pulse]], None]
    ) -> None:
        self._axis, self._trigger = axis, trigger
        self._order = ca.long_text()
        self._answer = ca.read_only(ca.long_text(_DONE))
        self.channels: dict[str, Any] = {
            f"{prefix}PSOCommand.BOUT": self._order,
            f"{prefix}PSOCommand.BINP": self._answer,
        }
        self._order.on_put = self._put
        self._commands: tuple[tuple[str, Callable[..., str]], ...] = (
            (rf"PSOCONTROL {_AXIS} (ARM|OFF|RESET)", self._control),
            (rf"PSODISTANCE {_AXIS} FIXED {_COUNT}", self._distance),
            (rf"PSOWINDOW {_AXIS} 1 RANGE {_COUNT},{_COUNT}", self._range),
            (rf"PSOWINDOW {_AXIS} (?:1 )?OFF", self._no_window),
            (rf"PSOWINDOW {_AXIS} 1 INPUT [0-9]", self._accept),
            (rf"PSOTRACK {_AXIS} INPUT [0-9]", self._accept),
            (rf"PSOOUTPUT {_AXIS} CONTROL (?:0 )?1", self._accept),
            (rf"PSOOUTPUT {_AXIS} PULSE WINDOW MASK", self._accept),
            (rf"PSOPULSE {_AXIS} TIME {_NUMBER},{_NUMBER}", self._accept),
        )
        self._step = 0
        self._window: tuple[int, int] | None = None
        self._train: PulseTrain | None = None
        axis.listeners.append(self._moved)

    async def _put(self, value: Any) -> None:
        await self._answer.post(self.obey(str(value).strip()))

    def obey(self, words: str) -> str:
        """Do what a command says; the controller's answer."""
        for pattern, action in self._commands:
            match = re.fullmatch(pattern, words)
            if match is not None:
                return action(*match.groups())
        return _UNKNOWN

    def _accept(self) -> str:
        """What it says is as it is in the simulated controller."""
        return _DONE

    def _distance(self, counts: str) -> str:
        self._step = int(counts)
        return _DONE if self._step > 0 else _REFUSED

    def _range(self, low: str, high: str) -> str:
        if int(low) >= int(high):
            return _REFUSED
        self._window = int(low), int(high)
        return _DONE

    def _no_window(self) -> str:
        self._window = None
        return _DONE

    def _control(self, what: str) -> str:
        now = self._axis.advance()
        self._train = None
        if what != "ARM":
            return _DONE
        if self._window is None or self._step <= 0:
            return _REFUSED
        low, high = self._window
        sign = 1 if high >= -low else -1
        far = high if sign > 0 else -low
        if far < 0:
            return _REFUSED
        degrees = 360.0 / COUNTS_PER_TURN
        count = far // self._step + 1
        self._train = PulseTrain(self._axis.position(now), sign * self._step * degrees, count)
        return _DONE

    def _moved(self, path: Trajectory, since_s: float, until_s: float) -> None:
        if self._train is None or self._train.finished:
            return
        pulses = self._train.advance(path, since_s, until_s)
        if pulses:
            self._trigger(pulses)
