"""What processing a scan will take, from its description alone."""

from __future__ import annotations

import numpy as np

from apsber_bluesky.core import ProcessingSettings, TomographyScan
from apsber_bluesky.processing import required_bytes

# What an interpreter with its libraries and compiled functions takes.
_PROCESS_BYTES = 400 << 20
_FLOAT = 4
# Levels of the pyramid, each an eighth of the one before, and the keeping of metadata.
_PYRAMID = 8 / 7
# Rows that are kept to find the rotation centre with.
_CENTRE_ROWS = 16


def scan_memory_bytes(scan: TomographyScan, settings: ProcessingSettings) -> int:
    """Memory that the worker takes for a scan at most [byte].

    Parameters
    ----------
    scan : TomographyScan
        The scan.
    settings : ProcessingSettings
        How it is processed.
    """
    shape = (scan.rows, scan.columns, scan.num_projections)
    frame = scan.rows * scan.columns
    engine = required_bytes(*shape, name=settings.engine)
    item = np.dtype(scan.dtype).itemsize
    # Raw frames, their line integrals, and a padded copy on the way.
    chunk = min(settings.chunk_projections, scan.num_projections) * frame * (item + 3 * _FLOAT)
    references = frame * (3 * _FLOAT + 1) + (scan.num_darks + scan.num_flats) * frame * item
    centre = scan.num_projections * min(_CENTRE_ROWS, scan.rows) * scan.columns * _FLOAT
    # Stripes are removed from whole sinograms, which are then held until the last projection.
    held = frame * scan.num_projections * _FLOAT if settings.stripes != "none" else 0
    slab = 2 * min(settings.slab_slices, scan.rows) * scan.columns**2 * _FLOAT
    return int(_PROCESS_BYTES + engine + chunk + references + centre + held + slab)


def volume_bytes(scan: TomographyScan) -> int:
    """Disk that the volume of a scan takes, uncompressed [byte]."""
    return int(scan.rows * scan.columns**2 * _FLOAT * _PYRAMID)
