"""Pure array functions: normalise, find the rotation centre, reconstruct."""

from apsber_bluesky.processing._centre import CentreEstimate, find_centre
from apsber_bluesky.processing._engines import (
    create_engine,
    engine_names,
    reconstruct,
    required_bytes,
)
from apsber_bluesky.processing._filters import FILTER_NAMES
from apsber_bluesky.processing._jungfrau_energy import (
    JungfrauConverter,
    jungfrau_energy,
    pedestal_from_frames,
)
from apsber_bluesky.processing._jungfrau_maps import (
    JungfrauMap,
    MapKind,
    read_jungfrau_map,
    write_jungfrau_map,
)
from apsber_bluesky.processing._normalise import MINIMUM_TRANSMISSION, Normaliser, normalise
from apsber_bluesky.processing._references import average_reference, bad_pixels
from apsber_bluesky.processing._weights import angular_weights

__all__ = [
    "FILTER_NAMES",
    "MINIMUM_TRANSMISSION",
    "CentreEstimate",
    "JungfrauConverter",
    "JungfrauMap",
    "MapKind",
    "Normaliser",
    "angular_weights",
    "average_reference",
    "bad_pixels",
    "create_engine",
    "engine_names",
    "find_centre",
    "jungfrau_energy",
    "normalise",
    "pedestal_from_frames",
    "read_jungfrau_map",
    "reconstruct",
    "required_bytes",
    "write_jungfrau_map",
]
