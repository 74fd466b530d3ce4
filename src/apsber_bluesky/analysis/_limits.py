"""Default limits of the quality numbers, and how a number becomes a `QualityMetric`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from apsber_bluesky.core import InputError, Limits, QualityMetric, judge

DEFAULT_LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        # Rose's criterion: below 5 a detail cannot be told from noise.
        "signal_to_noise": Limits(warn=5.0, fail=3.0),
        "contrast_to_noise": Limits(warn=5.0, fail=3.0),
        # Two classes whose means are one deviation apart share a third of their voxels.
        "class_contrast": Limits(warn=2.0, fail=1.0),
        "resolution": Limits(warn=8.0, fail=16.0),
        "resolution_3d": Limits(warn=8.0, fail=16.0),
        "ring_score": Limits(warn=0.005, fail=0.02),
        # From half a pixel on, edges become double.
        "centre_residual": Limits(warn=0.5, fail=1.0),
        "drift": Limits(warn=0.5, fail=2.0),
        "motion": Limits(warn=0.3, fail=1.0),
        "reprojection_residual": Limits(warn=0.05, fail=0.2),
        "missing_frames": Limits(warn=0.0, fail=0.01),
        "saturated_pixels": Limits(warn=1e-4, fail=1e-2),
        "dead_pixels": Limits(warn=2e-3, fail=2e-2),
        "flat_stability": Limits(warn=0.02, fail=0.1),
        "segmentation_confidence": Limits(warn=0.8, fail=0.6),
    }
)
"""Limits by name of the quality number; a profile overrides them one by one."""


class NotApplicable(InputError):
    """A quality number that does not apply to a scan, or cannot be told from it; it says why."""


def metric(
    name: str,
    value: float,
    *,
    unit: str,
    source: str,
    note: str = "",
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Judge a number by the limits given for it, or the default ones."""
    own = {**DEFAULT_LIMITS, **(limits or {})}[name]
    return QualityMetric(
        name=name,
        value=value,
        unit=unit,
        verdict=judge(value, warn=own.warn, fail=own.fail),
        warn_limit=own.warn,
        fail_limit=own.fail,
        source=source,
        note=note,
    )


def check_limits(limits: Mapping[str, Limits] | None) -> None:
    """Refuse limits for a quality number that does not exist."""
    unknown = sorted(set(limits or {}) - set(DEFAULT_LIMITS))
    if unknown:
        raise InputError(
            f"limits for unknown quality number {unknown[0]!r}; there are "
            f"{', '.join(sorted(DEFAULT_LIMITS))}"
        )
