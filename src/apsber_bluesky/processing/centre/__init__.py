"""The column of the rotation axis, found from projections and refined on slices."""

from apsber_bluesky.processing.centre._axis import find_axis
from apsber_bluesky.processing.centre._find import CentreEstimate, find_centre
from apsber_bluesky.processing.centre._refine import refine_centre

__all__ = [
    "CentreEstimate",
    "find_axis",
    "find_centre",
    "refine_centre",
]
