"""Conjugate gradients on the normal equations, also without negative attenuation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative._block import Block, ratio
from apsber_bluesky.processing.iterative._kernels import (
    add_scaled,
    clip_step,
    hold_bound,
    lane_dots,
    note_bound,
    scale_add,
)

IMAGES, LINES = 2, 2
"""Images and sets of projections of 16 slices that are held beside the block's own."""

BOUNDED_IMAGES, BOUNDED_LINES = 3.25, 3
"""The same without negative attenuation."""

# Iterations until the negative pixels are cut off; a projected step must then find its way anew.
_CYCLE = 8


def cgls(block: Block) -> None:
    """Least squares by conjugate gradients.

    M. R. Hestenes and E. Stiefel, J. Res. Nat. Bur. Standards 49 (1952) 409, in the form of A.
    Bjorck, Numerical Methods for Least Squares Problems (1996), section 7.4.
    """
    x, residual = block.image, block.initial_residual()
    step = np.empty_like(residual)
    gradient = np.empty_like(x)
    block.back_project(residual, gradient)
    direction = gradient.copy()
    gamma = lane_dots(gradient, gradient)
    for _ in range(block.settings.most_iterations):
        block.active &= gamma > 0
        if not block.begins(lane_dots(residual, residual)):
            return
        block.project(direction, step)
        alpha = ratio(gamma, lane_dots(step, step), block.active)
        add_scaled(x, alpha, direction)
        add_scaled(residual, -alpha, step)
        if block.settings.tolerance is not None:
            block.changed(alpha**2 * lane_dots(direction, direction))
        block.back_project(residual, gradient)
        before, gamma = gamma, lane_dots(gradient, gradient)
        scale_add(direction, ratio(gamma, before, block.active), gradient)


def bounded_cgls(block: Block) -> None:
    """Least squares without negative values, by conjugate gradients in cycles.

    In a cycle the pixels that are 0 and would become negative are held, as B. T. Polyak (USSR
    Comput. Math. Math. Phys. 9 (1969) 94) does; at its end what has become negative is cut off,
    and the best point on the way to the image that remains is taken. So the residual never grows.
    """
    cycle = _Cycle(block)
    done, most = 0, block.settings.most_iterations
    while done < most and (count := cycle.run(min(_CYCLE, most - done))):
        done += count


class _Cycle:
    """The arrays of `bounded_cgls`, and one cycle."""

    def __init__(self, block: Block) -> None:
        np.maximum(block.image, 0, out=block.image)
        self._block = block
        self._residual = block.initial_residual()
        self._start_residual = np.empty_like(self._residual)
        self._step = np.empty_like(self._residual)
        self._start = np.empty_like(block.image)
        self._gradient = np.empty_like(block.image)
        self._direction = np.empty_like(block.image)
        self._bound = np.empty(block.image.size, np.bool_)
        # A slice that got nowhere may take one step of steepest descent, which gets somewhere.
        self._careful = np.zeros(LANES, np.bool_)

    def run(self, most: int) -> int:
        """At most so many iterations; how many were done."""
        block, x, residual = self._block, self._block.image, self._residual
        self._start[:], self._start_residual[:] = x, residual
        block.back_project(residual, self._gradient)
        note_bound(x.reshape(-1), self._gradient.reshape(-1), self._bound)
        hold_bound(self._gradient.reshape(-1), self._bound)
        self._direction[:] = self._gradient
        gamma = lane_dots(self._gradient, self._gradient)
        block.active &= gamma > 0
        done = 0
        while done < most and block.begins(lane_dots(residual, residual), may_stop=not done):
            moving = block.active & ~(self._careful & (done > 0))
            gamma = self._advance(gamma, moving)
            done += 1
        if done:
            self._cut_off()
        return done

    def _advance(
        self, gamma: NDArray[np.float64], moving: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        block = self._block
        block.project(self._direction, self._step)
        alpha = ratio(gamma, lane_dots(self._step, self._step), moving)
        add_scaled(block.image, alpha, self._direction)
        add_scaled(self._residual, -alpha, self._step)
        block.back_project(self._residual, self._gradient)
        hold_bound(self._gradient.reshape(-1), self._bound)
        after = lane_dots(self._gradient, self._gradient)
        scale_add(self._direction, ratio(after, gamma, moving), self._gradient)
        return after

    def _cut_off(self) -> None:
        """Go from the start of the cycle towards the image without its negative pixels."""
        block, x = self._block, self._block.image
        clip_step(x.reshape(-1), self._start.reshape(-1))
        block.project(x, self._step)
        slope = lane_dots(self._start_residual, self._step)
        length = ratio(slope, lane_dots(self._step, self._step), block.active)
        length = np.clip(length, 0, 1)
        change = length**2 * lane_dots(x, x)
        self._careful = length <= 0
        scale_add(x, length, self._start)
        # The last bits of a sum may fall below 0.
        np.maximum(x, 0, out=x)
        self._residual[:] = self._start_residual
        add_scaled(self._residual, -length, self._step)
        block.changed(change)
