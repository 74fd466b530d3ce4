"""Slices of the volume that are looked at while the scan runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from apsber_bluesky.core._settings import Settings

#: Planes of a volume (z, y, x), by the axes that span them.
PLANES = ("xy", "xz", "yz")


class LiveSliceSettings(Settings):
    """Three slices of the volume, shown while the scan runs.

    Attributes
    ----------
    hz : float
        How often they are shown at most [Hz]; 0 switches them off.
    binning : int or "auto"
        Edge of the blocks of pixels that are averaged first; ``auto`` takes what keeps pace.
    z, y, x : int or "auto"
        Where the slices lie in the volume [pixel]; ``auto`` is the middle.
    """

    hz: float = Field(default=2.0, ge=0, le=20)
    binning: PositiveInt | Literal["auto"] = "auto"
    z: NonNegativeInt | Literal["auto"] = "auto"
    y: NonNegativeInt | Literal["auto"] = "auto"
    x: NonNegativeInt | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class LiveView:
    """The slices at one moment.

    Attributes
    ----------
    run_uid : str
        The run.
    planes : dict of str to ndarray of float32
        ``xy``, ``xz`` and ``yz`` [1/pixel of the detector], binned.
    used, dropped, total : int
        Projections that are in it, that were left out to keep pace, and of the whole scan.
    centre_px : float
        Rotation centre that it was made with, in the detector's frame [pixel].
    centre_from : {"profile", "last run", "middle of the frame"}
        Where that comes from.
    binning : int
        Edge of the blocks of pixels.
    window_deg : float
        Angle that it looks back over; 0 for the whole scan [deg].
    latency_s : float
        Time since the newest projection in it was announced [s].
    """

    run_uid: str
    planes: dict[str, NDArray[np.float32]]
    used: int
    dropped: int
    total: int
    centre_px: float
    centre_from: str
    binning: int
    window_deg: float
    latency_s: float

    def details(self) -> dict[str, Any]:
        """All but the pictures, as plain values."""
        names = ("used", "dropped", "total", "centre_px", "centre_from", "binning", "window_deg")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return {**values, "latency_s": round(self.latency_s, 4)}
