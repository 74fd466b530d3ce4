"""Phantoms made of ellipsoids, whose projections and volumes are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Object unit, as a part of the camera's columns: radius 1 leaves 6 % of the columns on either
# side, so that the object stays in the frame with the rotation axis off centre.
_UNIT_PER_COLUMN = 0.44
# Two-point Gauss-Legendre nodes: averages over a detector row to fourth order.
_ROW_NODES = np.array([-0.5, 0.5], dtype=np.float64) / math.sqrt(3.0)
_SUBSAMPLES = 5


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A uniform ellipsoid that adds `density` to what it overlaps.

    Attributes
    ----------
    density : float
        Attenuation per object unit.
    semi_axes : tuple of 3 float
        Along x, y (before turning) and z [object unit]; an infinite third one makes a cylinder.
    centre : tuple of 3 float
        x, y, z [object unit].
    turn_deg : float
        Angle of the first axis to x, about z [deg].
    """

    density: float
    semi_axes: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class _Body:
    """An ellipsoid in pixels."""

    density: float
    a: float
    b: float
    c: float
    x: float
    y: float
    z: float
    turn: float

    @classmethod
    def of(cls, shape: Ellipsoid, unit: float) -> _Body:
        (a, b, c), (x, y, z) = shape.semi_axes, shape.centre
        turn = math.radians(shape.turn_deg)
        return cls(
            shape.density / unit, a * unit, b * unit, c * unit, x * unit, y * unit, z * unit, turn
        )

    def extent(self, azimuth: float) -> float:
        """Half-width of the shadow along the direction at `azimuth` [rad] to x [pixel]."""
        return math.hypot(
            self.a * math.cos(azimuth - self.turn), self.b * math.sin(azimuth - self.turn)
        )


@dataclass(frozen=True, slots=True)
class Phantom:
    """A named object: what the simulated beam passes through.

    Attributes
    ----------
    name : str
        Name in ``PHANTOMS``.
    shapes : tuple of Ellipsoid
        What it is made of; densities of shapes that overlap add up.
    """

    name: str
    shapes: tuple[Ellipsoid, ...]

    def project(
        self,
        angle_deg: float,
        *,
        rows: int,
        columns: int,
        centre_px: float,
        down_px: float = 0.0,
    ) -> NDArray[np.float32]:
        """Line integrals of the attenuation along parallel rays.

        A point (x, y) projects to column ``centre_px + x cos(angle) + y sin(angle)``. Along the
        columns the average over a pixel is exact, from the antiderivative of an ellipse's chord
        length; along the rows it is a two-point Gauss rule.

        Parameters
        ----------
        angle_deg : float
            Rotation angle [deg].
        rows, columns : int
            Detector size [pixel].
        centre_px : float
            Column of the rotation axis [pixel].
        down_px : float
            How far the object is moved along the axis, towards higher rows [pixel].

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            Line integrals [1].
        """
        theta = math.radians(angle_deg)
        image = np.zeros((rows, columns))
        for shape in self.shapes:
            body = _Body.of(shape, _UNIT_PER_COLUMN * columns)
            _add_shadow(image, replace(body, z=body.z + down_px), theta, centre_px)
        return image.astype(np.float32)

    def volume(self, rows: int, size: int) -> NDArray[np.float32]:
        """Ground truth: the attenuation averaged over each voxel.

        Pixel ``(row, column)`` of a slice lies at ``x = column - size // 2``,
        ``y = row - size // 2`` from the rotation axis; slice z is detector row z.

        Parameters
        ----------
        rows : int
            Detector rows, hence slices.
        size : int
            Detector columns, hence pixels per side of a slice.

        Returns
        -------
        ndarray of float32, shape (rows, size, size)
            Attenuation [1/pixel].
        """
        volume = np.zeros((rows, size, size), dtype=np.float32)
        for shape in self.shapes:
            _add_body(volume, _Body.of(shape, _UNIT_PER_COLUMN * size))
        return volume


def _span(centre: float, half: float, length: int) -> slice:
    """Pixels of ``range(length)`` that the interval around `centre` may touch."""
    if not math.isfinite(half):
        return slice(0, length)
    first = math.floor(centre - half + 0.5)
    last = math.ceil(centre + half - 0.5)
    return slice(min(max(first, 0), length), max(min(last + 1, length), 0))


def _add_shadow(image: NDArray[np.float64], body: _Body, theta: float, centre_px: float) -> None:
    rows, columns = image.shape
    middle = (rows - 1) / 2 + body.z
    width = body.extent(theta)
    shadow = centre_px + body.x * math.cos(theta) + body.y * math.sin(theta)
    at_rows, at_columns = _span(middle, body.c, rows), _span(shadow, width, columns)
    num_rows, num_columns = at_rows.stop - at_rows.start, at_columns.stop - at_columns.start
    if num_rows <= 0 or num_columns <= 0:
        return
    z = np.arange(at_rows.start, at_rows.stop)[:, None] + _ROW_NODES - middle
    # Radius of the section at each height, in units of the ellipsoid's own: q^2 = 1 - (z/c)^2.
    squared = np.maximum(1.0 - (z.ravel() / body.c) ** 2, 0.0)
    edges = (np.arange(at_columns.start, at_columns.stop + 1) - 0.5 - shadow) / width
    section = np.sqrt(squared)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.clip(np.nan_to_num(edges / section), -1.0, 1.0)
    area = squared[:, None] * (u * np.sqrt(1.0 - u * u) + np.arcsin(u))
    columns_of = np.diff(area, axis=1).reshape(num_rows, len(_ROW_NODES), num_columns).mean(axis=1)
    image[at_rows, at_columns] += (body.density * body.a * body.b) * columns_of


def _add_body(volume: NDArray[np.float32], body: _Body) -> None:
    rows, size, _ = volume.shape
    origin = ((rows - 1) / 2 + body.z, size // 2 + body.y, size // 2 + body.x)
    half = (body.c, body.extent(math.pi / 2), body.extent(0.0))
    box = tuple(_span(o, h, n) for o, h, n in zip(origin, half, (rows, size, size), strict=True))
    if any(part.stop <= part.start for part in box):
        return
    z, y, x = (np.arange(part.start, part.stop) - o for part, o in zip(box, origin, strict=True))
    radius = np.sqrt(_radius_squared(body, z[:, None, None], y[None, :, None], x[None, None, :]))
    # Within this distance of the surface a voxel may be partly outside; the radius changes by at
    # most 1 / (smallest semi-axis) per pixel.
    margin = (math.sqrt(3.0) / 2) / min(body.a, body.b, body.c)
    filling = (radius < 1.0).astype(np.float32)
    at = np.nonzero(np.abs(radius - 1.0) <= margin)
    filling[at] = _fractions(body, z[at[0]], y[at[1]], x[at[2]])
    volume[box] += np.float32(body.density) * filling


def _radius_squared(
    body: _Body, z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    cosine, sine = math.cos(body.turn), math.sin(body.turn)
    result: NDArray[Any] = (
        ((x * cosine + y * sine) / body.a) ** 2
        + ((y * cosine - x * sine) / body.b) ** 2
        + (z / body.c) ** 2
    )
    return result


def _fractions(
    body: _Body, z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Part of each voxel that lies inside, by counting sub-voxels."""
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    inside = np.zeros(len(z), dtype=np.int32)
    for dz in steps:
        for dy in steps:
            for dx in steps:
                inside += _radius_squared(body, z + dz, y + dy, x + dx) <= 1.0
    return (inside / _SUBSAMPLES**3).astype(np.float32)
