"""OME-Zarr 0.5 metadata of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apsber_bluesky.core import PROGRAM
from apsber_bluesky.storage._pyramid import PyramidLevel

AXES = ("z", "y", "x")
OUR_KEY = PROGRAM
"""Attribute that holds what OME-Zarr has no word for: unit of the values, checksum."""


def _axis(name: str, known: bool) -> dict[str, str]:
    axis = {"name": name, "type": "space"}
    return axis | {"unit": "micrometer"} if known else axis


def _transformations(level: PyramidLevel, voxel_size_um: float) -> list[dict[str, Any]]:
    # A coarse voxel is centred on the block of voxels that it averages.
    return [
        {"type": "scale", "scale": [factor * voxel_size_um for factor in level.factors]},
        {
            "type": "translation",
            "translation": [(factor - 1) / 2 * voxel_size_um for factor in level.factors],
        },
    ]


def ome_attributes(
    name: str, levels: Sequence[PyramidLevel], voxel_size_um: float | None
) -> dict[str, Any]:
    """Compose the ``ome`` attribute of the group.

    Parameters
    ----------
    name : str
        Name of the image.
    levels : sequence of PyramidLevel
        The levels; the dataset of level ``k`` is called ``str(k)``.
    voxel_size_um : float or None
        Edge of a voxel of the full volume [um]; if None, lengths are in voxels and the axes
        have no unit.

    Returns
    -------
    dict
        Plain JSON values, as the specification wants them
        (https://ngff.openmicroscopy.org/0.5/).
    """
    size = 1.0 if voxel_size_um is None else voxel_size_um
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": "mean",
                "axes": [_axis(axis, voxel_size_um is not None) for axis in AXES],
                "datasets": [
                    {
                        "path": str(number),
                        "coordinateTransformations": _transformations(level, size),
                    }
                    for number, level in enumerate(levels)
                ],
            }
        ],
    }
