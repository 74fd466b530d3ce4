"""What is known of a volume: unit, OME-Zarr 0.5 metadata, how it came about."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apsber_bluesky.core import PROGRAM, InputError, ProcessRecord
from apsber_bluesky.storage._pyramid import PyramidLevel
from apsber_bluesky.storage._volume_content import ATTENUATION, VolumeContent

AXES = ("z", "y", "x")
CHANNEL = "c"
OUR_KEY = PROGRAM
"""Attribute that holds what OME-Zarr has no word for: unit of the values, checksum."""


def _axis(name: str, known: bool) -> dict[str, str]:
    if name == CHANNEL:
        return {"name": name, "type": "channel"}
    axis = {"name": name, "type": "space"}
    return axis | {"unit": "micrometer"} if known else axis


def _transformations(
    level: PyramidLevel, voxel_size_um: float, *, channels: bool
) -> list[dict[str, Any]]:
    scale = [factor * voxel_size_um for factor in level.factors]
    # A coarse voxel is centred on the block of voxels that it stands for.
    translation = [(factor - 1) / 2 * voxel_size_um for factor in level.factors]
    return [
        {"type": "scale", "scale": [1.0, *scale] if channels else scale},
        {"type": "translation", "translation": [0.0, *translation] if channels else translation},
    ]


def ome_attributes(
    name: str,
    levels: Sequence[PyramidLevel],
    voxel_size_um: float | None,
    content: VolumeContent = ATTENUATION,
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
    content : VolumeContent
        What the values are.

    Returns
    -------
    dict
        Plain JSON values, as the specification wants them
        (https://ngff.openmicroscopy.org/0.5/).
    """
    size = 1.0 if voxel_size_um is None else voxel_size_um
    label, channels = content.image_label, content.channels > 0
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": "mean" if label is None else "mode",
                "axes": [_axis(axis, voxel_size_um is not None) for axis in axes_of(content)],
                "datasets": [
                    {
                        "path": str(number),
                        "coordinateTransformations": _transformations(
                            level, size, channels=channels
                        ),
                    }
                    for number, level in enumerate(levels)
                ],
            }
        ],
        **({} if label is None else {"image-label": label}),
    }


def axes_of(content: VolumeContent) -> tuple[str, ...]:
    """Names of the axes."""
    return (CHANNEL, *AXES) if content.channels else AXES


def unit_and_factor(voxel_size_um: float | None) -> tuple[str, float]:
    """Unit of the stored values, and the stored value of an attenuation of 1 per pixel.

    Raises
    ------
    InputError
        If the voxel size is not positive.
    """
    if voxel_size_um is None:
        return "1/pixel", 1.0
    if not (math.isfinite(voxel_size_um) and voxel_size_um > 0):
        raise InputError(f"voxel_size_um is {voxel_size_um!r}; give a positive length or None")
    return "1/m", 1e6 / voxel_size_um


def finished_chain(
    processes: Sequence[ProcessRecord], name: str, checksum: str
) -> list[ProcessRecord]:
    """The chain of transformations; its last step, which made the volume, ends now."""
    if not processes:
        return []
    last = replace(processes[-1], outputs={name: checksum}, finished_s=time.time())
    return [*processes[:-1], last]


def provenance(
    processes: Sequence[ProcessRecord], name: str, checksum: str
) -> dict[str, list[dict[str, Any]]]:
    """The chain of transformations as plain values; its last step made the volume.

    Parameters
    ----------
    processes : sequence of ProcessRecord
        The chain, empty if it is kept elsewhere.
    name, checksum : str
        The volume.
    """
    chain = finished_chain(processes, name, checksum)
    return {"processes": [record.to_dict() for record in chain]} if chain else {}
