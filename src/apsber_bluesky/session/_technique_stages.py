"""What happens after the last frame of a run that is no tomography, by its technique."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apsber_bluesky.core import TECHNIQUES, ProcessingSettings, Technique
from apsber_bluesky.pipeline import ElementMaps, MeasurePedestals, SeriesEnergies, Stage
from apsber_bluesky.session._storage_stages import Archive, Publish


def technique_stages(settings: dict[str, Any]) -> dict[Technique, list[Stage]]:
    """Stages of each technique but tomography, as the worker's settings want them.

    Parameters
    ----------
    settings : dict
        Those of the worker: ``data_root``, ``archive_root``, ``tiled_uri``, and the sections
        ``processing`` and ``analysis`` of the profile.
    """
    own: dict[Technique, list[Stage]] = {
        technique: [] for technique in TECHNIQUES if technique != "tomography"
    }
    jungfrau = ProcessingSettings(**settings["processing"]).jungfrau
    own["detector"].append(MeasurePedestals())
    own["crystallography"].append(SeriesEnergies(jungfrau))
    own["fluorescence"].append(ElementMaps())
    if settings["archive_root"]:
        for stages in own.values():
            stages.append(Archive(Path(settings["archive_root"])))
    if settings["tiled_uri"]:
        own["fluorescence"].append(Publish(settings["tiled_uri"], Path(settings["documents"])))
    return own
