"""Settings of the simulated beamline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from apsber_bluesky.core._settings import FolderPath, Settings


class SimulationSettings(Settings):
    """The simulated beamline; its presence in a profile makes the session start one.

    Attributes
    ----------
    phantom : str
        Name of the phantom in the beam (see ``apsber_bluesky.simulation.PHANTOMS``).
    data : Path or None
        Recorded scan (DXchange or NXtomo) to replay instead of the phantom.
    rows, columns : int
        Camera size [pixel]; a recorded scan overrides it.
    seed : int
        Seed of all noise: equal seeds give equal frames.
    pixel_size_um : float
        Pixel size at the sample [um].
    flat_counts, dark_counts, read_noise_counts : float
        Open-beam signal, dark level and read noise [counts].
    dead_pixel_fraction, stripe_strength : float
        Part of the pixels that do not respond; relative spread of column gains (rings).
    gain_change : float
        Relative spread by which column gains have changed since the flats; no flat takes the rings
        of that away.
    beam_swing : float
        Relative amplitude of a slow swing of the beam, whose period is 1000 frames.
    drift_px : float
        How far the sample creeps towards higher columns in each half turn [pixel].
    centre_offset_px : float
        Distance of the rotation axis from the middle of the camera [pixel].
    axis_roll_deg : float
        Lean of the rotation axis in the plane of the camera [deg].
    energy_keV : float
        Photon energy at which the phantom attenuates as it is defined [keV].
    material : str
        Chemical formula that the phantom's attenuation follows when the energy changes.
    detectors : list of str
        Detectors that the beamline has besides its camera: ``eiger`` (an EIGER2), ``eiger1``,
        ``jungfrau``, ``vortex``, and ``vortex_mca``, the same detector behind older electronics.
    """

    phantom: str = "shepp_logan"
    data: FolderPath | None = None
    rows: PositiveInt = 256
    columns: PositiveInt = 256
    seed: NonNegativeInt = 1
    pixel_size_um: PositiveFloat = 5.0
    flat_counts: PositiveFloat = 40000.0
    dark_counts: NonNegativeFloat = 100.0
    read_noise_counts: NonNegativeFloat = 3.0
    dead_pixel_fraction: float = Field(default=2e-4, ge=0, lt=0.5)
    stripe_strength: float = Field(default=0.01, ge=0, lt=0.5)
    gain_change: float = Field(default=0.0, ge=0, lt=0.5)
    beam_swing: float = Field(default=0.0, ge=0, lt=1)
    drift_px: float = 0.0
    centre_offset_px: float = 3.25
    axis_roll_deg: float = Field(default=0.0, ge=-10, le=10)
    energy_keV: float = Field(default=20.0, ge=4, le=120)
    material: str = "SiO2"
    detectors: list[Literal["eiger", "eiger1", "jungfrau", "vortex", "vortex_mca"]] = Field(
        default_factory=list
    )
