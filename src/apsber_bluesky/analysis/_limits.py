"""Default limits of the quality numbers, and how a number becomes a `QualityMetric`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from apsber_bluesky.core import InputError, Limits, QualityMetric, judge

DEFAULT_LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        # Rose's criterion: below 5 a detail cannot be told from noise.
        "signal_to_noise": Limits(warn=5.0, fail=3.0),
        # From half a pixel on, edges become double.
        "centre_residual": Limits(warn=0.5, fail=1.0),
        "resolution": Limits(warn=8.0, fail=16.0),
        "missing_frames": Limits(warn=0.0, fail=0.01),
        "saturated_pixels": Limits(warn=1e-4, fail=1e-2),
    }
)
"""Limits by name of the quality number; a profile overrides them one by one."""


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
