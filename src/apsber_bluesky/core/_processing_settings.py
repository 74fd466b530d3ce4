"""Settings of what is made of frames: reconstruction, energies, quality."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from apsber_bluesky.core._hit_settings import HitSettings
from apsber_bluesky.core._learned_settings import (
    DenoiseSettings,
    InferenceSettings,
    SegmentSettings,
)
from apsber_bluesky.core._live_slices import LiveSliceSettings
from apsber_bluesky.core._settings import FolderPath, Settings


class JungfrauSettings(Settings):
    """Calibration of a Jungfrau.

    Attributes
    ----------
    gain_file : Path
        File with the gains (see ``apsber_bluesky.processing.read_jungfrau_map``); series of a
        Jungfrau become energies with them and the pedestals that their plan found.
    pedestal_file : Path or None
        File with pedestals; with it tomography scans are reconstructed from energies.
    """

    gain_file: FolderPath
    pedestal_file: FolderPath | None = None


class PhaseSettings(Settings):
    """Phase retrieval; its presence makes projections be filtered for it.

    Attributes
    ----------
    delta_over_beta : float
        Decrement of the refractive index over its imaginary part, of the sample's material.
    energy_keV, distance_mm : float or None
        Photon energy [keV] and distance from sample to detector [mm]; None takes what the scan
        says.
    """

    delta_over_beta: PositiveFloat
    energy_keV: PositiveFloat | None = None
    distance_mm: PositiveFloat | None = None


class ProcessingSettings(Settings):
    """From frames to a volume.

    Attributes
    ----------
    engine : str
        Reconstruction engine; ``auto`` takes the best present.
    filter : str
        Window of the ramp filter.
    centre : float or "auto"
        Rotation centre [pixel], or find it.
    chunk_projections : int
        Projections per chunk.
    slab_slices : int
        Slices per slab; at least 16 for each processor, for engines work on 16 together.
    flats : {"average", "interpolate"}
        Whether flats from before and after a scan are averaged, or interpolated in time.
    zingers : float or None
        How far below its neighbours' median a line integral may lie; None leaves all as they are.
    stripes : {"none", "sorting", "wavelet"}
        How stripes of sinograms are removed.
    phase : PhaseSettings or None
        Phase retrieval.
    saturation_counts : float or None
        Counts of a saturated pixel; None takes the largest number that a pixel can hold.
    extend_edges : bool
        Whether rows are continued beyond the view, for a sample that is wider than it.
    live_slices : LiveSliceSettings
        Slices that are shown while the scan runs.
    jungfrau : JungfrauSettings or None
        Calibration that turns raw frames into energies, if the detector is a Jungfrau.
    models : Path or None
        Folder of the beamline's own models, which are found by name before those of the suite.
    denoise : DenoiseSettings or None
        Denoising of the volume by a network.
    segment : SegmentSettings or None
        Segmentation of the volume by a network.
    """

    engine: str = "auto"
    filter: Literal["ramp", "shepp", "hann", "parzen"] = "ramp"
    centre: float | Literal["auto"] = "auto"
    chunk_projections: PositiveInt = 32
    slab_slices: PositiveInt = 64
    flats: Literal["average", "interpolate"] = "average"
    zingers: PositiveFloat | None = None
    stripes: Literal["none", "sorting", "wavelet"] = "none"
    phase: PhaseSettings | None = None
    saturation_counts: PositiveFloat | None = None
    extend_edges: bool = False
    live_slices: LiveSliceSettings = LiveSliceSettings()
    jungfrau: JungfrauSettings | None = None
    models: FolderPath | None = None
    denoise: DenoiseSettings | None = None
    segment: SegmentSettings | None = None


class Limits(Settings):
    """Limits of one quality number; ``fail < warn`` means that more is better."""

    warn: float
    fail: float


class AnalysisSettings(Settings):
    """Quality control.

    Attributes
    ----------
    limits : dict of str to Limits
        Limits by name of the quality number; those not named keep their defaults.
    inference : list of InferenceSettings
        Other models that are run.
    hits : HitSettings or None
        Search for Bragg peaks in the frames of crystallography and scattering, while they come.
    """

    limits: dict[str, Limits] = Field(default_factory=dict)
    inference: list[InferenceSettings] = Field(default_factory=list)
    hits: HitSettings | None = None
