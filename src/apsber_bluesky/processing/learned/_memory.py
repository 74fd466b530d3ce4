"""How far a network looks and how much memory it takes, told from its card alone."""

from __future__ import annotations

import math

from apsber_bluesky.core import (
    InputError,
    LearnedSettings,
    ModelCard,
    NetworkShape,
    SegmentSettings,
)

_FLOAT32_BYTES = 4
# Of models that are not the suite's own nothing is known; this is what a U-Net of 32 channels at
# full resolution keeps, with its shortcuts.
_FOREIGN_BYTES_PER_PIXEL = 4 * 32 * _FLOAT32_BYTES
_FOREIGN_OVERLAP = 64


def multiple_of(card: ModelCard) -> int:
    """What rows and columns of an image must be a multiple of."""
    own = 1 if card.network is None else 1 << len(card.network.widths)
    return math.lcm(own, card.input.multiple)


def reach_of(network: NetworkShape) -> int:
    """How far from a pixel the suite's network looks [pixel].

    Two convolutions of 3 x 3 pixels at each level, down and up again, and the place of a pixel
    within one of the coarsest level.
    """
    scales = [2 << level for level in range(len(network.widths))]
    return 2 * sum(scales) + 2 * sum(scales[:-1]) + scales[-1] - 1


def overlap_of(card: ModelCard, settings: LearnedSettings) -> int:
    """What neighbouring tiles share [pixel]."""
    if settings.overlap is not None:
        return settings.overlap
    return _FOREIGN_OVERLAP if card.network is None else 2 * reach_of(card.network)


def learned_bytes(
    card: ModelCard, rows: int, columns: int, slab_slices: int, settings: LearnedSettings
) -> int:
    """Memory that a model takes on a processor, slabs that go in and come out included.

    On a GPU it is the device that needs this for the tile, and the host the rest.

    Parameters
    ----------
    card : ModelCard
        The model.
    rows, columns : int
        Size of a slice [pixel].
    slab_slices : int
        Slices that are handed over at once.
    settings : LearnedSettings
        How it is run.

    Returns
    -------
    int
        An upper estimate [byte]; of models that are not the suite's own a rough one.

    Raises
    ------
    InputError
        If a size is not positive.
    """
    if min(rows, columns, slab_slices) < 1:
        raise InputError(f"{slab_slices} slices of {rows} x {columns} pixels are none")
    image = rows * columns
    tile = min(rows, settings.tile) * min(columns, settings.tile)
    outputs = 1 if card.task == "denoise" else max(len(card.classes), 1)
    # Answers lie there twice while those of a slab are joined.
    slab = slab_slices * (_FLOAT32_BYTES + 2 * _answer_bytes(card, settings, outputs))
    # Neighbours, the image as it goes in and is padded, what comes out and is made of it.
    others = _FLOAT32_BYTES * (3 * card.input.slices + 4 * outputs)
    work = tile * _bytes_per_pixel(card.network) + _weight_bytes(card.network)
    return (slab + others) * image + work


def _answer_bytes(card: ModelCard, settings: LearnedSettings, outputs: int) -> int:
    """Of one voxel; a segmenter's are labels, uncertainty and perhaps probabilities."""
    if card.task != "segment":
        return _FLOAT32_BYTES * outputs
    wanted = isinstance(settings, SegmentSettings) and settings.probabilities
    return 3 + (2 * outputs if wanted else 0)


def _bytes_per_pixel(network: NetworkShape | None) -> int:
    if network is None:
        return _FOREIGN_BYTES_PER_PIXEL
    fine, *rest = [*network.widths, 0]
    # The way back up to the finest level: shortcut, what is enlarged, both joined, and two answers.
    channels = 4 * network.slices + 3 * fine + 2 * (fine + rest[0])
    return channels * _FLOAT32_BYTES // 4


def _weight_bytes(network: NetworkShape | None) -> int:
    if network is None:
        return 0
    widths = network.widths
    down = zip([4 * network.slices, *widths[:-1]], widths, strict=True)
    up = ((a + b, b) for a, b in zip(widths[1:], widths[:-1], strict=True))
    return _FLOAT32_BYTES * sum(9 * (a + b) * b for a, b in [*down, *up])
