from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from apsber_bluesky.processing import reconstruct

# (mu, a, b, x0, y0, phi deg) in half widths: a bright shell, its inside, holes and grains.
ELLIPSES = [
    (1.0, 0.7, 0.9, 0.0, 0.0, 0.0),
    (-0.6, 0.62, 0.82, 0.0, 0.0, 0.0),
    (-0.4, 0.12, 0.3, 0.22, 0.0, -18.0),
    (0.5, 0.2, 0.2, -0.2, 0.3, 0.0),
    (0.6, 0.04, 0.06, 0.1, -0.5, 30.0),
    (0.6, 0.03, 0.03, -0.3, -0.2, 0.0),
]


@dataclass
class Scan:
    sinograms: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    centre: float

    def slices(self, centre: float | None = None) -> NDArray[np.float32]:
        used = self.centre if centre is None else centre
        return reconstruct(self.sinograms, self.angles_deg, used)

    def half(self, first: int) -> NDArray[np.float32]:
        chosen = slice(first, None, 2)
        return reconstruct(self.sinograms[chosen], self.angles_deg[chosen], self.centre)


def take_scan(
    *,
    angles: NDArray[np.float64] | None = None,
    columns: int = 128,
    rows: int = 4,
    centre: float = 66.4,
    flat_counts: float = 20000.0,
    radius: float = 54.0,
    seed: int = 0,
) -> Scan:
    """Exact projections of the phantom, with the photon noise of a detector."""
    angles = np.arange(180.0) if angles is None else angles
    theta = np.deg2rad(angles)
    edges = np.arange(columns + 1) - 0.5 - centre
    lines = np.zeros((len(theta), columns))
    for mu, a, b, x0, y0, phi in ELLIPSES:
        a, b, x0, y0, turn = a * radius, b * radius, x0 * radius, y0 * radius, np.deg2rad(phi)
        width = np.hypot(a * np.cos(theta - turn), b * np.sin(theta - turn))[:, None]
        t = np.clip((edges - (x0 * np.cos(theta) + y0 * np.sin(theta))[:, None]) / width, -1, 1)
        lines += np.diff(0.02 * mu * a * b * (t * np.sqrt(1 - t * t) + np.arcsin(t)), axis=1)
    stack = np.repeat(lines[:, None], rows, axis=1)
    counts = np.random.default_rng(seed).poisson(flat_counts * np.exp(-stack))
    noisy = -np.log(np.maximum(counts / flat_counts, 1e-4))
    return Scan(noisy.astype(np.float32), angles, centre)


@pytest.fixture
def scan() -> Callable[..., Scan]:
    return take_scan
