"""Soil cores with a texture: aggregates, the pore space between them, roots and mineral grains."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, gaussian_filter

from apsber_bluesky.processing import Projector
from apsber_bluesky.simulation.training._materials import (
    AGGREGATE,
    BACKGROUND,
    LARGEST_LINE_INTEGRAL,
    MINERAL,
    PORE,
    ROOT,
    RelativeMaterials,
)

# Samples are drawn this many times finer than they are seen, so that edges have partial pixels.
_FINER = 2
# A voxel's edge, softened so that the finer image holds no more than the projector can carry.
_EDGE = 0.6


class GrownCore:
    """A soil core from thresholded random fields, with roots that wander down it.

    Aggregates are where a sum of two Gaussian random fields is high, which gives the connected,
    two-scale pore space of structured soil (the level-cut model of R. J. Adler, *The Geometry of
    Random Fields*, 1981, as it is used for porous media).

    Parameters
    ----------
    seed : int
        Seed of everything.
    slices, size : int
        Shape of the labels.
    """

    def __init__(self, seed: int, *, slices: int, size: int) -> None:
        self._slices, self._size = slices, size
        random = np.random.default_rng((seed, 0x9208))
        fine = _FINER * size
        self._y, self._x = np.indices((fine, fine), np.float32)
        self._y -= fine // 2
        self._x -= fine // 2
        self._labels = np.zeros((slices, fine, fine), np.uint8)
        self._attenuation = np.zeros((slices, fine, fine), np.float32)
        pore = 0.0 if random.uniform() < 0.5 else random.uniform(0.05, 0.65)
        root = _apart_from(pore, random)
        self._materials = RelativeMaterials(
            pore, root, random.uniform(1.7, 3.5), random.uniform(0.25, 0.6)
        )
        self._grow(random, 0.44 * fine * random.uniform(0.8, 0.98))

    def _grow(self, random: np.random.Generator, radius: float) -> None:
        distance = np.hypot(self._x, self._y)
        wall = radius * random.uniform(0.03, 0.08) if random.uniform() < 0.8 else 0.0
        inside = distance < radius - wall
        labels, values, kinds = self._labels, self._attenuation, self._materials
        values[:, (distance < radius) & ~inside] = kinds.tube
        field = self._field(random, radius * random.uniform(0.025, 0.07))
        field += random.uniform(0.3, 1.0) * self._field(random, radius * random.uniform(0.08, 0.2))
        porosity = random.uniform(0.08, 0.45)
        solid = field > np.quantile(field[:, inside][:, ::17], porosity)
        dense = 1.0 + random.uniform(0.0, 0.12) * self._field(random, radius * 0.12)
        labels[:, inside] = np.where(solid, AGGREGATE, PORE)[:, inside]
        values[:, inside] = np.where(solid, dense, kinds.pore)[:, inside]
        self._add_grains(random, radius - wall)
        for _ in range(int(random.integers(1, 5))):
            self._add_root(random, radius - wall)
        # The tube's inner edge keeps what grows inside from sticking out.
        labels[:, ~inside] = BACKGROUND
        values[:, distance >= radius] = 0.0

    def _field(self, random: np.random.Generator, length: float) -> NDArray[np.float32]:
        """A random field of mean 0 and spread 1 with this correlation length [fine pixel]."""
        # Drawn coarsely where it is smooth anyway.
        step = max(1, int(length / 3))
        depth, side = -(-self._slices // step) + 2, -(-self._labels.shape[1] // step) + 1
        # One detector row is as high as a pixel is wide: _FINER fine pixels.
        sigma = (length / step / _FINER, length / step, length / step)
        noise = gaussian_filter(
            random.standard_normal((depth, side, side), dtype=np.float32), sigma, mode="wrap"
        )
        noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
        rows = np.linspace(0, (self._slices - 1) / step, self._slices)
        return _enlarge(noise, rows, self._labels.shape[1], step)

    def _add_grains(self, random: np.random.Generator, radius: float) -> None:
        for _ in range(int(random.integers(10, 50))):
            size = radius * random.uniform(0.012, 0.05)
            reach, azimuth = radius * np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
            at = (random.uniform(-4, self._slices + 4), reach * np.sin(azimuth))
            self._fill_ellipsoid(
                (*at, reach * np.cos(azimuth)),
                size * random.uniform(0.6, 1.5, 3),
                MINERAL,
                self._materials.mineral * random.uniform(0.9, 1.1),
            )

    def _add_root(self, random: np.random.Generator, radius: float) -> None:
        """Spheres along a path that turns slowly; some roots run across the core."""
        thick = radius * random.uniform(0.02, 0.11)
        value = self._materials.root * random.uniform(0.95, 1.05)
        at = np.array([random.uniform(-0.7, 0.7) * radius for _ in range(3)])
        at[0] = _FINER * random.uniform(-2, self._slices + 2)
        heading = random.standard_normal(3) * (random.choice([3.0, 1.0, 0.2]), 1.0, 1.0)
        for way in (1.0, -1.0):
            here, course = at.copy(), way * heading / np.linalg.norm(heading)
            for _ in range(120):
                self._fill_ellipsoid(
                    (here[0] / _FINER, here[1], here[2]), np.full(3, thick), ROOT, value
                )
                course += 0.12 * random.standard_normal(3)
                course /= np.linalg.norm(course)
                here = here + 0.45 * thick * course
                if np.hypot(here[1], here[2]) > radius - thick:
                    break

    def _fill_ellipsoid(
        self,
        centre: tuple[float, float, float],
        axes: NDArray[np.float64],
        label: int,
        value: float,
    ) -> None:
        """Fill an ellipsoid; `centre` is in slices and, from the axis, fine pixels."""
        z0, y0, x0 = centre
        c, b, a = (float(axis) for axis in axes)
        half, fine = self._labels.shape[1] // 2, self._labels.shape[1]
        zs = slice(max(int(z0 - c / _FINER), 0), min(int(z0 + c / _FINER) + 2, self._slices))
        ys = slice(max(int(y0 + half - b), 0), min(int(y0 + half + b) + 2, fine))
        xs = slice(max(int(x0 + half - a), 0), min(int(x0 + half + a) + 2, fine))
        if zs.stop <= zs.start or ys.stop <= ys.start or xs.stop <= xs.start:
            return
        z, y, x = np.ogrid[zs, ys, xs]
        within = ((z - z0) * _FINER / c) ** 2 + ((y - half - y0) / b) ** 2
        full = within + ((x - half - x0) / a) ** 2 <= 1.0
        self._labels[zs, ys, xs][full] = label
        self._attenuation[zs, ys, xs][full] = value

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Index into `SOIL_CLASSES`: what most of a voxel is, shape ``(slices, size, size)``."""
        # The axis lies in the middle of a pixel, so each pixel has a fine one in its middle and
        # half of the fine ones to its sides.
        most = np.zeros((self._slices, self._size, self._size), np.uint8)
        largest = np.full(most.shape, -1.0, np.float32)
        for kind in range(MINERAL + 1):
            part = _halved((self._labels == kind).astype(np.float32))
            more = part > largest
            most[more], largest[more] = kind, part[more]
        return most

    def line_integrals(
        self, angles_deg: NDArray[np.float64], centre_px: float
    ) -> NDArray[np.float32]:
        """What the beam sees, shape ``(angles, slices, size)`` [1]."""
        image = gaussian_filter(self._attenuation, (0.0, _EDGE, _EDGE))
        image *= LARGEST_LINE_INTEGRAL / (0.8 * image.shape[1])
        # The middle of a detector pixel lies between the two fine ones that it is made of.
        centre = _FINER * centre_px + (_FINER - 1) / 2
        fine = Projector(image.shape[1], angles_deg, centre).project(image)
        shape = (len(angles_deg), self._slices, self._size, _FINER)
        seen: NDArray[np.float32] = np.maximum(fine.reshape(shape).mean(axis=3), 0.0)
        return seen


