"""Position-synchronised output: one contract, for a generic generator and for Aerotech's PSO."""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol, runtime_checkable

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO

from apsber_bluesky.core import InputError, PlanError
from apsber_bluesky.devices._safe_state import SafePut

_TIMEOUT_S: Final = 10.0


@runtime_checkable
class PulseSource(Protocol):
    """What a rotation stage asks of whatever gives its pulses.

    Attributes
    ----------
    arms_at_start : bool
        Whether the axis has to stand at the first pulse when the pulses are armed; it moves back
        for its run-up afterwards. Otherwise it may stand anywhere before the first.
    """

    arms_at_start: bool

    def check(self, step_deg: float, num_pulses: int) -> None:
        """Refuse pulses that it cannot give, with `InputError`."""
        ...

    def arm_pulses(self, start_deg: float, step_deg: float, num_pulses: int) -> None:
        """Give a pulse at ``start + i * step`` for each i, in the direction of the step; blocks."""
        ...

    def disarm(self) -> None:
        """Give no more pulses; blocks, and is harmless when nothing is armed."""
        ...


class PulseGenerator(Device):
    """A generator with records for start, distance and number of pulses; a `PulseSource`."""

    start = Cpt(EpicsSignal, "Start", kind="config")
    delta = Cpt(EpicsSignal, "Delta", kind="config")
    num_pulses = Cpt(EpicsSignal, "NumPulses", kind="config")
    arm = Cpt(EpicsSignal, "Arm", kind="omitted")
    armed = Cpt(EpicsSignalRO, "Armed_RBV", kind="omitted")
    pulses = Cpt(EpicsSignalRO, "Pulses_RBV", kind="omitted")
    message = Cpt(EpicsSignalRO, "Message_RBV", string=True, kind="omitted")

    arms_at_start = False

    def check(self, step_deg: float, num_pulses: int) -> None:
        """Any step and number will do; `arm_pulses` tells what the generator itself refuses."""

    def arm_pulses(self, start_deg: float, step_deg: float, num_pulses: int) -> None:
        """Arm the generator.

        Parameters
        ----------
        start_deg, step_deg : float
            Angle of the first pulse, and between pulses [deg].
        num_pulses : int
            Pulses to give.

        Raises
        ------
        PlanError
            If it refuses; the message is its own.
        """
        self.arm.put(0, wait=True)
        self.start.put(start_deg, wait=True)
        self.delta.put(step_deg, wait=True)
        self.num_pulses.put(num_pulses, wait=True)
        self.arm.put(1, wait=True)
        # Asked for, not monitored: the put is complete, its monitor may be on the way.
        if not self.armed.get(use_monitor=False):
            words = self.message.get(use_monitor=False)
            raise PlanError(f"{self.name} cannot be armed: {words or 'it does not say why'}")

    def disarm(self) -> None:
        """Give no more pulses."""
        self.arm.put(0, wait=True)

    def safe_puts(self) -> list[SafePut]:
        """Give no more pulses."""
        return [(self.arm.setpoint_pvname, 0)]


