"""What a tomography scan is: the description that travels from the plan to the NeXus record."""

from __future__ import annotations

import math
from typing import Any, Literal, Self, get_args

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

#: Bluesky stream with one event per capture of a scan that turns on and on: ``capture_first`` and
#: ``capture_end`` (excluded), numbers of projections.
CAPTURE_STREAM = "captures"

#: What a run measures (start-document key ``technique``).
Technique = Literal["tomography", "fluorescence", "scattering", "crystallography", "detector"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)


#: Part of the golden section that is less than 1.
_GOLDEN = (math.sqrt(5) - 1) / 2


def golden_fractions(turns: NDArray[np.int_]) -> NDArray[np.float64]:
    """How far each turn of an interlaced scan is shifted, as a part of the step of its angles.

    The multiples of the golden section modulo 1: T. Koehler, IEEE Nuclear Science Symposium (2004)
    3961-3965, for whole angles; here within the step of a turn, so that a stage can fly each turn
    with equally spaced pulses. Views of a changing sample are interlaced so by A. P. Kaestner et
    al., Opt. Eng. 50 (2011) 123201, and K. A. Mohan et al., IEEE Trans. Comput. Imaging 1 (2015)
    96-111.

    Parameters
    ----------
    turns : ndarray of int
        Numbers of the turns, from 0.

    Returns
    -------
    ndarray of float64
        In [0, 1), of the shape of `turns`.
    """
    fractions: NDArray[np.float64] = np.mod(turns * _GOLDEN, 1.0)
    return fractions


class TomographyScan(BaseModel):
    """Geometry and conditions of one tomography scan (start-document key ``tomography``).

    Attributes
    ----------
    rotation_start_deg, rotation_stop_deg : float
        Angular range [deg]; the stop angle itself is not exposed, as is usual for 0 to 180.
    num_projections, num_flats, num_darks : int
        Frames of each kind; of an interlaced scan the most projections that it may take.
    interlaced_turns : int
        How often the range is gone through. Turn ``b`` takes ``num_projections / interlaced_turns``
        equally spaced angles, shifted against those of the first turn by the fraction
        ``frac(b / golden ratio)`` of their step. After any number of turns the angles are spread
        almost evenly: their gaps have at most three lengths.
    capture_projections : int or None
        Projections of one capture, of a scan that turns on until it is ended; ``num_projections``
        is then the most that it may take. None if all of them are one scan.
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
    interlaced_turns: PositiveInt = 1
    capture_projections: PositiveInt | None = None
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

    @model_validator(mode="after")
    def _turns_are_alike(self) -> Self:
        if self.num_projections % self.interlaced_turns:
            raise ValueError(
                f"{self.num_projections} projections cannot be divided among"
                f" {self.interlaced_turns} turns; give a multiple of interlaced_turns"
            )
        return self

    @property
    def least_projections(self) -> int:
        """Projections that there are to be at least; fewer than all if it may be ended before."""
        return min(self.projections_per_turn, self.capture_projections or self.num_projections)

    def capture(self, start: int, stop: int) -> TomographyScan:
        """Projections `start` to `stop` (excluded) as a scan of its own."""
        return self.model_copy(
            update={
                "rotation_start_deg": self.rotation_start_deg + start * self.step_deg,
                "rotation_stop_deg": self.rotation_start_deg + stop * self.step_deg,
                "num_projections": stop - start,
                "capture_projections": None,
            }
        )

    @property
    def projections_per_turn(self) -> int:
        """Projections of each time that the range is gone through."""
        return self.num_projections // self.interlaced_turns

    @property
    def step_deg(self) -> float:
        """Angle from one projection to the next of the same turn [deg]."""
        return (self.rotation_stop_deg - self.rotation_start_deg) / self.projections_per_turn

    @property
    def angles_deg(self) -> NDArray[np.float64]:
        """Angle of each projection, shape ``(num_projections,)`` [deg]."""
        return self.first_angles_deg(self.num_projections)

    def first_angles_deg(self, count: int) -> NDArray[np.float64]:
        """Angle of each of the first `count` projections, shape ``(count,)`` [deg].

        A scan that turns on behind its last projection would take those beyond it so.
        """
        places = np.arange(count)
        turns, steps = np.divmod(places, self.projections_per_turn)
        if self.interlaced_turns == 1:
            turns, steps = np.zeros_like(places), places
        angles: NDArray[np.float64] = self.rotation_start_deg + self.step_deg * (
            steps + golden_fractions(turns)
        )
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
    technique : str
        What is measured; see `TECHNIQUES`.
    detectors : tuple of str
        Names of the detectors; the first is that of the images of a tomography scan.
    tomography : TomographyScan or None
        What is scanned; None unless the technique is tomography.
    conditions : dict
        What else the technique's plan said of the run, under the technique's name in the start
        document, as plain JSON values; empty for tomography.
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
    technique: Technique = "tomography"
    detectors: tuple[str, ...] = ()
    tomography: TomographyScan | None = None
    conditions: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _scan_is_tomography(cls, values: Any) -> Any:
        # What ledgers of earlier versions call it.
        if isinstance(values, dict) and "scan" in values:
            values = dict(values)
            values["tomography"] = values.pop("scan")
        return values

    @model_validator(mode="after")
    def _tomography_has_a_scan(self) -> Self:
        if self.technique == "tomography" and self.tomography is None:
            raise ValueError("a tomography run needs a description of its scan")
        return self

    @property
    def scan(self) -> TomographyScan:
        """What is scanned.

        Raises
        ------
        InputError
            If the run is no tomography scan.
        """
        if self.tomography is None:
            raise InputError(f"run {self.uid} ({self.technique}) is no tomography scan")
        return self.tomography

    @classmethod
    def from_start(cls, start: dict[str, Any]) -> Self:
        """Take the description out of a Bluesky start document.

        Parameters
        ----------
        start : dict
            Start document with a key ``technique`` or ``tomography``, as the plans write it.

        Raises
        ------
        InputError
            If ``tomography`` does not describe a scan, or there is no such technique; the message
            names each wrong value.
        """
        technique = start.get("technique", "tomography")
        if technique not in TECHNIQUES:
            raise InputError(
                f"key 'technique' of the start document is {technique!r}; give one of"
                f" {', '.join(TECHNIQUES)}"
            )
        scan = _scan_of(start) if technique == "tomography" else None
        conditions = start.get(technique) if scan is None else None
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
            technique=technique,
            detectors=tuple(str(name) for name in start.get("detectors", ())),
            tomography=scan,
            conditions=dict(conditions) if isinstance(conditions, dict) else {},
        )


def describes_run(start: dict[str, Any]) -> bool:
    """Whether a start document is of a run that the suite processes."""
    return "tomography" in start or "technique" in start


def _scan_of(start: dict[str, Any]) -> TomographyScan:
    try:
        return TomographyScan.model_validate(start.get("tomography"))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'scan'} is {e['input']!r}: {e['msg']}"
            for e in error.errors()
        )
        raise InputError(
            f"key 'tomography' of the start document is no scan: {problems}; leave the key to"
            " the tomography plans"
        ) from None
