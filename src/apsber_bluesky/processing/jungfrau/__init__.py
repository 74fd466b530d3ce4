"""Jungfrau frames: calibration maps, pedestals, photon energy."""

from apsber_bluesky.processing.jungfrau._energy import (
    JungfrauConverter,
    jungfrau_energy,
    pedestal_from_frames,
)
from apsber_bluesky.processing.jungfrau._maps import (
    JungfrauMap,
    MapKind,
    read_jungfrau_map,
    write_jungfrau_map,
)

__all__ = [
    "JungfrauConverter",
    "JungfrauMap",
    "MapKind",
    "jungfrau_energy",
    "pedestal_from_frames",
    "read_jungfrau_map",
    "write_jungfrau_map",
]
