"""Write a volume slab by slab as TIFF: a file for each slice, or one for all."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ArrayDigest,
    InputError,
    ProcessRecord,
    StorageError,
    atomic_directory,
    atomic_file,
    explain_disk_errors,
    write_json,
)
from apsber_bluesky.storage._slab_books import DTYPE, SlabBooks
from apsber_bluesky.storage._volume_metadata import provenance, unit_and_factor

_BAND = 16
_UM_PER_CM = 1e4


class TiffVolumeWriter:
    """Write a volume of attenuation as TIFF, 32-bit float.

    Use it as a context manager, as `VolumeWriter`. What TIFF has no word for, unit, checksum and
    how the volume came about, is in JSON: ``volume.json`` in the folder, or the file's name with
    ``.json`` added.

    Parameters
    ----------
    path : Path
        Folder to fill with ``slice_00000.tif`` and so on; or one file, if it ends in ``.tif`` or
        ``.tiff``. What is there already is replaced at the end.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    voxel_size_um : float or None
        Edge of a voxel [um]. If known, attenuation is stored in 1/m, else in 1/pixel.

    Attributes
    ----------
    processes : sequence of ProcessRecord
        How the volume came about; to be set before the end.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        voxel_size_um: float | None = None,
    ) -> None:
        self.path, self.shape, self.voxel_size_um = path, shape, voxel_size_um
        self.unit, factor = unit_and_factor(voxel_size_um)
        self.processes: Sequence[ProcessRecord] = ()
        self._factor = float(factor)
        self._one_file = path.suffix.lower() in (".tif", ".tiff")
        self._books = SlabBooks(path, shape, _BAND)
        self._digest = ArrayDigest(DTYPE, shape)
        self._stack = contextlib.ExitStack()
        self._place: Path | None = None
        self._mapped: Any = None
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

    @property
    def deposit(self) -> TiffDeposit | None:
        """Where other processes may write slabs meanwhile; None for a single file."""
        if self._one_file or self._place is None:
            return None
        return TiffDeposit(self._place, self._factor, self.unit, self.voxel_size_um)

    def __enter__(self) -> Self:
        import tifffile

        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_disk_errors(self.path, "write the volume"))
            atomic = atomic_file if self._one_file else atomic_directory
            self._place = stack.enter_context(atomic(self.path))
            if self._one_file:
                self._mapped = tifffile.memmap(
                    self._place,
                    shape=self.shape,
                    dtype=DTYPE,
                    bigtiff=True,
                    **_tags(self.unit, self.voxel_size_um, axes="ZYX"),
                )
                # A page of a mapped file that the disk has no room for ends the process.
                with self._place.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self._place.stat().st_size)
                stack.callback(self._mapped.flush)
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
            if not self._one_file and self._place is not None:
                write_json(self._place / "volume.json", self._description())
        if self._one_file:
            with explain_disk_errors(self.path, "describe the volume"):
                write_json(self.path.with_name(self.path.name + ".json"), self._description())

    def write(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel]; slabs may come in any order, each slice once.

        Raises
        ------
        InputError
            If the slab does not fit the volume, or a slice was written before.
        StorageError
            If the disk is full or fails.
        """
        slab = np.asarray(slab)
        self._check_open()
        self._books.check(first_slice, slab)
        deposit = self.deposit
        with explain_disk_errors(self.path, "write the volume"):
            if deposit is None:
                scaled = slab if self._factor == 1 else slab * np.float32(self._factor)
                self._mapped[first_slice : first_slice + len(slab)] = scaled
            else:
                deposit.put(first_slice, slab)
            self._sum_up(first_slice, first_slice + len(slab))

    def took(self, first_slice: int, stop: int) -> None:
        """Enter a slab that another process has written through the `deposit`.

        Raises
        ------
        InputError
            If there are no such slices, or one was written before.
        """
        self._check_open()
        self._books.check_place(first_slice, stop)
        with explain_disk_errors(self.path, "write the volume"):
            self._sum_up(first_slice, stop)

    def _check_open(self) -> None:
        if self._place is None:
            raise InputError(f"the volume {self.path} is not open; use 'with TiffVolumeWriter'")

    def _sum_up(self, first: int, last: int) -> None:
        deposit = self.deposit
        self._books.mark(first, last)
        for start, stop in self._books.whole_bands():
            if deposit is None:
                self._digest.update(np.asarray(self._mapped[start:stop]))
            else:
                for number in range(start, stop):
                    self._digest.update(deposit.read(number))

    def _description(self) -> dict[str, Any]:
        return {
            "quantity": "linear attenuation coefficient",
            "unit": self.unit,
            "voxel_size_um": self.voxel_size_um,
            "shape": list(self.shape),
            "checksum": self.checksum,
            **provenance(self.processes, self.path.name, self.checksum),
        }


@dataclass(frozen=True, slots=True)
class TiffDeposit:
    """Lets another process write slices of a volume that `TiffVolumeWriter` has open.

    Attributes
    ----------
    folder : Path
        Where they go.
    factor : float
        Stored value of an attenuation of 1 per pixel.
    unit : str
        Unit of the stored values.
    voxel_size_um : float or None
        Edge of a voxel [um].
    """

    folder: Path
    factor: float
    unit: str
    voxel_size_um: float | None

    def put(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel].

        Raises
        ------
        StorageError
            If the disk is full or fails.
        """
        import tifffile

        scaled = slab if self.factor == 1 else slab * np.float32(self.factor)
        with explain_disk_errors(self.folder, "write the volume"):
            for number, values in enumerate(scaled, first_slice):
                tags = _tags(self.unit, self.voxel_size_um, axes="YX")
                # tifffile's own writing does not say that a disk is full.
                memory = io.BytesIO()
                tifffile.imwrite(memory, values, **tags)
                self._file(number).write_bytes(memory.getbuffer())

    def read(self, number: int) -> NDArray[np.float32]:
        """A slice that was written."""
        import tifffile

        return np.asarray(tifffile.imread(self._file(number)), dtype=DTYPE)

    def _file(self, number: int) -> Path:
        return self.folder / f"slice_{number:05d}.tif"


def _tags(unit: str, voxel_size_um: float | None, *, axes: str) -> dict[str, Any]:
    """What the header says; no date or program, so equal slices give equal files."""
    tags: dict[str, Any] = {
        "photometric": "minisblack",
        "software": False,
        "description": json.dumps({"axes": axes, "unit": unit, "voxel_size_um": voxel_size_um}),
        "metadata": None,
    }
    if voxel_size_um is not None:
        per_cm = _UM_PER_CM / voxel_size_um
        tags |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    return tags
