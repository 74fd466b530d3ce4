"""The named phantoms; their densities make the largest line integral about 1.7."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._phantoms import Ellipsoid, Phantom

_SOIL_SEED = 20240607


def _disc() -> tuple[Ellipsoid, ...]:
    # Off the axis, so that its shadow moves with the angle and the rotation centre can be found.
    return (Ellipsoid(1.12, (0.75, 0.75, float("inf")), (0.06, -0.04, 0.0)),)


def _shepp_logan() -> tuple[Ellipsoid, ...]:
    """Three-dimensional Shepp-Logan head with Toft's contrast.

    Kak & Slaney, *Principles of Computerized Tomographic Imaging* (1988), table 3.1 and its
    three-dimensional form; P. Toft, *The Radon Transform* (1996), for the densities.
    """
    table = (
        (1.0, (0.69, 0.92, 0.81), (0.0, 0.0, 0.0), 0.0),
        (-0.8, (0.6624, 0.874, 0.78), (0.0, -0.0184, 0.0), 0.0),
        (-0.2, (0.11, 0.31, 0.22), (0.22, 0.0, 0.0), -18.0),
        (-0.2, (0.16, 0.41, 0.28), (-0.22, 0.0, 0.0), 18.0),
        (0.1, (0.21, 0.25, 0.41), (0.0, 0.35, -0.15), 0.0),
        (0.1, (0.046, 0.046, 0.05), (0.0, 0.1, 0.25), 0.0),
        (0.1, (0.046, 0.046, 0.05), (0.0, -0.1, 0.25), 0.0),
        (0.1, (0.046, 0.023, 0.05), (-0.08, -0.605, 0.0), 0.0),
        (0.1, (0.023, 0.023, 0.02), (0.0, -0.606, 0.0), 0.0),
        (0.1, (0.023, 0.046, 0.02), (0.06, -0.605, 0.0), 0.0),
    )
    scale = 3.2
    return tuple(Ellipsoid(scale * rho, axes, at, turn) for rho, axes, at, turn in table)


@dataclass(frozen=True, slots=True)
class SoilShapes:
    """The ellipsoids of a soil core, by what they are.

    Attributes
    ----------
    tube, core : Ellipsoid
        The tube, and the matrix that fills it.
    aggregates, pores, grains, roots : list of Ellipsoid
        What lies in the matrix.
    """

    tube: Ellipsoid
    core: Ellipsoid
    aggregates: list[Ellipsoid]
    pores: list[Ellipsoid]
    grains: list[Ellipsoid]
    roots: list[Ellipsoid]

    @property
    def all(self) -> tuple[Ellipsoid, ...]:
        """All of them."""
        parts = (self.aggregates, self.pores, self.grains, self.roots)
        return (self.tube, self.core, *(shape for part in parts for shape in part))

    def moved(self, up: float) -> SoilShapes:
        """What lies in the matrix, moved along the axis [object unit]."""
        parts = (self.aggregates, self.pores, self.grains, self.roots)
        return SoilShapes(self.tube, self.core, *([_moved(s, up) for s in part] for part in parts))


def _moved(shape: Ellipsoid, up: float) -> Ellipsoid:
    x, y, z = shape.centre
    return replace(shape, centre=(x, y, z + up))


def _turned(shape: Ellipsoid, turn_deg: float) -> Ellipsoid:
    turn, (x, y, z) = np.deg2rad(turn_deg), shape.centre
    cosine, sine = float(np.cos(turn)), float(np.sin(turn))
    centre = (x * cosine - y * sine, x * sine + y * cosine, z)
    return replace(shape, centre=centre, turn_deg=shape.turn_deg + turn_deg)


def scatter_soil(
    random: np.random.Generator,
    *,
    aggregates: int = 14,
    pores: int = 26,
    grains: int = 22,
    contrast: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    root_turn_deg: float = 0.0,
) -> SoilShapes:
    """A soil core: matrix in a tube, aggregates, pores, mineral grains and a branched root.

    Parameters
    ----------
    random : numpy.random.Generator
        Where the shapes come from.
    aggregates, pores, grains : int
        How many of each.
    contrast : sequence of 4 float
        Factors on the contrast of aggregates, pores, grains and roots to the matrix.
    root_turn_deg : float
        How far the root is turned about the axis [deg].

    Returns
    -------
    SoilShapes
        The shapes; where they overlap their densities add up.
    """
    matrix = 0.8
    tube = Ellipsoid(0.35, (0.93, 0.93, float("inf")))
    core = Ellipsoid(matrix - 0.35, (0.88, 0.88, float("inf")))

    def scatter(count: int, density: float, smallest: float, largest: float) -> Iterator[Ellipsoid]:
        for _ in range(count):
            size = random.uniform(smallest, largest)
            axes = size * random.uniform(0.7, 1.3, 3)
            reach = 0.86 - 1.3 * size
            radius, azimuth = reach * np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
            x, y = radius * np.cos(azimuth), radius * np.sin(azimuth)
            z, turn = random.uniform(-0.9, 0.9), random.uniform(0, 180)
            a, b, c = (float(axis) for axis in axes)
            yield Ellipsoid(density, (a, b, c), (float(x), float(y), float(z)), turn)

    denser, thinner, heavier, watery = contrast
    return SoilShapes(
        tube,
        core,
        list(scatter(aggregates, 0.21 * denser, 0.10, 0.24)),
        list(scatter(pores, -0.28 * thinner, 0.03, 0.09)),
        list(scatter(grains, 1.2 * heavier, 0.012, 0.035)),
        [
            replace(_turned(shape, root_turn_deg), density=shape.density * watery)
            for shape in _root(matrix)
        ],
    )


def _soil() -> tuple[Ellipsoid, ...]:
    return scatter_soil(np.random.default_rng(_SOIL_SEED)).all


def _root(matrix: float) -> list[Ellipsoid]:
    """A tap root that winds down the core, with side roots; water, so thinner than the matrix."""
    thinner = -0.55 * matrix
    tap = [
        Ellipsoid(
            thinner * 0.5,
            (0.075, 0.06, 0.17),
            (0.12 * np.cos(2.2 * z) - 0.05, 0.12 * np.sin(1.7 * z), float(z)),
            40.0 * float(z),
        )
        for z in np.linspace(-0.9, 0.9, 11)
    ]
    sides = [
        Ellipsoid(thinner * 0.5, (0.30, 0.02, 0.025), (0.25, 0.05, z), turn)
        for z, turn in ((-0.5, 15.0), (-0.1, 75.0), (0.3, -30.0), (0.6, 50.0))
    ]
    return tap + sides


_SHAPES: dict[str, Callable[[], tuple[Ellipsoid, ...]]] = {
    "disc": _disc,
    "shepp_logan": _shepp_logan,
    "soil": _soil,
}
PHANTOMS = tuple(sorted(_SHAPES))
"""Names of the phantoms."""


def make_phantom(name: str) -> Phantom:
    """Build a phantom by name.

    Parameters
    ----------
    name : str
        One of ``PHANTOMS``: ``disc`` is uniform (for the accuracy of mu), ``shepp_logan`` the
        usual head, ``soil`` a root in a soil core.

    Returns
    -------
    Phantom
        The phantom.

    Raises
    ------
    InputError
        If no phantom has this name.
    """
    if name not in _SHAPES:
        raise InputError(f"unknown phantom {name!r}; choose one of {', '.join(PHANTOMS)}")
    return Phantom(name, _SHAPES[name]())
