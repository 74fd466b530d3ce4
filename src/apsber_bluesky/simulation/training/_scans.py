"""Scans of known samples: what the suite makes of noisy projections, beside the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from apsber_bluesky.core import ImageKey, InputError, SimulationSettings
from apsber_bluesky.processing import average_reference, normalise, reconstruct
from apsber_bluesky.simulation._detector import Detector
from apsber_bluesky.simulation.training._materials import Sample

_NUM_DARKS = 10
_NUM_FLATS = 20


@dataclass(frozen=True, slots=True)
class ScanConditions:
    """How a sample is scanned.

    Attributes
    ----------
    photons : float
        Per pixel of the open beam and projection.
    projections : int
        Over 180 degrees.
    stripe_strength : float
        Relative spread of the columns' gains that the flats do not take away.
    blur_px : float
        Standard deviation of the detector's point spread [pixel].
    filter_name : str
        Window of the ramp filter.
    seed : int
        Seed of the noise.
    """

    photons: float
    projections: int
    stripe_strength: float = 0.0
    blur_px: float = 0.0
    filter_name: str = "ramp"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingScan:
    """What came of a scan, and what should have.

    Attributes
    ----------
    noisy : ndarray of float32, shape (slices, size, size)
        Reconstruction from the scan's projections [1/pixel].
    clean : ndarray of float32, shape (slices, size, size)
        Reconstruction of the same blur, without noise and stripes and from enough angles [1/pixel].
    labels : ndarray of uint8, shape (slices, size, size)
        Index into `SOIL_CLASSES`.
    """

    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]
    labels: NDArray[np.uint8]


def simulate_scan(sample: Sample, conditions: list[ScanConditions]) -> list[TrainingScan]:
    """Scan a sample under several conditions.

    Parameters
    ----------
    sample : Sample
        The sample.
    conditions : list of ScanConditions
        How; each number of projections must divide that of the first, whose angles are computed
        once for all.

    Returns
    -------
    list of TrainingScan
        One for each of the conditions.

    Raises
    ------
    InputError
        If a number of projections does not divide the first.
    """
    labels = sample.labels
    size = labels.shape[1]
    full = conditions[0].projections
    for each in conditions:
        if full % each.projections:
            raise InputError(f"{each.projections} projections do not divide {full}")
    angles = np.arange(full, dtype=np.float64) * (180.0 / full)
    centre = (size - 1) / 2
    truth = sample.line_integrals(angles, centre)
    blurred: dict[float, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    scans = []
    for each in conditions:
        if each.blur_px not in blurred:
            lines = _blur(truth, each.blur_px)
            blurred[each.blur_px] = (lines, reconstruct(lines, angles, centre))
        lines, clean = blurred[each.blur_px]
        step = full // each.projections
        taken = _take(lines[::step], each)
        noisy = reconstruct(taken, angles[::step], centre, filter_name=each.filter_name)
        scans.append(TrainingScan(noisy, clean, labels))
    return scans


def _blur(lines: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The detector spreads light, not line integrals."""
    if not sigma:
        return lines
    light = np.exp(-lines)
    for axis in (1, 2):
        light = gaussian_filter1d(light, sigma, axis=axis, mode="nearest")
    result: NDArray[np.float32] = -np.log(light)
    return result


def _take(lines: NDArray[np.float32], conditions: ScanConditions) -> NDArray[np.float32]:
    """Expose, and correct with darks and flats, as the pipeline does."""
    _, rows, columns = lines.shape
    detector = Detector(
        SimulationSettings(
            rows=rows,
            columns=columns,
            seed=conditions.seed,
            flat_counts=conditions.photons,
            dark_counts=50.0,
            read_noise_counts=2.0,
            stripe_strength=0.0,
        )
    )
    darks = np.stack([detector.expose(ImageKey.DARK, n) for n in range(_NUM_DARKS)])
    flats = np.stack([detector.expose(ImageKey.FLAT, n) for n in range(_NUM_FLATS)])
    frames = np.stack(
        [detector.expose(ImageKey.PROJECTION, n, lines[n]) for n in range(len(lines))]
    )
    result = normalise(
        frames,
        average_reference(darks, what="darks"),
        average_reference(flats, what="flats"),
    )
    # Gains that flats correct leave no stripe; what is left is what changed since.
    random = np.random.default_rng((conditions.seed, 0x57))
    drift = conditions.stripe_strength * random.standard_normal((rows, columns))
    result += gaussian_filter1d(drift, 1.5, axis=0).astype(np.float32)
    return result
