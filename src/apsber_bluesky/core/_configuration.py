"""One YAML file per beamline, read into models that forbid unknown keys."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from apsber_bluesky.core._dashboard_settings import DashboardSettings
from apsber_bluesky.core._errors import ConfigurationError
from apsber_bluesky.core._processing_settings import AnalysisSettings, ProcessingSettings
from apsber_bluesky.core._session_settings import SessionSettings, StorageSettings
from apsber_bluesky.core._settings import Settings
from apsber_bluesky.core._simulation_settings import SimulationSettings
from apsber_bluesky.core._streaming_settings import GatewaySettings, StreamingSettings

ENVIRONMENT_DATA_ROOT = "APSBER_DATA_ROOT"
_MAXIMUM_PROFILE_BYTES = 1 << 20


class Profile(Settings):
    """A beamline: everything a session needs to know.

    Attributes
    ----------
    name : str
        Name of the profile.
    session, streaming, gateway, dashboard, processing, analysis, storage
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
    dashboard: DashboardSettings = DashboardSettings()
    processing: ProcessingSettings = ProcessingSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    storage: StorageSettings = StorageSettings()

    @property
    def device_names(self) -> list[str]:
        """Names of the devices."""
        entries = (entry for arguments in self.devices.values() for entry in arguments)
        return [str(entry["name"]) for entry in entries if "name" in entry]

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
