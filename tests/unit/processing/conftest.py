from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Ellipse = tuple[float, float, float, float, float, float]

# P. Toft, The Radon Transform, 1996, table B.3: (mu, a, b, x0, y0, phi deg) in half widths.
SHEPP_LOGAN: list[Ellipse] = [
    (1.0, 0.69, 0.92, 0, 0, 0),
    (-0.8, 0.6624, 0.8740, 0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0, 18),
    (0.1, 0.21, 0.25, 0, 0.35, 0),
    (0.1, 0.046, 0.046, 0, 0.1, 0),
    (0.1, 0.046, 0.046, 0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
]


class Phantom:
    """Ellipses whose projections are known exactly, averaged over each detector pixel."""

    def __init__(self, ellipses: list[Ellipse], radius_px: float, mu: float = 1.0) -> None:
        r = radius_px
        self.ellipses = [
            (m * mu, a * r, b * r, x * r, y * r, np.deg2rad(phi)) for m, a, b, x, y, phi in ellipses
        ]

    def sinogram(
        self, angles_deg: NDArray[np.float64], columns: int, centre: float
    ) -> NDArray[np.float32]:
        theta = np.deg2rad(angles_deg)
        edges = np.arange(columns + 1) - 0.5 - centre
        lines = np.zeros((len(theta), columns))
        for mu, a, b, x0, y0, phi in self.ellipses:
            width = np.hypot(a * np.cos(theta - phi), b * np.sin(theta - phi))[:, None]
            middle = (x0 * np.cos(theta) + y0 * np.sin(theta))[:, None]
            t = np.clip((edges - middle) / width, -1, 1)
            area = mu * a * b * (t * np.sqrt(1 - t * t) + np.arcsin(t))
            lines += np.diff(area, axis=1)
        return lines.astype(np.float32)

    def image(self, size: int, oversampling: int = 4) -> NDArray[np.float64]:
        fine = (np.arange(size * oversampling) + 0.5) / oversampling - 0.5 - size // 2
        x, y = fine[None, :], fine[:, None]
        picture = np.zeros((len(fine), len(fine)))
        for mu, a, b, x0, y0, phi in self.ellipses:
            along = (x - x0) * np.cos(phi) + (y - y0) * np.sin(phi)
            across = (y - y0) * np.cos(phi) - (x - x0) * np.sin(phi)
            picture += mu * ((along / a) ** 2 + (across / b) ** 2 <= 1)
        blocks = picture.reshape(size, oversampling, size, oversampling)
        return blocks.mean(axis=(1, 3))


@pytest.fixture
def shepp_logan() -> Callable[..., Phantom]:
    return lambda radius_px, mu=0.02: Phantom(SHEPP_LOGAN, radius_px, mu)


@pytest.fixture
def disc() -> Callable[..., Phantom]:
    return lambda radius_px, mu=0.01, x0=0.0, y0=0.0: Phantom(
        [(1.0, 1.0, 1.0, x0 / radius_px, y0 / radius_px, 0.0)], radius_px, mu
    )
