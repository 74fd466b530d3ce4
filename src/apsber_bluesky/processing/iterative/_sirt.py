"""The simultaneous iterative reconstruction technique."""

from __future__ import annotations

import numpy as np

from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative._block import Block
from apsber_bluesky.processing.iterative._kernels import (
    STRETCH,
    spread_lanes,
    weigh_residual,
    weigh_update,
)

IMAGES, LINES = 1.125, 1.0625
"""Images and sets of projections of 16 slices that are held beside the block's own."""

# A ray or pixel that hardly meets anything must not become infinitely important.
_LEAST_LENGTH_PX = 1.0
_LEAST_SHARE = 0.1


def sirt(block: Block) -> None:
    """Weighted least squares by simple steps, each ray and each pixel weighed by what it meets.

    P. Gilbert, J. Theor. Biol. 36 (1972) 105, as written by J. Gregor and T. Benson, IEEE Trans.
    Med. Imaging 27 (2008) 918: ``x += C A^T R (b - A x)`` with ``R`` and ``C`` one over the sums
    of the rows and columns of ``A``.
    """
    x, settings = block.image, block.settings
    rays, pixels = _weights(block)
    least = np.float32(0 if settings.forbids_negative else -np.inf)
    if settings.forbids_negative:
        np.maximum(x, 0, out=x)
    lines, gradient = np.empty_like(block.lines), np.empty_like(x)
    for _ in range(settings.most_iterations):
        block.project(x, lines)
        squares = np.zeros(STRETCH)
        weigh_residual(block.lines.reshape(-1), lines.reshape(-1), rays, squares)
        if not block.begins(squares.reshape(-1, LANES).sum(axis=0)):
            return
        block.back_project(lines, gradient)
        factors = spread_lanes(np.where(block.active, settings.relaxation, 0))
        changes = np.zeros(STRETCH)
        weigh_update(x.reshape(-1), gradient.reshape(-1), pixels, factors, least, changes)
        block.changed(changes.reshape(-1, LANES).sum(axis=0))


def _weights(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """One over what each ray and each pixel meets, shapes ``(rays,)`` and ``(pixels,)``."""
    image, lines = np.ones_like(block.image), np.empty_like(block.lines)
    block.project(image, lines)
    lengths = lines.reshape(-1, LANES)[:, 0]
    rays = (1 / np.maximum(lengths, _LEAST_LENGTH_PX)).astype(np.float32)
    lines[:] = 1
    block.back_project(lines, image)
    shares = image.reshape(-1, LANES)[:, 0]
    count = np.float32(len(lines))
    pixels = (1 / np.maximum(shares, _LEAST_SHARE * count)).astype(np.float32)
    return rays, pixels
