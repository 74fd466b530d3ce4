"""Where the samples of a scan lie on the Fourier grid of a device engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing.gridding import GriddingGeometry

WIDTH = 6
"""Cells of the grid that a sample reaches along each axis."""


@dataclass(frozen=True)
class DeviceGeometry(GriddingGeometry):
    """Lengths and tables that the kernels of an accelerator need.

    They are those of the gridding engine with a kernel of six cells: the error of the image is
    then 4e-4 of the highest attenuation at its corners, where with five it is 3e-3, and on an
    accelerator a sixth cell costs little.
    """

    taps: int = WIDTH

    @property
    def beta(self) -> float:
        """Shape of the kernel, see `GriddingGeometry`."""
        return 0.976 * math.pi * self.taps * (1 - self.columns / (2 * self.size))

    def frequencies(self) -> NDArray[np.int64]:
        """Whole frequencies ``m`` of a spectrum in FFT order; their number is odd."""
        half = self.period // 2
        return np.roll(np.arange(-half, half + 1), -half)

    def phase(self, centre: float) -> NDArray[np.complex64]:
        """Factor of each frequency that brings the rotation axis to 0, with the FFT's scale."""
        turn: NDArray[np.complex64] = self.turn(centre).view(np.complex64)[:, 0]
        return turn

    def steps(self, angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cells along x and y from one frequency to the next, shape ``(n, 2)``."""
        theta = np.deg2rad(angles_deg)
        return np.stack([np.cos(theta), np.sin(theta)], axis=1) * (self.size / self.period)

    def tiles(self, edge: int) -> NDArray[np.int32]:
        """Lowest cell of each square tile, those in the middle first: they have most samples."""
        low = np.arange(-(self.size // 2), self.size - self.size // 2, edge)
        x, y = np.meshgrid(low, low)
        corners = np.stack([x.ravel(), y.ravel()], axis=1)
        distance = np.abs(corners + edge / 2).max(axis=1)
        return corners[np.argsort(distance, kind="stable")].astype(np.int32)
