"""What happens after the last frame of a run that is no tomography, by its technique."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apsber_bluesky.core import TECHNIQUES, AnalysisSettings, ProcessingSettings, Technique
from apsber_bluesky.pipeline import (
    AssessFrames,
    ElementMaps,
    FrameInference,
    HitFinding,
    MeasurePedestals,
    SeriesEnergies,
    Stage,
)
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
    processing = ProcessingSettings(**settings["processing"])
    own["detector"].append(MeasurePedestals())
    own["fluorescence"].append(ElementMaps())
    analysis = AnalysisSettings(**settings["analysis"])
    watching = _frame_stages(processing, analysis)
    energies = SeriesEnergies(processing.jungfrau, [stage.energies for stage in watching])
    own["crystallography"] += [energies, *watching]
    own["scattering"] += watching
    judged: tuple[Technique, ...] = ("fluorescence", "crystallography", "scattering")
    for technique in judged:
        own[technique].append(AssessFrames(analysis, processing.saturation_counts))
    if settings["archive_root"]:
        for stages in own.values():
            stages.append(Archive(Path(settings["archive_root"])))
    if settings["tiled_uri"]:
        publish = Publish(settings["tiled_uri"], Path(settings["documents"]))
        for technique in judged:
            own[technique].append(publish)
    return own


def _frame_stages(
    processing: ProcessingSettings, analysis: AnalysisSettings
) -> list[HitFinding | FrameInference]:
    """What looks at each frame of crystallography and scattering."""
    stages: list[HitFinding | FrameInference] = []
    if analysis.hits is not None:
        stages.append(HitFinding(analysis.hits))
    stages += [
        FrameInference(model, processing.models)
        for model in analysis.inference
        if model.on == "frames"
    ]
    return stages
