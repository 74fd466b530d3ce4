"""One random sample under several random conditions: what networks are trained on."""

from __future__ import annotations

import numpy as np

from apsber_bluesky.simulation.training._samples import random_sample
from apsber_bluesky.simulation.training._scans import ScanConditions, TrainingScan, simulate_scan

_SCANS = 4
_PROJECTIONS = 400
_FEWER = (400, 200, 100)
_HOW_OFTEN = (0.5, 0.3, 0.2)
# Photons in a pixel over the whole scan, divided by `_PROJECTIONS`; any decade as often.
_PHOTONS = (150.0, 12000.0)
_MOST_PHOTONS = 50000.0  # what the detector's counter holds, with room for noise
_LARGEST_STRIPE = 0.01
_BLUR_PX = (0.2, 0.8)
_FILTERS = ("ramp", "ramp", "ramp", "shepp", "hann")
# One of so many samples is scattered; the others are grown.
_SCATTERED_EVERY = 4


def random_scans(number: int, first_seed: int, *, slices: int, size: int) -> list[TrainingScan]:
    """Scan a sample by chance, four times; equal arguments give equal scans.

    Doses spread over two decades, projections are 400 to 100, stripes and the detector's blur are
    there or not, and the ramp filter has different windows.

    Parameters
    ----------
    number : int
        Which of the samples.
    first_seed : int
        Seed of sample 0; the others follow it.
    slices, size : int
        Slices, and pixels per side of a slice.

    Returns
    -------
    list of TrainingScan
        The scans, which share what is clean and the labels.

    Raises
    ------
    InputError
        If a slice is too small to show anything.
    """
    seed = first_seed + number
    kind = "scattered" if number % _SCATTERED_EVERY == _SCATTERED_EVERY - 1 else "grown"
    return simulate_scan(random_sample(kind, seed, slices=slices, size=size), _conditions(seed))


def _conditions(seed: int) -> list[ScanConditions]:
    random = np.random.default_rng((seed, 77))
    blur = float(random.choice([0.0, random.uniform(*_BLUR_PX)]))
    conditions = []
    for scan in range(_SCANS):
        projections = int(random.choice(_FEWER, p=_HOW_OFTEN)) if scan else _PROJECTIONS
        dose = float(np.exp(random.uniform(*np.log(_PHOTONS)))) * _PROJECTIONS
        stripes = float(random.choice([0.0, random.uniform(0.0, _LARGEST_STRIPE)]))
        conditions.append(
            ScanConditions(
                photons=min(dose / projections, _MOST_PHOTONS),
                projections=projections,
                stripe_strength=stripes,
                blur_px=blur,
                filter_name=str(random.choice(_FILTERS)),
                seed=seed * 10 + scan,
            )
        )
    return conditions
