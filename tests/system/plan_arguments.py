"""Small arguments for every public plan: run from RE and through a queueserver.

A new plan needs an entry in `ARGUMENTS`, and in `CHANGES` what it wants of the simulated beamline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class Device(str):
    """A device of the session, by its name."""

    __slots__ = ()


#: Laid over the profile ``simulated``.
CHANGES: dict[str, Any] = {
    "session": {"connection_timeout_s": 5.0},
    "simulation": {"rows": 64, "columns": 64},
}

#: Where motors are before every plan: some leave them where they ended.
HOME: dict[str, float] = {"sample_x": 0.0, "sample_stage.y": 0.0, "monochromator": 20.0}

_FEW: dict[str, Any] = {
    "num_projections": 24,
    "exposure_s": 0.01,
    "num_darks": 2,
    "num_flats": 2,
    "return_rotation": False,
}

#: Keyword arguments of every public plan, by its name. A device that has the name of its argument
#: need not be given.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "fly_tomography": {**_FEW, "exposure_s": 0.05, "sample": "fly"},
    "step_tomography": {**_FEW, "num_projections": 18, "sample": "step"},
}


ARGUMENTS["jungfrau_pedestal"] = {"detector": Device("jungfrau"), "num_frames": 4}
ARGUMENTS["jungfrau_series"] = {
    "detector": Device("jungfrau"),
    "num_frames": 6,
    "frame_period_s": 0.03,
    "trigger": "external",
    "rotation": Device("rotation"),
    "rotation_step_deg": 0.5,
}

ARGUMENTS["scattering_series"] = {
    "detector": Device("eiger"),
    "axis": Device("sample_x"),
    "positions_mm": [0.0, 0.5],
    "num_frames": 3,
    "num_darks": 2,
    "exposure_s": 0.02,
    "sample": "spheres",
}

ARGUMENTS["xrf_map"] = {
    "fast_axis": Device("fly_x"),
    "slow_axis": Device("sample_stage.y"),
    "columns": 4,
    "rows": 3,
    "fast_step_mm": 0.2,
    "slow_step_mm": 0.2,
    "exposure_s": 0.02,
    "sample": "map",
}

ARGUMENTS["collect_darks"] = {"num_darks": 3}
ARGUMENTS["collect_flats"] = {"num_flats": 3, "num_darks": 2}
ARGUMENTS["energy_series"] = {
    "energies_keV": [20.0, 20.5],
    "exposure_s": 0.01,
    "num_darks": 2,
    "num_flats": 2,
    "sample": "energies",
}
ARGUMENTS["mosaic_tomography"] = {
    **{name: value for name, value in _FEW.items() if name != "return_rotation"},
    "num_projections": 12,
    "sample": "mosaic",
}
# Behind the mosaic, which leaves the sample in the middle of the picture.
ARGUMENTS["align_rotation_axis"] = {"exposure_s": 0.02, "num_darks": 2, "num_flats": 2}

ARGUMENTS["golden_tomography"] = {
    "projections_per_turn": 12,
    "most_turns": 3,
    "tolerance": 0.9,
    "exposure_s": 0.01,
    "num_darks": 2,
    "num_flats": 2,
    "return_rotation": False,
    "sample": "golden",
}
ARGUMENTS["streaming_tomography"] = {
    "projections_per_half_turn": 24,
    "longest_s": 3.5,
    "exposure_s": 0.01,
    "num_darks": 2,
    "num_flats": 2,
    "sample": "streaming",
}


def write_profile(repository: Path, file: Path) -> dict[str, Any]:
    """The profile ``simulated`` with `CHANGES`, as a file; its settings."""
    text = (repository / "profiles" / "simulated.yaml").read_text(encoding="utf-8")
    settings = _laid_over(yaml.safe_load(text), CHANGES)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return settings


def _laid_over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {
        key: _laid_over(base.get(key) or {}, value)
        for key, value in changes.items()
        if isinstance(value, dict)
    }
    return {**base, **changes, **nested}
