"""The writer for a volume, by the name of what is to be written."""

from __future__ import annotations

from pathlib import Path

import h5py

from apsber_bluesky.core import PARTIAL_SUFFIX, StorageError
from apsber_bluesky.storage._nexus_volume import NexusVolumeWriter
from apsber_bluesky.storage._tiff_volume import TiffVolumeWriter
from apsber_bluesky.storage._volume_writer import VolumeWriter

AnyVolumeWriter = VolumeWriter | NexusVolumeWriter | TiffVolumeWriter


def create_volume(
    path: Path,
    shape: tuple[int, int, int],
    *,
    voxel_size_um: float | None = None,
    origin_px: tuple[float, float, float] = (0.0, 0.0, 0.0),
    sample: str = "unknown",
    raw_file: str = "unknown",
    overwrite: bool = False,
) -> AnyVolumeWriter:
    """Make the writer for a volume.

    Parameters
    ----------
    path : Path
        ``.zarr`` is OME-Zarr, ``.h5``, ``.hdf5`` or ``.nxs`` NeXus (HDF5), ``.tif`` or ``.tiff``
        one TIFF file, a name without a suffix a folder with a TIFF file for each slice.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    voxel_size_um : float or None
        Edge of a voxel [um]. If known, attenuation is stored in 1/m, else in 1/pixel.
    origin_px : tuple of float
        Place of the first voxel along z, y, x, for formats that can say it [voxel].
    sample, raw_file : str
        For formats that can say it.
    overwrite : bool
        Whether to replace what is there.

    Returns
    -------
    VolumeWriter or NexusVolumeWriter or TiffVolumeWriter
        A context manager; at its end the volume appears whole, or not at all.

    Raises
    ------
    StorageError
        If the name has another suffix, or something is there already and stays.
    """
    check_volume_path(path, overwrite=overwrite)
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        return VolumeWriter(path, shape, voxel_size_um=voxel_size_um)
    if suffix in (".h5", ".hdf5", ".nxs"):
        return NexusVolumeWriter(
            path,
            shape,
            voxel_size_um=voxel_size_um,
            origin_px=origin_px,
            sample=sample,
            raw_file=raw_file,
        )
    return TiffVolumeWriter(path, shape, voxel_size_um=voxel_size_um)


def check_volume_path(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that no volume can be written to.

    Raises
    ------
    StorageError
        If the name has an unknown suffix, its folder is missing, or something is there already
        and stays, or is something else than a volume of this kind.
    """
    suffix = path.suffix.lower()
    kinds = (".zarr", ".h5", ".hdf5", ".nxs", ".tif", ".tiff", "")
    if suffix not in kinds or suffix == PARTIAL_SUFFIX:
        raise StorageError(
            f"cannot tell what to write from the name {path.name!r}; end it in .zarr, .h5, .nxs or"
            " .tif, or in nothing for a folder of TIFF files"
        )
    if not path.absolute().parent.is_dir():
        raise StorageError(f"there is no folder {path.absolute().parent}; make it first")
    if not path.exists():
        return
    if not overwrite:
        raise StorageError(f"{path} is there already; choose another name or give --overwrite")
    if not _is_volume(path):
        raise StorageError(f"{path} holds something else than a volume and is not replaced")
    if path.is_dir() != (suffix in (".zarr", "")):
        raise StorageError(f"{path} is of another kind than what is to be written; remove it")


def _is_volume(path: Path) -> bool:
    """Whether this is a volume, or nothing of value: raw data must not be replaced."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        return not names or "zarr.json" in names or "volume.json" in names
    if path.suffix.lower() in (".tif", ".tiff"):
        return path.with_name(path.name + ".json").is_file()
    try:
        with h5py.File(path, "r") as file:
            definition = file.get("entry/definition")
            found = definition is not None and definition.asstr()[()] == "NXtomoproc"
    except (OSError, TypeError):
        return False
    return found
