"""Write a volume slab by slab as OME-Zarr; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ArrayDigest,
    InputError,
    StorageError,
    atomic_directory,
    explain_disk_errors,
)
from apsber_bluesky.storage._pyramid import halve, pyramid_levels
from apsber_bluesky.storage._volume_metadata import AXES, OUR_KEY, ome_attributes

_DTYPE = np.dtype("<f4")
DEFAULT_CHUNK = (16, 256, 256)


class VolumeWriter:
    """Write a volume of attenuation as OME-Zarr 0.5 (zarr v3, multiscale).

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
    ) -> None:
        for what, sizes in (("shape", [*shape]), ("chunk", [*chunk])):
            if len(sizes) != 3 or min(sizes) < 1:
                raise InputError(f"{what} of a volume is {sizes}; give three positive sizes")
        if voxel_size_um is not None and not (math.isfinite(voxel_size_um) and voxel_size_um > 0):
            raise InputError(f"voxel_size_um is {voxel_size_um!r}; give a positive length or None")
        self.path = path
        self.shape = shape
        self.voxel_size_um = voxel_size_um
        self.unit = "1/pixel" if voxel_size_um is None else "1/m"
        self._factor = np.float32(1.0 if voxel_size_um is None else 1e6 / voxel_size_um)
        self._chunk = chunk
        self._levels = pyramid_levels(shape)
        # Whole chunks of every level come from one band, so no level is read to be written.
        self._band = math.lcm(chunk[0], 2 ** (len(self._levels) - 1))
        self._written = np.zeros(shape[0], dtype=bool)
        self._summed = 0
        self._digest = ArrayDigest(_DTYPE, shape)
        self._arrays: list[zarr.Array[Any]] = []
        self._stack = contextlib.ExitStack()
        self._checksum: str | None = None

    @property
    def checksum(self) -> str:
        """`apsber_bluesky.core.array_checksum` of the full level, once the volume is whole.

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
            folder = stack.enter_context(atomic_directory(self.path))
            self._group = zarr.create_group(folder, zarr_format=3)
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

    def write(self, first_slice: int, slab: NDArray[np.float32]) -> None:
        """Write a slab; slabs may come in any order, each slice once.

        Parameters
        ----------
        first_slice : int
            Index of its first slice.
        slab : ndarray of float32, shape (n, rows, columns)
            Attenuation [1/pixel].

        Raises
        ------
        InputError
            If the slab does not fit the volume, or a slice was written before.
        StorageError
            If the disk is full or fails.
        """
        slab = np.asarray(slab)
        self._check(first_slice, slab)
        stop = first_slice + len(slab)
        values = slab if self._factor == 1 else slab * self._factor
        with explain_disk_errors(self.path, "write the volume"):
            self._arrays[0][first_slice:stop] = values
            self._written[first_slice:stop] = True
            self._sum_up(first_slice, values)

    def _check(self, first: int, slab: NDArray[Any]) -> None:
        if not self._arrays:
            raise InputError(f"the volume {self.path} is not open; use 'with VolumeWriter(...)'")
        if slab.dtype != _DTYPE or slab.ndim != 3 or slab.shape[1:] != self.shape[1:]:
            raise InputError(
                f"slab of {slab.dtype} {slab.shape} does not fit a volume of {_DTYPE} {self.shape}"
            )
        stop = first + len(slab)
        if first < 0 or stop > self.shape[0] or not len(slab):
            raise InputError(f"slices {first} to {stop} are not in a volume of {self.shape[0]}")
        if self._written[first:stop].any():
            raise InputError(f"some of the slices {first} to {stop - 1} were written before")

    def _create_level(self, number: int) -> zarr.Array[Any]:
        shape = self._levels[number].shape
        wanted = (max(1, self._chunk[0] >> number), *self._chunk[1:])
        return self._group.create_array(
            str(number),
            shape=shape,
            chunks=tuple(min(c, s) for c, s in zip(wanted, shape, strict=True)),
            dtype=_DTYPE,
            compressors=None,  # the noise of a reconstruction does not compress
            dimension_names=AXES,
            attributes={"unit": self.unit},
            config={"write_empty_chunks": True},
        )

    def _sum_up(self, first: int, slab: NDArray[np.float32]) -> None:
        """Take every band that has become whole, in order, into the checksum and the levels."""
        while self._summed < self.shape[0]:
            start, stop = self._summed, min(self._summed + self._band, self.shape[0])
            if not self._written[start:stop].all():
                return
            inside = first <= start and stop <= first + len(slab)
            band = slab[start - first : stop - first] if inside else self._arrays[0][start:stop]
            self._digest.update(band)
            for number, array in enumerate(self._arrays[1:], start=1):
                band = halve(band)
                place = start >> number
                array[place : place + len(band)] = band
            self._summed = stop

    def _finish(self) -> None:
        missing = np.flatnonzero(~self._written)
        if len(missing):
            raise StorageError(
                f"volume {self.path} misses {len(missing)} of {self.shape[0]} slices:"
                f" {_ranges(missing)}; it was not kept"
            )
        self._checksum = self._digest.checksum()
        self._group.update_attributes(
            {
                "ome": ome_attributes(self.path.stem, self._levels, self.voxel_size_um),
                OUR_KEY: {
                    "quantity": "linear attenuation coefficient",
                    "unit": self.unit,
                    "voxel_size_um": self.voxel_size_um,
                    "checksum": self._checksum,
                },
            }
        )


def _ranges(numbers: NDArray[np.intp]) -> str:
    """Write ascending numbers as ``"0-3, 7"``."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
