"""What processing a scan will take, from its description alone."""

from __future__ import annotations

import numpy as np

from apsber_bluesky.core import (
    ConfigurationError,
    LearnedSettings,
    ModelCard,
    ProcessingSettings,
    SegmentSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline._followers import WAITING_SLABS
from apsber_bluesky.pipeline._learned_passes import LEVEL_SLICES
from apsber_bluesky.processing import learned, required_bytes

# What an interpreter with its libraries and compiled functions takes.
_PROCESS_BYTES = 400 << 20
_FLOAT = 4
# Levels of the pyramid, each an eighth of the one before, and the keeping of metadata.
_PYRAMID = 8 / 7
# What torch takes once it is loaded.
_TORCH_BYTES = 300 << 20
# Copies of the slices that the object's level is measured in.
_LEVEL_COPIES = 5
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
    models = models_bytes((scan.rows, scan.columns, scan.columns), settings)
    return int(_PROCESS_BYTES + engine + chunk + references + centre + held + slab + models)


def models_bytes(shape: tuple[int, int, int], settings: ProcessingSettings) -> int:
    """Memory that the models of the profile take while they follow a reconstruction [byte].

    Parameters
    ----------
    shape : tuple of int
        Shape of the volume.
    settings : ProcessingSettings
        ``denoise`` and ``segment``, ``models`` and ``slab_slices``.
    """
    slices = min(settings.slab_slices, shape[0])
    found = _models(settings)
    if not found:
        return 0
    slice_bytes = shape[1] * shape[2] * _FLOAT
    # Slabs that wait, and the one that is worked on.
    waiting = (WAITING_SLABS + 1) * slices * slice_bytes
    level = _LEVEL_COPIES * min(LEVEL_SLICES, shape[0]) * slice_bytes
    own = sum(learned.learned_bytes(card, *shape[1:], slices, how) for card, how in found)
    return int(_TORCH_BYTES + waiting + level + own)


def _models(settings: ProcessingSettings) -> list[tuple[ModelCard, LearnedSettings]]:
    found: list[tuple[ModelCard, LearnedSettings]] = []
    for how in (settings.denoise, settings.segment):
        if how is None:
            continue
        try:
            found.append((learned.find_model(how.model, settings.models)[0], how))
        except ConfigurationError:
            # It will not be run, and its stage says why.
            continue
    return found


def volume_bytes(scan: TomographyScan, settings: ProcessingSettings) -> int:
    """Disk that the volume of a scan takes, and what models make of it, uncompressed [byte]."""
    voxel = _FLOAT
    for card, how in _models(settings):
        if not isinstance(how, SegmentSettings):
            voxel += _FLOAT
            continue
        voxel += 1 + 2 * how.uncertainty + 2 * len(card.classes) * how.probabilities
    return int(scan.rows * scan.columns**2 * voxel * _PYRAMID)
