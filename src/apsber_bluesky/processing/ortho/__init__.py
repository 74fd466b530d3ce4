"""Three orthogonal slices that grow with each projection."""

from apsber_bluesky.processing.ortho._slices import OrthoSlices, OrthoSnapshot
from apsber_bluesky.processing.ortho._window import SlidingOrthoSlices

__all__ = [
    "OrthoSlices",
    "OrthoSnapshot",
    "SlidingOrthoSlices",
]
