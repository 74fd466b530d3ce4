"""One YAML file per beamline, read into models that forbid unknown keys."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from apsber_bluesky.core._errors import ConfigurationError
from apsber_bluesky.core._live_slices import LiveSliceSettings
from apsber_bluesky.core._run_folder import check_folder_name
from apsber_bluesky.core._settings import FolderPath, Settings
from apsber_bluesky.core._streaming_settings import GatewaySettings, StreamingSettings
from apsber_bluesky.core._tomography import DEFAULT_PROPOSAL

ENVIRONMENT_DATA_ROOT = "APSBER_DATA_ROOT"
_MAXIMUM_PROFILE_BYTES = 1 << 20


class SuspenderSettings(Settings):
    """When plans wait for beam; its presence makes them do so.

    Attributes
    ----------
    storage_ring : str
        Name of the device that knows current and permit.
    ring_current_mA : float or None
        Plans wait below this current [mA]; None leaves the current alone.
    resume_mA : float or None
        They go on above this current [mA]; None for a fifth more.
    permit : bool
        Whether they also wait while shutters may not be opened.
    settle_s : float
        How long beam has to be back before they go on [s].
    """

    storage_ring: str = "storage_ring"
    ring_current_mA: PositiveFloat | None = 50.0
    resume_mA: PositiveFloat | None = None
    permit: bool = True
    settle_s: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _goes_on_above_where_it_waits(self) -> Self:
        waits, goes_on = self.ring_current_mA, self.resume_mA
        if waits is not None and goes_on is not None and goes_on < waits:
            raise ValueError(f"resume_mA is below ring_current_mA, {waits:g}")
        return self


class SessionSettings(Settings):
    """Who and where.

    Attributes
    ----------
    beamline_id, instrument_name, proposal : str
        Default metadata of every run; the proposal names the folder.
    data_root : Path
        Folder that holds ``<proposal>/<run uid>/``. ``APSBER_DATA_ROOT`` overrides the file.
    macros : dict of str to str
        EPICS-style macros: ``$(P)`` in a device prefix is replaced by ``macros["P"]``.
    connection_timeout_s : float
        How long a device may take to connect [s] before it is reported as missing.
    suspenders : SuspenderSettings or None
        When plans wait for beam.
    """

    beamline_id: str
    instrument_name: str
    proposal: str = DEFAULT_PROPOSAL
    data_root: FolderPath = Path("~/apsber_data").expanduser()
    macros: dict[str, str] = Field(default_factory=dict)
    connection_timeout_s: PositiveFloat = 10.0
    suspenders: SuspenderSettings | None = None

    @field_validator("proposal")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        return check_folder_name(value, "proposal")


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
    centre_offset_px: float = 3.25
    axis_roll_deg: float = Field(default=0.0, ge=-10, le=10)
    energy_keV: float = Field(default=20.0, ge=4, le=120)
    material: str = "SiO2"
    detectors: list[Literal["eiger", "eiger1", "jungfrau", "vortex", "vortex_mca"]] = Field(
        default_factory=list
    )


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
    extend_edges : bool
        Whether rows are continued beyond the view, for a sample that is wider than it.
    live_slices : LiveSliceSettings
        Slices that are shown while the scan runs.
    jungfrau : JungfrauSettings or None
        Calibration that turns raw frames into energies, if the detector is a Jungfrau.
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
    extend_edges: bool = False
    live_slices: LiveSliceSettings = LiveSliceSettings()
    jungfrau: JungfrauSettings | None = None


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
    """

    limits: dict[str, Limits] = Field(default_factory=dict)


class TiledSettings(Settings):
    """The catalogue.

    Attributes
    ----------
    uri : str
        Address of a Tiled server, or ``embedded`` to start one beside the session.
    api_key_variable : str
        Environment variable with the API key of that server.
    """

    uri: str = "embedded"
    api_key_variable: str = "TILED_API_KEY"


class StorageSettings(Settings):
    """Where results are kept and served.

    Attributes
    ----------
    archive_root : Path or None
        Folder that takes the verified second copy; None puts it beside the data root,
        with ``-archive`` behind its name.
    archive : bool
        Whether a second copy is made after each run.
    tiled : TiledSettings
        The catalogue.
    """

    archive_root: FolderPath | None = None
    archive: bool = True
    tiled: TiledSettings = TiledSettings()


class Profile(Settings):
    """A beamline: everything a session needs to know.

    Attributes
    ----------
    name : str
        Name of the profile.
    session, streaming, gateway, processing, analysis, storage
        Settings of each part.
    simulation : SimulationSettings or None
        The simulated beamline, if the profile has one.
    devices : dict of str to list of dict
        Import path of a device class -> list of keyword arguments, each with ``name``, usually
        ``prefix`` and ``labels`` (the convention of BITS' ``devices.yml``).
    """

    name: str
    session: SessionSettings
    devices: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    simulation: SimulationSettings | None = None
    streaming: StreamingSettings = StreamingSettings()
    gateway: GatewaySettings = GatewaySettings()
    processing: ProcessingSettings = ProcessingSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    storage: StorageSettings = StorageSettings()

    @property
    def archive_root(self) -> Path:
        """Folder that takes the second copies."""
        root = self.session.data_root
        return self.storage.archive_root or root.with_name(root.name + "-archive")


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = importlib.resources.files("apsber_bluesky.profiles")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def _read_profile_text(name_or_file: str | Path) -> tuple[str, str]:
    text = str(name_or_file)
    if isinstance(name_or_file, str) and name_or_file in profile_names():
        resource = importlib.resources.files("apsber_bluesky.profiles") / f"{name_or_file}.yaml"
        return f"profile {name_or_file}", resource.read_text(encoding="utf-8")
    path = Path(name_or_file).expanduser()
    if not path.is_file():
        raise ConfigurationError(
            f"no profile {text!r}: it is neither a file nor one of {', '.join(profile_names())}"
        )
    if path.stat().st_size > _MAXIMUM_PROFILE_BYTES:
        raise ConfigurationError(f"profile {path} is larger than 1 MiB; is it a profile at all?")
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read profile {path}: {error}") from error


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Lay nested `changes` over nested `base`; neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both and old is not None else value
    return merged


def load_profile(
    name_or_file: str | Path = "simulated", changes: dict[str, Any] | None = None
) -> Profile:
    """Read a profile.

    Parameters
    ----------
    name_or_file : str or Path
        Name of a profile that comes with the package, or a YAML file.
    changes : dict, optional
        Nested settings that override those of the file, e.g.
        ``{"simulation": {"rows": 64}}``.

    Returns
    -------
    Profile
        The settings, checked.

    Raises
    ------
    ConfigurationError
        If there is no such profile, it is not YAML, or a key or value is wrong; the message names
        each.
    """
    where, text = _read_profile_text(name_or_file)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{where} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{where} must be a mapping of settings, not {type(values).__name__}"
        )
    if root := os.environ.get(ENVIRONMENT_DATA_ROOT):
        values = merge(values, {"session": {"data_root": root}})
    values = merge(values, changes or {})
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{key}' (value {item['input']!r}); remove or correct it")
        else:
            lines.append(f"'{key}' is {item['input']!r}: {item['msg']}")
    return "; ".join(lines)