class AerotechPso(Device):
    """The PSO of an Aerotech Ensemble or A3200, spoken to through an asyn record.

    The controller has no records for pulses; it takes commands. Angles become encoder counts, and
    the window of angles counts from where the axis stands when it is armed, which therefore has to
    be the first pulse. A `PulseSource`.

    Parameters
    ----------
    prefix : str
        PV prefix; the asyn record is ``<prefix>PSOCommand``.
    name : str
        Name in the documents.
    axis : str
        Axis as the controller calls it, e.g. ``"X"`` or ``"@0"``.
    counts_per_turn : float
        Encoder counts of a full turn; negative if they fall while the angle rises.
    model : {"ensemble", "a3200"}
        Controller; their commands differ a little.
    encoder_input : int
        Which encoder counts; 3 is the multiplied one of an Ensemble.
    pulse_us : float
        Width of a pulse [us].
    **kwargs
        Further arguments of `ophyd.Device`.
    """

    command = Cpt(EpicsSignal, "PSOCommand.BOUT", string=True, kind="omitted")
    reply = Cpt(EpicsSignalRO, "PSOCommand.BINP", string=True, kind="omitted")

    arms_at_start = True

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        axis: str = "X",
        counts_per_turn: float = 11_840_000.0,
        model: Literal["ensemble", "a3200"] = "ensemble",
        encoder_input: int = 3,
        pulse_us: float = 20.0,
        **kwargs: Any,
    ) -> None:
        if not axis or not all(c.isalnum() or c in "@_" for c in axis):
            raise InputError(f"{name}: axis {axis!r} is no name of an Aerotech axis")
        if model not in ("ensemble", "a3200") or counts_per_turn == 0:
            raise InputError(
                f"{name}: model {model!r} with {counts_per_turn} counts per turn; give 'ensemble'"
                " or 'a3200', and counts other than 0"
            )
        super().__init__(prefix, name=name, **kwargs)
        self._axis, self._model, self._input = axis, model, encoder_input
        self.counts_per_turn = counts_per_turn
        self._pulse_us = pulse_us

    def _send(self, words: str) -> None:
        self.command.put(words, wait=True, timeout=_TIMEOUT_S)
        answer = str(self.reply.get(use_monitor=False))
        # The controllers answer % to what they did, and !, # or $ to what they did not.
        if answer and not answer.startswith("%"):
            raise PlanError(f"{self.name}: the controller answered {answer!r} to {words!r}")

    def _counts(self, step_deg: float) -> float:
        return step_deg * self.counts_per_turn / 360.0

    def check(self, step_deg: float, num_pulses: int) -> None:
        """Refuse steps that whole encoder counts do not follow to the last pulse.

        Raises
        ------
        InputError
            If the last pulse would be off by a tenth of a step or more, or there is none.
        """
        counts = self._counts(step_deg)
        if num_pulses < 1:
            raise InputError(f"{self.name} cannot give {num_pulses} pulses; give 1 or more")
        if round(counts) == 0 or abs(counts - round(counts)) * (num_pulses - 1) > 0.1 * abs(counts):
            nearest = max(abs(round(counts)), 1) * 360.0 / abs(self.counts_per_turn)
            raise InputError(
                f"{self.name}: {num_pulses} steps of {step_deg:.6g} deg are no whole encoder"
                f" counts each ({counts:.4f}), and the last would be off by more than a tenth of a"
                f" step; take steps of {nearest:.9g} deg"
            )

    def arm_pulses(self, start_deg: float, step_deg: float, num_pulses: int) -> None:
        """Arm the output where the axis stands now, which is the first pulse.

        Parameters
        ----------
        start_deg, step_deg : float
            Angle of the first pulse, and between pulses [deg].
        num_pulses : int
            Pulses to give.

        Raises
        ------
        InputError
            If whole encoder counts do not follow the steps.
        PlanError
            If the controller refuses.
        """
        self.check(step_deg, num_pulses)
        step = round(self._counts(step_deg))
        half = abs(step) // 2
        far = abs(step) * (num_pulses - 1) + half
        low, high = (-half, far) if step > 0 else (-far, half)
        axis, source = self._axis, self._input
        output = "CONTROL 1" if self._model == "ensemble" else "CONTROL 0 1"
        for words in (
            f"PSOCONTROL {axis} RESET",
            f"PSOOUTPUT {axis} {output}",
            f"PSOPULSE {axis} TIME {self._pulse_us:g},{self._pulse_us:g}",
            f"PSOOUTPUT {axis} PULSE WINDOW MASK",
            f"PSOTRACK {axis} INPUT {source}",
            f"PSODISTANCE {axis} FIXED {abs(step)}",
            f"PSOWINDOW {axis} 1 INPUT {source}",
            f"PSOWINDOW {axis} 1 RANGE {low},{high}",
            f"PSOCONTROL {axis} ARM",
        ):
            self._send(words)

    def safe_puts(self) -> list[SafePut]:
        """Give no more pulses."""
        return [(self.command.setpoint_pvname, f"PSOCONTROL {self._axis} OFF")]

    def disarm(self) -> None:
        """Give no more pulses."""
        window = "OFF" if self._model == "ensemble" else "1 OFF"
        self._send(f"PSOWINDOW {self._axis} {window}")
        self._send(f"PSOCONTROL {self._axis} OFF")
