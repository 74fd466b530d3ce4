"""The stages of learned models, joined to storage and measurement."""

from __future__ import annotations

from typing import Any

from apsber_bluesky.core import AnalysisSettings, ProcessingSettings
from apsber_bluesky.pipeline import (
    Quantify,
    SlabFollower,
    Stage,
    inference_stages,
    learned_followers,
)
from apsber_bluesky.session._storage_stages import open_product_writer
from apsber_bluesky.storage import open_volume


def learned_stages(
    processing: ProcessingSettings, analysis: AnalysisSettings
) -> tuple[list[SlabFollower], list[Stage]]:
    """Who follows the reconstruction, and the stages that come after it."""
    followers, stages = learned_followers(processing, open_product_writer)
    segment = processing.segment
    if segment is not None and segment.quantify:
        stages.append(Quantify(_measure, open_volume))
    others, more = inference_stages(analysis, processing.models, open_product_writer, open_volume)
    return [*followers, *others], [*stages, *more]


def _measure(labels: Any, classes: tuple[str, ...], voxel_size_um: float | None) -> dict[str, Any]:
    # Loads scikit-image, which nobody else needs.
    from apsber_bluesky.analysis import quantify_labels

    measured: dict[str, Any] = quantify_labels(labels, classes, voxel_size_um).to_dict()
    return measured