def _halved(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every second pixel of each side, averaged over two pixels around it."""
    for axis in (1, 2):
        images = convolve1d(images, (0.25, 0.5, 0.25), axis=axis, mode="nearest")
    every: NDArray[np.float32] = images[:, ::_FINER, ::_FINER]
    return every


def _apart_from(pore: float, random: np.random.Generator) -> float:
    """Attenuation of roots: like water, but not like what fills the pores."""
    while True:
        root = random.uniform(0.25, 0.78)
        if abs(root - pore) > 0.12:
            return root


def _enlarge(
    field: NDArray[np.float32], rows: NDArray[np.float64], size: int, step: int
) -> NDArray[np.float32]:
    """Linear interpolation of a coarse field."""
    low = np.minimum(rows.astype(int), len(field) - 2)
    part = (rows - low).astype(np.float32)[:, None, None]
    tall = field[low] * (1 - part) + field[low + 1] * part
    if step == 1:
        cut: NDArray[np.float32] = tall[:, :size, :size].copy()
        return cut
    at = np.arange(size) / step
    left = np.minimum(at.astype(int), tall.shape[1] - 2)
    share = (at - left).astype(np.float32)
    wide = tall[:, :, left] * (1 - share) + tall[:, :, left + 1] * share
    share = share[:, None]
    result: NDArray[np.float32] = wide[:, left] * (1 - share) + wide[:, left + 1] * share
    return result
