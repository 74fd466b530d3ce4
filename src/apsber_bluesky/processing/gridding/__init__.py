"""Direct Fourier reconstruction on a grid: the engine of the processor, and its parts."""

from apsber_bluesky.processing.gridding._engine import GriddingEngine
from apsber_bluesky.processing.gridding._fourier import transform
from apsber_bluesky.processing.gridding._geometry import GriddingGeometry, grid_bytes, grid_size
from apsber_bluesky.processing.gridding._points import PLACES, POINT_BYTES, PointArrays
from apsber_bluesky.processing.gridding._rows import copy_row, scale_row
from apsber_bluesky.processing.gridding._spectra import CHUNK
from apsber_bluesky.processing.gridding._spread import TABLE, TAPS, spread
from apsber_bluesky.processing.gridding._stages import GROUP, transform_columns

__all__ = [
    "CHUNK",
    "GROUP",
    "PLACES",
    "POINT_BYTES",
    "TABLE",
    "TAPS",
    "GriddingEngine",
    "GriddingGeometry",
    "PointArrays",
    "copy_row",
    "grid_bytes",
    "grid_size",
    "scale_row",
    "spread",
    "transform",
    "transform_columns",
]
