"""Settings of a session, and of where its data are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from apsber_bluesky.core._run_folder import check_folder_name
from apsber_bluesky.core._settings import FolderPath, Settings
from apsber_bluesky.core._tomography import DEFAULT_PROPOSAL


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
