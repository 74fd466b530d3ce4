"""How far a scan has come, as a device that a plan can read into its run."""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, Signal


class LiveQuality(Device):
    """What a plan heard of its run while it went on; nothing of it is hardware.

    Attributes
    ----------
    turns : Signal
        Turns taken so far.
    projections : Signal
        Projections taken so far.
    relative_error : Signal
        Relative error of the slices made of them; -1 if nobody said.
    converged : Signal
        1 if that is as little as was asked for.
    frames_saved : Signal
        Planned projections that were not taken.
    """

    turns = Cpt(Signal, value=0, kind="normal")
    projections = Cpt(Signal, value=0, kind="normal")
    relative_error = Cpt(Signal, value=-1.0, kind="hinted")
    converged = Cpt(Signal, value=0, kind="normal")
    frames_saved = Cpt(Signal, value=0, kind="normal")

    def __init__(self, *, name: str = "live_quality", **kwargs: Any) -> None:
        super().__init__("", name=name, **kwargs)
