"""From options to what is done to the projections of a scan on disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from apsber_bluesky.core import InputError, PhaseSettings

if TYPE_CHECKING:
    from apsber_bluesky.cli._scan_job import ScanOptions
    from apsber_bluesky.pipeline import OfflinePreparation

_STRIPES = ("none", "sorting", "wavelet")
_FLATS = ("average", "interpolate")


def prepared_as(options: ScanOptions) -> OfflinePreparation:
    """Read the options.

    Raises
    ------
    InputError
        If one makes no sense, or is given without the one that it belongs to.
    """
    from apsber_bluesky.pipeline import OfflinePreparation

    given: dict[str, Any] = {
        "stripes": _one_of("--stripes", options.stripes, _STRIPES),
        "flats": _one_of("--flats", options.flats, _FLATS),
        "zingers": _positive("--zingers", options.zingers),
        "phase": _phase(options),
        "extend_edges": options.extend_edges,
    }
    return OfflinePreparation(**given)


def _phase(options: ScanOptions) -> PhaseSettings | None:
    numbers = {"--energy-keV": options.energy_keV, "--distance-mm": options.distance_mm}
    for name, value in numbers.items():
        _positive(name, value)
        if value is not None and options.phase is None:
            raise InputError(f"{name} is for phase retrieval; add --phase DELTA_OVER_BETA")
    ratio = _positive("--phase", options.phase)
    if ratio is None:
        return None
    return PhaseSettings(
        delta_over_beta=ratio, energy_keV=options.energy_keV, distance_mm=options.distance_mm
    )


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; give a positive number")
    return value


def _one_of(name: str, value: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise InputError(f"unknown {name} {value!r}; choose one of {', '.join(words)}")
    return value
