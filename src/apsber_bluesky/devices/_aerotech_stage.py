"""A rotation stage on an Aerotech controller."""

from __future__ import annotations

from typing import Any, Literal

from ophyd import FormattedComponent as FCpt

from apsber_bluesky.devices._pulse_output import AerotechPso
from apsber_bluesky.devices._rotation import RotationStage


class _Pso(AerotechPso):
    """The PSO of the stage that it is part of, which knows axis and encoder."""

    def __init__(self, prefix: str, *, name: str, parent: AerotechRotation, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, parent=parent, **parent._encoder, **kwargs)  # noqa: SLF001


class AerotechRotation(RotationStage):
    """A rotation stage whose pulses come from the PSO of an Aerotech Ensemble or A3200.

    Parameters
    ----------
    prefix : str
        PV prefix; the motor record is ``<prefix>m1``. The asyn record that the controller is
        spoken to through is ``<pso>PSOCommand``.
    name : str
        Name in the documents.
    pso : str, optional
        PV prefix of the asyn record; `prefix` if not given.
    axis : str
        Axis as the controller calls it, e.g. ``"X"`` or ``"@0"``.
    counts_per_turn : float
        Encoder counts of a full turn; negative if they fall while the angle rises.
    model : {"ensemble", "a3200"}
        Controller.
    encoder_input : int
        Which encoder counts.
    **kwargs
        Further arguments of `RotationStage`, e.g. ``labels``.
    """

    pso = FCpt(_Pso, "{_pso_prefix}", kind="config")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        pso: str | None = None,
        axis: str = "X",
        counts_per_turn: float = 11_840_000.0,
        model: Literal["ensemble", "a3200"] = "ensemble",
        encoder_input: int = 3,
        **kwargs: Any,
    ) -> None:
        self._pso_prefix = prefix if pso is None else pso
        self._encoder: dict[str, Any] = {
            "axis": axis,
            "counts_per_turn": counts_per_turn,
            "model": model,
            "encoder_input": encoder_input,
        }
        super().__init__(prefix, name=name, **kwargs)
