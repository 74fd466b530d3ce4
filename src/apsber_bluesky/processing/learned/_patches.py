"""Patches of examples, drawn, turned and mirrored by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing.learned._examples import UNKNOWN, ExampleFolder

# How often a patch is drawn around a voxel of a class chosen by chance, rather than anywhere.
_CLASS_FIRST = 0.5


@dataclass(frozen=True, slots=True)
class PatchDraw:
    """How patches are drawn.

    Attributes
    ----------
    slices : int
        Neighbouring slices that go in.
    size : int
        Rows and columns of a patch.
    labels : bool
        Whether the target is the labels.
    scale_spread : float
        Values are multiplied by ``exp`` of a normal number of this spread.
    """

    slices: int
    size: int
    labels: bool
    scale_spread: float = 0.0


def draw_patch(
    folder: ExampleFolder, draw: PatchDraw, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A patch by chance, turned and mirrored by chance.

    Returns
    -------
    inputs : ndarray of float32, shape (slices, size, size)
        Neighbouring slices.
    target : ndarray, shape (size, size)
        The middle slice as it should be: float32, or labels.
    """
    number = int(random.integers(folder.description.volumes))
    inputs = folder.inputs(number)
    variants, depth, rows, columns = inputs.shape
    variant, half = int(random.integers(variants)), draw.slices // 2
    z = int(random.integers(half, depth - half))
    row, column = _corner(folder, number, z, draw, random, (rows, columns))
    window = (slice(row, row + draw.size), slice(column, column + draw.size))
    images = np.asarray(inputs[variant, z - half : z + half + 1, *window], np.float32)
    if draw.labels:
        target = np.asarray(folder.labels(number)[z, *window])
    else:
        targets = folder.targets(number)
        target = np.asarray(targets[min(variant, len(targets) - 1), z, *window], np.float32)
    if draw.scale_spread:
        images *= np.float32(np.exp(draw.scale_spread * random.standard_normal()))
    return _turn(images, target, random)


def _corner(
    folder: ExampleFolder,
    number: int,
    z: int,
    draw: PatchDraw,
    random: np.random.Generator,
    shape: tuple[int, int],
) -> tuple[int, int]:
    last = [length - draw.size for length in shape]
    if draw.labels and random.uniform() < _CLASS_FIRST:
        labels = folder.labels(number)[z]
        known = np.unique(labels)
        known = known[known != UNKNOWN]
        if len(known):
            places = np.flatnonzero(labels == random.choice(known))
            place = divmod(int(random.choice(places)), shape[1])
            shifts = random.integers(0, draw.size, 2)
            row, column = (
                int(np.clip(at - shift, 0, end))
                for at, shift, end in zip(place, shifts, last, strict=True)
            )
            return row, column
    return int(random.integers(last[0] + 1)), int(random.integers(last[1] + 1))


def _turn(
    images: NDArray[np.float32], target: NDArray[Any], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    if random.integers(2):
        images = images[::-1]
    if random.integers(2):
        images, target = images[:, ::-1], target[::-1]
    quarter = int(random.integers(4))
    images, target = np.rot90(images, quarter, (1, 2)), np.rot90(target, quarter)
    return np.ascontiguousarray(images), np.ascontiguousarray(target)
