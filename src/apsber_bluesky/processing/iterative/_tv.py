"""Least squares with a penalty on the total variation of each slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative._block import Block
from apsber_bluesky.processing.iterative._kernels import (
    add_scaled,
    lane_distances,
    lane_dots,
    lane_turns,
    scale_add,
)
from apsber_bluesky.processing.iterative._projector import Projector, ProjectorMemory
from apsber_bluesky.processing.iterative._tv_kernels import dual_step, primal

IMAGES, LINES = 7, 3
"""Images and sets of projections of 16 slices that are held beside the block's own."""

# Steps of the denoising in each iteration; it goes on from where it was, so a few are enough.
_DUAL_STEPS = 6
# Power iterations for the norm of the projector, and what they may fall short.
_POWER_STEPS = 6
_POWER_MARGIN = 1.05


def tv(block: Block) -> None:
    """Least squares with total variation by an accelerated proximal gradient method.

    A. Beck and M. Teboulle, IEEE Trans. Image Process. 18 (2009) 2419; the momentum of a slice is
    dropped whenever it points uphill (B. O'Donoghue and E. Candes, Found. Comput. Math. 15 (2015)
    715).
    """
    solver = _Solver(block)
    for _ in range(block.settings.most_iterations):
        if not solver.advance():
            return


def squared_norm(projector: Projector, memory: ProjectorMemory) -> float:
    """Largest eigenvalue of back-projection after projection, a little too large."""
    columns = projector.columns
    image = np.ones((columns, columns, LANES), np.float32)
    lines = np.empty((len(projector.order), columns, LANES), np.float32)
    gain = 1.0
    for _ in range(_POWER_STEPS):
        before = lane_dots(image, image)[0]
        projector.forward(image, lines, memory)
        gain = lane_dots(lines, lines)[0] / before
        projector.adjoint(lines, image, memory)
        image /= np.float32(gain)
    return _POWER_MARGIN * float(gain)


class _Solver:
    """The arrays of `tv`, and one iteration."""

    def __init__(self, block: Block) -> None:
        x, settings = block.image, block.settings
        self._block, self._columns = block, block.projector.columns
        self._least = np.float32(0 if settings.forbids_negative else -np.inf)
        np.maximum(x, self._least, out=x)
        self._step = 1 / block.gain
        weight = settings.regularisation * block.rays * self._step
        self._weight, self._dual_rate = np.float32(weight), np.float32(1 / (8 * weight))
        self._rows = np.empty((2, LANES * self._columns), np.float32)
        # Along and down, extrapolated and as they were; the last 16 floats stay 0.
        self._dual = np.zeros((4, x.size + LANES), np.float32)
        self._before = x.copy()
        self._target, self._next = np.empty_like(x), np.empty_like(x)
        self._lines = np.zeros_like(block.lines)
        if block.started:
            block.project(x, self._lines)
        self._lines_before, self._residual = self._lines.copy(), np.empty_like(self._lines)
        self._time = np.ones(LANES)
        self._momentum = np.zeros(LANES)

    def advance(self) -> bool:
        """One iteration; False if all slices have stopped."""
        block, x = self._block, self._block.image
        if not block.begins(lane_distances(block.lines, self._lines)):
            return False
        self._descend()
        self._denoise()
        stopped = ~block.active
        self._next[..., stopped] = x[..., stopped]
        change = lane_distances(self._next, x)
        self._gather_momentum(x, change)
        self._before, block.image, self._next = x, self._next, self._before
        self._lines_before, self._lines = self._lines, self._lines_before
        block.project(block.image, self._lines)
        block.changed(change)
        return True

    def _descend(self) -> None:
        """Follow the gradient of the least squares from the extrapolated point."""
        block, target = self._block, self._target
        # The projections of the extrapolated image are those of the two, extrapolated.
        self._residual[:] = block.lines
        add_scaled(self._residual, -1 - self._momentum, self._lines)
        add_scaled(self._residual, self._momentum, self._lines_before)
        block.back_project(self._residual, target)
        scale_add(target, np.full(LANES, self._step), block.image)
        add_scaled(target, self._momentum, block.image)
        add_scaled(target, -self._momentum, self._before)

    def _denoise(self) -> None:
        weight, columns, radius = self._weight, self._columns, self._block.projector.radius
        target = self._target.reshape(-1)
        along, down, along_old, down_old = self._dual
        time = 1.0
        for _ in range(_DUAL_STEPS):
            later = (1 + np.sqrt(1 + 4 * time * time)) / 2
            momentum, time = np.float32((time - 1) / later), later
            dual_step(
                target, weight, self._dual_rate, momentum, columns, radius, self._least,
                along, down, along_old, down_old, self._rows[0], self._rows[1],
            )  # fmt: skip
        along[:], down[:] = along_old, down_old
        primal(target, weight, along, down, columns, radius, self._least, self._next.reshape(-1))

    def _gather_momentum(self, x: NDArray[np.float32], change: NDArray[np.float64]) -> None:
        """How far the next iteration goes beyond its start."""
        uphill = self._momentum * lane_turns(self._before, x, self._next) > change
        self._time[uphill] = 1
        later = (1 + np.sqrt(1 + 4 * self._time**2)) / 2
        self._momentum, self._time = (self._time - 1) / later, later
