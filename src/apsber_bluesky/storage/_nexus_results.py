"""What was made of a run, as its NeXus record shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from apsber_bluesky.core import RunFolder
from apsber_bluesky.storage._nexus_tools import add_group
from apsber_bluesky.storage._volume import VolumeInfo, open_volume, read_volume_info

#: Volumes of voxels with one value each, the one that people want to see last.
RESULTS = ("volume", "uncertainty", "denoised", "labels")


def add_results(entry: h5py.Group, folder: RunFolder) -> None:
    """Add ``results``: one ``NXdata`` for each volume of the run, which stays where it is.

    HDF5 cannot link to Zarr. So each group has the central slice to look at, and says in
    ``file_name`` and ``checksum`` where all of them are.

    Raises
    ------
    DataFileError
        If a volume is damaged.
    """
    there = [name for name in RESULTS if folder.product(name).exists()]
    if not there:
        return
    results = add_group(entry, "results", "NXcollection")
    results.attrs["default"] = there[-1]
    for name in there:
        _add_result(results, name, read_volume_info(folder.product(name)))


def _add_result(results: h5py.Group, name: str, info: VolumeInfo) -> None:
    middle = info.shape[0] // 2
    central: Any = open_volume(info.path)[middle]
    group = add_group(results, name, "NXdata")
    group.attrs["signal"], group.attrs["axes"] = "data", ["y", "x"]
    group["title"] = f"{info.path.name}, slice {middle} of {info.shape[0]}"
    data = group.create_dataset("data", data=np.asarray(central), compression="gzip", shuffle=True)
    data.attrs["units"], data.attrs["long_name"] = info.unit, info.quantity
    length, unit = (1.0, "pixel") if info.voxel_size_um is None else (info.voxel_size_um, "um")
    for axis, size in zip(("y", "x"), info.shape[1:], strict=True):
        group[axis] = (np.arange(size) - size // 2) * length
        group[axis].attrs["units"] = unit
    group["file_name"], group["checksum"] = info.path.name, info.checksum
    group["shape"] = np.asarray(info.shape, np.int64)
    if info.classes:
        group["classes"] = list(info.classes)


def add_notes(entry: h5py.Group, notes: Sequence[str]) -> None:
    """Add what a reader should know, one ``NXnote`` each."""
    for number, text in enumerate(notes, start=1):
        note = add_group(entry, f"note_{number}", "NXnote")
        note["type"], note["description"] = "text/plain", text
