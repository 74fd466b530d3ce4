"""What the benchmarks of learned models share: scans of held-out phantoms, at known doses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from apsber_bluesky.core import LearnedSettings
from apsber_bluesky.processing.learned import Denoiser, Model, find_model, load_model, object_level
from apsber_bluesky.simulation.training import (
    SOIL_CLASSES,
    ScanConditions,
    TrainingScan,
    random_sample,
    simulate_scan,
)

DOSES = {"full": 4000.0, "quarter": 1000.0, "tenth": 400.0}
"""Photons per pixel of the open beam and projection, at `PROJECTIONS` projections."""

PROJECTIONS = 400
SIZE, SLICES = 256, 16
# Networks were trained on seeds from 1000 on and held against those from 900 000 on.
JUDGED_SEED, TUNING_SEED = 970_000, 1000
_KINDS = ("grown", "scattered", "grown", "grown")
_ERODED_PX = 2


@dataclass(frozen=True, slots=True)
class Phantom:
    """A sample, scanned at every dose.

    Attributes
    ----------
    scans : dict
        By name of the dose.
    filtered : dict
        Reconstructions by dose and window of the ramp filter [1/pixel].
    """

    scans: dict[str, TrainingScan]
    filtered: dict[str, dict[str, NDArray[np.float32]]]

    @property
    def clean(self) -> NDArray[np.float32]:
        """What is true, as far as the detector and the engine can tell [1/pixel]."""
        return next(iter(self.scans.values())).clean

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Index into `SOIL_CLASSES`."""
        return next(iter(self.scans.values())).labels

    def middle(self, count: int) -> slice:
        """Some slices in the middle."""
        first = (len(self.labels) - count) // 2
        return slice(first, first + count)


def make_phantoms(
    first_seed: int, count: int, *, size: int = SIZE, windows: tuple[str, ...] = ()
) -> list[Phantom]:
    """Scan phantoms of both families.

    Parameters
    ----------
    first_seed, count : int
        Seed of the first, and how many.
    size : int
        Pixels per side of a slice.
    windows : tuple of str
        Windows of the ramp filter to reconstruct the same noise with, too.
    """
    found = []
    for number in range(count):
        seed = first_seed + number
        sample = random_sample(_KINDS[number % len(_KINDS)], seed, slices=SLICES, size=size)
        wanted = {
            (dose, window): ScanConditions(photons, PROJECTIONS, filter_name=window, seed=seed)
            for dose, photons in DOSES.items()
            for window in ("ramp", *windows)
        }
        scans = dict(zip(wanted, simulate_scan(sample, list(wanted.values())), strict=True))
        found.append(
            Phantom(
                {dose: scans[dose, "ramp"] for dose in DOSES},
                {d: {name: scans[d, name].noisy for name in windows} for d in DOSES},
            )
        )
    return found


def options(description: str) -> argparse.ArgumentParser:
    """The options that these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few small phantoms, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--denoiser", default="denoiser", help="name of a model, or its card")
    parser.add_argument("--picture", type=Path, help="PNG file to draw")
    return parser


def open_model(name: str) -> Model:
    """A model, on the processor."""
    card, folder = find_model(name, None)
    return load_model(card, folder, LearnedSettings(model=name, device="cpu"))


def denoise(model: Model, volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Denoise as the pipeline does: the level is that of the noisy volume."""
    stream = Denoiser(model).slabs(_shape(volume), level_of(volume))
    return np.concatenate([answer for _, answer in stream.run(volume)])


def level_of(volume: NDArray[np.float32]) -> float:
    """Level of the central slices."""
    first = len(volume) // 2 - 2
    return object_level(volume[first : first + 5])


def inner(labels: NDArray[np.uint8], kind: int) -> NDArray[np.bool_]:
    """Voxels of a class that are at least two pixels away from others, in their slice."""
    cross = np.zeros((3, 3, 3), np.bool_)
    cross[1, 1, :] = cross[1, :, 1] = True
    eroded: NDArray[np.bool_] = binary_erosion(labels == kind, cross, iterations=_ERODED_PX)
    return eroded


def class_key(name: str) -> str:
    """Name of a class as a key of a figure."""
    return name.replace(" ", "_")


def _shape(volume: NDArray[np.float32]) -> tuple[int, int, int]:
    slices, rows, columns = volume.shape
    return slices, rows, columns


CLASSES = SOIL_CLASSES
