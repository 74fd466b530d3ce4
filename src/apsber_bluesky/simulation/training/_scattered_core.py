"""Soil cores made of ellipsoids, as the phantom ``soil`` is, whose projections are exact."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.simulation._named_phantoms import SoilShapes, scatter_soil
from apsber_bluesky.simulation._phantoms import Ellipsoid, Phantom
from apsber_bluesky.simulation.training._materials import (
    AGGREGATE,
    MINERAL,
    PORE,
    ROOT,
)


class ScatteredCore:
    """A core of the family that the phantom ``soil`` belongs to.

    Parameters
    ----------
    seed : int or SoilShapes
        Seed of the shapes, or the shapes themselves.
    slices, size : int
        Shape of the labels.
    """

    def __init__(self, seed: int | SoilShapes, *, slices: int, size: int) -> None:
        shapes = seed if isinstance(seed, SoilShapes) else _vary(seed)
        self._shapes, self._slices, self._size = shapes, slices, size
        # Shown at a height of its own; a few slices see only a part of the core.
        self._phantom = Phantom("soil", shapes.all)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Index into `SOIL_CLASSES`, shape ``(slices, size, size)``; what covers what is fixed."""
        labels = np.zeros((self._slices, self._size, self._size), np.uint8)
        labels[self._inside([self._shapes.core])] = AGGREGATE
        inside = labels == AGGREGATE
        for shapes, label in (
            (self._shapes.pores, PORE),
            (self._shapes.roots, ROOT),
            (self._shapes.grains, MINERAL),
        ):
            labels[self._inside(shapes) & inside] = label
        return labels

    def _inside(self, shapes: list[Ellipsoid]) -> NDArray[np.bool_]:
        """Where any of the ellipsoids fills at least half of a voxel."""
        found = np.zeros((self._slices, self._size, self._size), np.bool_)
        unit = Phantom("one", (Ellipsoid(1.0, (1.0, 1.0, float("inf"))),))
        one = float(unit.volume(1, self._size).max())
        for shape in shapes:
            alone = Ellipsoid(1.0, shape.semi_axes, shape.centre, shape.turn_deg)
            found |= Phantom("", (alone,)).volume(self._slices, self._size) >= 0.5 * one
        return found

    def line_integrals(
        self, angles_deg: NDArray[np.float64], centre_px: float
    ) -> NDArray[np.float32]:
        """What the beam sees, shape ``(angles, slices, size)`` [1]."""
        seen = [
            self._phantom.project(
                float(angle), rows=self._slices, columns=self._size, centre_px=centre_px
            )
            for angle in angles_deg
        ]
        return np.maximum(np.stack(seen), np.float32(0))


def _vary(seed: int) -> SoilShapes:
    """Another core of the family: other places, sizes, numbers and densities, at some height."""
    random = np.random.default_rng((seed, 0x5CA7))
    shapes = scatter_soil(
        random,
        aggregates=int(random.integers(10, 50)),
        pores=int(random.integers(30, 150)),
        grains=int(random.integers(30, 120)),
        contrast=[float(factor) for factor in random.uniform(0.8, 1.3, 4)],
        root_turn_deg=float(random.uniform(0, 360)),
    )
    # The slices that are seen lie around height 0: other parts of the core are moved there.
    return shapes.moved(float(random.uniform(-0.8, 0.8)))
