"""Read a volume back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
import zarr.errors

from apsber_bluesky.core import DataFileError
from apsber_bluesky.storage._volume_metadata import OUR_KEY


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """What is known about a volume without reading its values.

    Attributes
    ----------
    path : Path
        The OME-Zarr directory.
    shape : tuple of int
        Shape ``(slices, rows, columns)`` of the full level, or with channels before them.
    dtype : str
        NumPy dtype string.
    unit : str
        Unit of the values, ``"1/m"`` or ``"1/pixel"`` of attenuation; empty if another program
        wrote the file.
    voxel_size_um : float or None
        Edge of a voxel [um], None if unknown.
    checksum : str
        `apsber_bluesky.core.array_checksum` of the full level; empty if unknown.
    levels : tuple of str
        Names of the levels, the full one first.
    quantity : str
        What the values are, in words; empty if another program wrote the file.
    classes : tuple of str
        Names of labels or channels, in order; empty if there are none.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    unit: str
    voxel_size_um: float | None
    checksum: str
    levels: tuple[str, ...]
    quantity: str = ""
    classes: tuple[str, ...] = ()


def _open_group(path: Path) -> tuple[zarr.Group, tuple[str, ...]]:
    if not path.is_dir():
        raise DataFileError(f"no volume at {path}; it appears when the reconstruction is whole")
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        ome: Any = group.attrs["ome"]
        datasets = ome["multiscales"][0]["datasets"]
        return group, tuple(str(dataset["path"]) for dataset in datasets)
    except (zarr.errors.BaseZarrError, OSError, KeyError, ValueError, TypeError) as error:
        raise DataFileError(f"{path} is not an OME-Zarr 0.5 volume: {error}") from error


def open_volume(path: Path, level: int = 0) -> zarr.Array[Any]:
    """Open one level of an OME-Zarr volume for reading.

    Parameters
    ----------
    path : Path
        The OME-Zarr directory.
    level : int
        0 is the full volume, each further one half the size.

    Returns
    -------
    zarr.Array
        Indexable like an array, axes ``z, y, x``, or ``c, z, y, x`` with channels; read from disk
        when indexed. The unit of the values is in ``.attrs["unit"]``.

    Raises
    ------
    DataFileError
        If there is no such volume or level, or it is damaged.
    """
    group, levels = _open_group(path)
    if not 0 <= level < len(levels):
        raise DataFileError(f"{path} has no level {level}; it has {len(levels)}, from 0")
    array = group.get(levels[level])
    if not isinstance(array, zarr.Array):
        raise DataFileError(f"level {level} of the volume {path} is missing; the copy is damaged")
    return array


def read_volume_info(path: Path) -> VolumeInfo:
    """Read what is known about a volume.

    Raises
    ------
    DataFileError
        If there is no OME-Zarr volume at `path`.
    """
    group, levels = _open_group(path)
    array = open_volume(path)
    ours: Any = group.attrs.get(OUR_KEY, {})
    return VolumeInfo(
        path=path,
        shape=array.shape,
        dtype=array.dtype.str,
        unit=str(ours.get("unit", "")),
        voxel_size_um=ours.get("voxel_size_um"),
        checksum=str(ours.get("checksum", "")),
        levels=levels,
        quantity=str(ours.get("quantity", "")),
        classes=tuple(map(str, ours.get("classes", ()))),
    )
