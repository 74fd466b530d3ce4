"""Write a volume slab by slab as NeXus (HDF5), application definition NXtomoproc."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky._version import __version__
from apsber_bluesky.core import (
    PROGRAM,
    ArrayDigest,
    InputError,
    ProcessRecord,
    StorageError,
    atomic_file,
    explain_disk_errors,
)
from apsber_bluesky.storage._nexus_processes import add_process
from apsber_bluesky.storage._nexus_tools import add_group, add_values, iso_time
from apsber_bluesky.storage._slab_books import DTYPE, SlabBooks
from apsber_bluesky.storage._volume_metadata import AXES, finished_chain, unit_and_factor

_BAND = 16


class NexusVolumeWriter:
    """Write a volume of attenuation to ``/entry/data/data`` of an HDF5 file, axes z, y, x.

    Use it as a context manager, as `VolumeWriter`. The values lie in the file in one piece,
    without chunks, so that any program can map them.

    Parameters
    ----------
    path : Path
        File to make; one that is there already is replaced at the end.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    voxel_size_um : float or None
        Edge of a voxel [um]. If known, attenuation is stored in 1/m, else in 1/pixel.
    origin_px : tuple of float
        Place of the first voxel along z, y, x: y and x are counted from the rotation axis, z from
        the first detector row [voxel].
    sample, raw_file : str
        Name of the sample, and of the file that the projections come from.

    Attributes
    ----------
    processes : sequence of ProcessRecord
        How the volume came about; to be set before the end.
    """

    deposit = None

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        voxel_size_um: float | None = None,
        origin_px: tuple[float, float, float] = (0.0, 0.0, 0.0),
        sample: str = "unknown",
        raw_file: str = "unknown",
    ) -> None:
        self.path, self.shape, self.voxel_size_um = path, shape, voxel_size_um
        self.unit, factor = unit_and_factor(voxel_size_um)
        self.processes: Sequence[ProcessRecord] = ()
        self._factor = np.float32(factor)
        self._origin, self._sample, self._raw_file = origin_px, sample, raw_file
        self._books = SlabBooks(path, shape, _BAND)
        self._digest = ArrayDigest(DTYPE, shape)
        self._stack = contextlib.ExitStack()
        self._data: Any = None
        self._checksum: str | None = None

    @property
    def checksum(self) -> str:
        """`apsber_bluesky.core.array_checksum` of the values, once the volume is whole.

        Raises
        ------
        StorageError
            If slices are still missing.
        """
        if self._checksum is None:
            raise StorageError(f"the volume {self.path} is not whole yet, so it has no checksum")
        return self._checksum

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_disk_errors(self.path, "write the volume"))
            partial = stack.enter_context(atomic_file(self.path))
            file = stack.enter_context(h5py.File(partial, "w", libver=("v110", "v114")))
            self._lay_out(file)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._books.require_all()
            self._checksum = self._digest.checksum()
            self._describe()

    def write(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel]; slabs may come in any order, each slice once.

        Raises
        ------
        InputError
            If the slab does not fit the volume, or a slice was written before.
        StorageError
            If the disk is full or fails.
        """
        if self._data is None:
            raise InputError(f"the volume {self.path} is not open; use 'with NexusVolumeWriter'")
        slab = np.asarray(slab)
        self._books.check(first_slice, slab)
        stop = first_slice + len(slab)
        values = slab if self._factor == 1 else slab * self._factor
        with explain_disk_errors(self.path, "write the volume"):
            self._data[first_slice:stop] = values
            self._books.mark(first_slice, stop)
            for start, end in self._books.whole_bands():
                inside = first_slice <= start and end <= stop
                band = values[start - first_slice : end - first_slice] if inside else None
                self._digest.update(self._data[start:end] if band is None else band)

    def _lay_out(self, file: h5py.File) -> None:
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": PROGRAM})
        entry = add_group(file, "entry", "NXentry")
        entry.attrs["default"] = "data"
        entry["definition"] = "NXtomoproc"
        entry["title"] = f"{self._sample}, reconstructed"
        source = add_group(add_group(entry, "instrument", "NXinstrument"), "source", "NXsource")
        source["name"], source["probe"] = "unknown", "x-ray"
        source["type"] = "Synchrotron X-ray Source"
        add_group(entry, "sample", "NXsample")["name"] = self._sample
        data = add_group(entry, "data", "NXdata")
        data.attrs["signal"], data.attrs["axes"] = "data", list(AXES)
        self._data = data.create_dataset("data", self.shape, DTYPE)
        attributes = {"units": self.unit, "long_name": "linear attenuation coefficient"}
        self._data.attrs.update(attributes)
        # As NXtomoproc wants them: stored value = scaling * attenuation per pixel + offset.
        self._data.attrs.update({"transform": "none", "offset": "0"})
        self._data.attrs["scaling"] = repr(float(self._factor))
        length = 1.0 if self.voxel_size_um is None else self.voxel_size_um
        for axis, size, first in zip(AXES, self.shape, self._origin, strict=True):
            data[axis] = (first + np.arange(size)) * length
            data[axis].attrs["units"] = "pixel" if self.voxel_size_um is None else "um"

    def _describe(self) -> None:
        entry = self._data.file["entry"]
        group = add_group(entry, "reconstruction", "NXprocess")
        group["program"], group["version"] = PROGRAM, __version__
        group["date"] = iso_time(time.time())
        parameters = add_group(group, "parameters", "NXparameters")
        parameters["raw_file"] = self._raw_file
        parameters["volume_checksum"] = self.checksum
        for record in finished_chain(self.processes, self.path.name, self.checksum):
            add_process(entry, record)
            if record.name == "reconstruct":
                add_values(parameters, record.parameters)
