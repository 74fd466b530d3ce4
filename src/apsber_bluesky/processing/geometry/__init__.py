"""What a frame must undergo to be a projection about a straight, centred axis."""

from apsber_bluesky.processing.geometry._frames import FrameGeometry
from apsber_bluesky.processing.geometry._off_axis import (
    OffAxisFrame,
    OverlapEstimate,
    check_full_turn,
    find_overlap,
    overlap_centre,
)
from apsber_bluesky.processing.geometry._resample import bin_images

__all__ = [
    "FrameGeometry",
    "OffAxisFrame",
    "OverlapEstimate",
    "bin_images",
    "check_full_turn",
    "find_overlap",
    "overlap_centre",
]
