"""Write a volume slab by slab as OME-Zarr; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from apsber_bluesky.core import (
    ArrayDigest,
    InputError,
    ProcessRecord,
    StorageError,
    atomic_directory,
    explain_disk_errors,
)
from apsber_bluesky.storage._pyramid import pyramid_levels
from apsber_bluesky.storage._slab_books import SlabBooks, check_sizes
from apsber_bluesky.storage._volume_content import ATTENUATION, VolumeContent
from apsber_bluesky.storage._volume_metadata import (
    OUR_KEY,
    axes_of,
    ome_attributes,
    provenance,
    unit_and_factor,
)

DEFAULT_CHUNK = (16, 256, 256)


class VolumeWriter:
    """Write a volume as OME-Zarr 0.5 (zarr v3, multiscale).

    Use it as a context manager. At a regular end the directory takes its name, with all levels,
    checksum and metadata; when the body raises, nothing is left under either name.

    Parameters
    ----------
    path : Path
        Directory to make, e.g. ``volume.zarr``; one that is there already is replaced at the end.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    voxel_size_um : float or None
        Edge of a voxel [um]. If known, attenuation is stored in 1/m, else in 1/pixel.
    chunk : tuple of int, optional
        Chunk of the full level. Slabs that fill whole chunks along z are written fastest.
    content : VolumeContent
        What the values are; attenuation, if nothing else is said.

    Attributes
    ----------
    processes : sequence of ProcessRecord
        How the volume came about; to be set before the end if the volume is to tell.

    Raises
    ------
    InputError
        If the shape, voxel size or chunk is not positive.
    StorageError
        If the place is full or cannot be written (on entry, in `write` and on exit), or slices
        are missing at the end.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        voxel_size_um: float | None = None,
        chunk: tuple[int, int, int] = DEFAULT_CHUNK,
        content: VolumeContent = ATTENUATION,
    ) -> None:
        check_sizes("chunk", [*chunk])
        self.path = path
        self.shape = shape
        self.voxel_size_um = voxel_size_um
        self.content = content
        self.unit, factor = unit_and_factor(voxel_size_um)
        if content.unit is not None:
            self.unit, factor = content.unit, 1.0
        self._factor = np.float32(factor)
        self._chunk = chunk
        self._levels = pyramid_levels(shape)
        # Whole chunks of every level come from one band, so no level is read to be written.
        band = math.lcm(chunk[0], 2 ** (len(self._levels) - 1))
        self._books = SlabBooks(path, shape, band, content.dtype, content.channels)
        # Channels come after z here, for slices are seen one after the other.
        self._digest = ArrayDigest(
            content.dtype, (shape[0], *self._leading(content.channels), *shape[1:])
        )
        self.processes: Sequence[ProcessRecord] = ()
        self._arrays: list[zarr.Array[Any]] = []
        self._stack = contextlib.ExitStack()
        self._checksum: str | None = None

    @property
    def checksum(self) -> str:
        """`apsber_bluesky.core.array_checksum` of the full level, once the volume is whole.

        Of a volume with channels it is that of the array with axes ``z, c, y, x``.

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
            self._folder = stack.enter_context(atomic_directory(self.path))
            self._group = zarr.create_group(self._folder, zarr_format=3)
            self._arrays = [self._create_level(number) for number in range(len(self._levels))]
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
            self._finish()

    def write(self, first_slice: int, slab: NDArray[Any]) -> None:
        """Write a slab; slabs may come in any order, each slice once.

        Parameters
        ----------
        first_slice : int
            Index of its first slice.
        slab : ndarray, shape (n, rows, columns) or (channels, n, rows, columns)
            Attenuation [1/pixel] as float32, or what else the volume holds.

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
        stop = first_slice + slab.shape[-3]
        values = slab if self._factor == 1 else slab * self._factor
        with explain_disk_errors(self.path, "write the volume"):
            self._arrays[0][..., first_slice:stop, :, :] = values
            self._sum_up(first_slice, stop, values)

    @property
    def deposit(self) -> ZarrDeposit:
        """Where other processes may write slabs meanwhile; `took` says that they have.

        Raises
        ------
        InputError
            If the volume is not open.
        """
        self._check_open()
        return ZarrDeposit(self._folder / "0", float(self._factor), self._chunk[0])

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
            self._sum_up(first_slice, stop, None)

    def _check_open(self) -> None:
        if not self._arrays:
            raise InputError(f"the volume {self.path} is not open; use 'with VolumeWriter(...)'")

    def _create_level(self, number: int) -> zarr.Array[Any]:
        content, shape = self.content, self._levels[number].shape
        wanted = (max(1, self._chunk[0] >> number), *self._chunk[1:])
        chunk = tuple(min(c, s) for c, s in zip(wanted, shape, strict=True))
        return self._group.create_array(
            str(number),
            shape=(*self._leading(content.channels), *shape),
            chunks=(*self._leading(min(content.channels, 1)), *chunk),
            dtype=content.dtype,
            # The noise of a reconstruction does not compress.
            compressors=ZstdCodec(level=1) if content.compressed else None,
            dimension_names=axes_of(content),
            attributes={"unit": self.unit},
            config={"write_empty_chunks": True},
        )

    @staticmethod
    def _leading(channels: int) -> tuple[int, ...]:
        return (channels,) if channels else ()

    def _sum_up(self, first: int, last: int, slab: NDArray[Any] | None) -> None:
        """Take every band that has become whole, in order, into the checksum and the levels."""
        self._books.mark(first, last)
        for start, stop in self._books.whole_bands():
            if slab is not None and first <= start and stop <= last:
                band = slab[..., start - first : stop - first, :, :]
            else:
                band = np.asarray(self._arrays[0][..., start:stop, :, :])
            self._digest.update(np.moveaxis(band, -3, 0))
            for number, array in enumerate(self._arrays[1:], start=1):
                band = self.content.halve(band)
                place = start >> number
                array[..., place : place + band.shape[-3], :, :] = band

    def _finish(self) -> None:
        self._books.require_all()
        self._checksum = self._digest.checksum()
        self._group.update_attributes(
            {
                "ome": ome_attributes(
                    self.path.stem, self._levels, self.voxel_size_um, self.content
                ),
                OUR_KEY: {
                    **self.content.metadata,
                    "unit": self.unit,
                    "voxel_size_um": self.voxel_size_um,
                    "checksum": self._checksum,
                    **provenance(self.processes, self.path.name, self._checksum),
                },
            }
        )


@dataclass(frozen=True, slots=True)
class ZarrDeposit:
    """Lets another process write slabs of a volume that `VolumeWriter` has open.

    Attributes
    ----------
    level : Path
        The full level.
    factor : float
        Stored value of an attenuation of 1 per pixel.
    depth : int
        Slices of a chunk: slabs begin at a multiple of it, so that no two write to one chunk.
    """

    level: Path
    factor: float
    depth: int

    def put(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab [1/pixel].

        Raises
        ------
        InputError
            If it would share a chunk with another slab.
        StorageError
            If the disk is full or fails.
        """
        with explain_disk_errors(self.level, "write the volume"):
            array = zarr.open_array(self.level, mode="r+", zarr_format=3)
            stop = first_slice + len(slab)
            if first_slice % self.depth or (stop % self.depth and stop != array.shape[0]):
                raise InputError(
                    f"slices {first_slice} to {stop} do not fill chunks of {self.depth} slices"
                )
            factor = np.float32(self.factor)
            array[first_slice:stop] = slab if factor == 1 else slab * factor
