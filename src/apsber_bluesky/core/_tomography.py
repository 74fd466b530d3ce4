"""What a tomography scan is: the description that travels from the plan to the NeXus record."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from apsber_bluesky.core._errors import InputError

#: Proposal of runs that name none.
DEFAULT_PROPOSAL = "commissioning"


class TomographyScan(BaseModel):
    """Geometry and conditions of one tomography scan (start-document key ``tomography``).

    Attributes
    ----------
    rotation_start_deg, rotation_stop_deg : float
        Angular range [deg]; the stop angle itself is not exposed, as is usual for 0 to 180.
    num_projections, num_flats, num_darks : int
        Frames of each kind.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the pixels.
    exposure_s : float
        Exposure time of one frame [s].
    pixel_size_um : float or None
        Size of a detector pixel at the sample [um]; None when nobody measured it, and then
        attenuation stays in 1/pixel.
    energy_keV, sample_detector_distance_mm : float or None
        Photon energy [keV] and propagation distance [mm].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotation_start_deg: float = 0.0
    rotation_stop_deg: float = 180.0
    num_projections: PositiveInt
    num_flats: int = Field(default=0, ge=0)
    num_darks: int = Field(default=0, ge=0)
    rows: PositiveInt
    columns: PositiveInt
    dtype: str
    exposure_s: PositiveFloat
    pixel_size_um: PositiveFloat | None = None
    energy_keV: PositiveFloat | None = None
    sample_detector_distance_mm: PositiveFloat | None = None

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if not math.isfinite(self.rotation_start_deg) or not math.isfinite(self.rotation_stop_deg):
            raise ValueError("rotation_start_deg and rotation_stop_deg must be finite")
        if self.rotation_start_deg == self.rotation_stop_deg:
            raise ValueError(
                f"rotation_start_deg and rotation_stop_deg are both {self.rotation_start_deg}; "
                "give two different angles"
            )
        return self

    @property
    def step_deg(self) -> float:
        """Angle between projections [deg]."""
        return (self.rotation_stop_deg - self.rotation_start_deg) / self.num_projections

    @property
    def angles_deg(self) -> NDArray[np.float64]:
        """Angle of each projection, shape ``(num_projections,)`` [deg]."""
        steps = np.arange(self.num_projections, dtype=np.float64)
        angles: NDArray[np.float64] = self.rotation_start_deg + self.step_deg * steps
        return angles


class RunDescription(BaseModel):
    """A run as the processing side knows it: taken from the start document.

    Attributes
    ----------
    uid : str
        Bluesky run uid.
    scan_id : int
        Short number for people.
    plan_name, sample, proposal, beamline_id, instrument_name : str
        As in the start document; the proposal names the folder of the run.
    start_time_s : float
        Unix time at which the run opened [s].
    flat_mode : str
        When flats were taken: ``start``, ``end``, ``both`` (half of them each) or ``none``; empty
        if the start document does not say.
    scan : TomographyScan
        What is scanned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: str
    scan_id: int = 0
    plan_name: str = ""
    sample: str = ""
    proposal: str = DEFAULT_PROPOSAL
    beamline_id: str = ""
    instrument_name: str = ""
    start_time_s: float = 0.0
    flat_mode: str = ""
    scan: TomographyScan

    @classmethod
    def from_start(cls, start: dict[str, Any]) -> Self:
        """Take the description out of a Bluesky start document.

        Parameters
        ----------
        start : dict
            Start document with a ``tomography`` key, as the tomography plans write it.

        Raises
        ------
        InputError
            If ``tomography`` does not describe a scan; the message names each wrong value.
        """
        try:
            scan = TomographyScan.model_validate(start["tomography"])
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'scan'} is {e['input']!r}: {e['msg']}"
                for e in error.errors()
            )
            raise InputError(
                f"key 'tomography' of the start document is no scan: {problems}; leave the key to"
                " the tomography plans"
            ) from None
        references = start.get("reference_frames")
        sample = start.get("sample_name", start.get("sample", ""))
        return cls(
            uid=start["uid"],
            scan_id=int(start.get("scan_id", 0)),
            plan_name=str(start.get("plan_name", "")),
            sample=str(sample.get("name", "") if isinstance(sample, dict) else sample),
            proposal=str(start.get("proposal_id") or DEFAULT_PROPOSAL),
            beamline_id=str(start.get("beamline_id", "")),
            instrument_name=str(start.get("instrument_name", "")),
            start_time_s=float(start.get("time", 0.0)),
            flat_mode=str(references.get("flat_mode", "")) if isinstance(references, dict) else "",
            scan=scan,
        )
