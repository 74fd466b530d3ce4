"""Pure array functions: normalise, find the rotation centre, reconstruct."""

from apsber_bluesky.processing._centre import CentreEstimate, find_centre
from apsber_bluesky.processing._engines import (
    create_engine,
    engine_names,
    prepare_engine,
    reconstruct,
    required_bytes,
)
from apsber_bluesky.processing._filters import FILTER_NAMES
from apsber_bluesky.processing._free_memory import free_memory
from apsber_bluesky.processing._geometry import FrameGeometry
from apsber_bluesky.processing._iterative import (
    IterationReport,
    IterativeReconstruction,
    iterative_bytes,
    reconstruct_iteratively,
)
from apsber_bluesky.processing._iterative_engine import IterativeEngine
from apsber_bluesky.processing._iterative_settings import ITERATIVE_METHODS, IterativeSettings
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
from apsber_bluesky.processing._off_axis import (
    OffAxisFrame,
    OverlapEstimate,
    check_full_turn,
    find_overlap,
    overlap_centre,
)
from apsber_bluesky.processing._ortho_slices import OrthoSlices, OrthoSnapshot
from apsber_bluesky.processing._ortho_window import SlidingOrthoSlices
from apsber_bluesky.processing._phase import PaganinFilter
from apsber_bluesky.processing._projector import Projector
from apsber_bluesky.processing._references import (
    average_reference,
    bad_pixels,
    find_bad_references,
)
from apsber_bluesky.processing._refine_centre import refine_centre
from apsber_bluesky.processing._resample import bin_images
from apsber_bluesky.processing._stripes import (
    remove_stripes_by_sorting,
    remove_stripes_by_wavelet,
)
from apsber_bluesky.processing._warm_up import warm_up_preprocessing
from apsber_bluesky.processing._weights import angular_weights
from apsber_bluesky.processing._zingers import remove_zingers

__all__ = [
    "FILTER_NAMES",
    "ITERATIVE_METHODS",
    "MINIMUM_TRANSMISSION",
    "CentreEstimate",
    "FrameGeometry",
    "IterationReport",
    "IterativeEngine",
    "IterativeReconstruction",
    "IterativeSettings",
    "JungfrauConverter",
    "JungfrauMap",
    "MapKind",
    "Normaliser",
    "OffAxisFrame",
    "OrthoSlices",
    "OrthoSnapshot",
    "OverlapEstimate",
    "PaganinFilter",
    "Projector",
    "SlidingOrthoSlices",
    "angular_weights",
    "average_reference",
    "bad_pixels",
    "bin_images",
    "check_full_turn",
    "create_engine",
    "engine_names",
    "find_bad_references",
    "find_centre",
    "find_overlap",
    "free_memory",
    "iterative_bytes",
    "jungfrau_energy",
    "normalise",
    "overlap_centre",
    "pedestal_from_frames",
    "prepare_engine",
    "read_jungfrau_map",
    "reconstruct",
    "reconstruct_iteratively",
    "refine_centre",
    "remove_stripes_by_sorting",
    "remove_stripes_by_wavelet",
    "remove_zingers",
    "required_bytes",
    "warm_up_preprocessing",
    "write_jungfrau_map",
]
