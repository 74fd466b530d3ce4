"""What stands in the beam during one exposure, beside the sample's angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.simulation._filters import Foil


@dataclass(frozen=True, slots=True)
class Scene:
    """The beam and the sample's place at one time.

    Attributes
    ----------
    x_mm, y_mm : float
        How far the sample stage has moved the sample, with its rotation axis: towards higher
        columns, and towards higher rows [mm].
    roll_deg : float
        Lean of the rotation axis in the plane of the detector, towards higher columns in higher
        rows [deg].
    energy_keV : float or None
        Photon energy [keV]; None for that of the settings.
    filters : tuple of Foil
        What stands before the sample.
    has_beam : bool
        Whether the ring delivers light.
    """

    x_mm: float = 0.0
    y_mm: float = 0.0
    roll_deg: float = 0.0
    energy_keV: float | None = None
    filters: tuple[Foil, ...] = ()
    has_beam: bool = True


STILL = Scene()


def rows_beyond(columns: int, roll_deg: float) -> int:
    """Rows above and below a picture that come into it when it leans over."""
    return math.ceil(abs(math.sin(math.radians(roll_deg))) * columns) + 2 if roll_deg else 0


def roll_image(image: NDArray[np.float32], axis_px: float, roll_deg: float) -> NDArray[np.float32]:
    """Lean a picture over, about the place where the rotation axis crosses the middle row.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, columns)
        The picture with an upright axis.
    axis_px : float
        Column of the axis [pixel].
    roll_deg : float
        How far, towards higher columns in higher rows [deg].

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        The picture as the detector sees it, by cubic splines.
    """
    # Imported here: an upright axis does without.
    from scipy import ndimage

    roll = math.radians(roll_deg)
    pivot = np.array([(image.shape[0] - 1) / 2, axis_px])
    back = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    leaning: NDArray[np.float32] = ndimage.affine_transform(
        image, back, pivot - back @ pivot, order=3
    )
    # Splines swing below zero beside edges; nothing attenuates less than nothing.
    return np.maximum(leaning, np.float32(0))
