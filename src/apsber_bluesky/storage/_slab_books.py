"""Which slices of a volume are written, and which are whole in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, StorageError

DTYPE = np.dtype("<f4")


def check_sizes(what: str, sizes: list[int]) -> None:
    """Refuse sizes that are not three positive numbers."""
    if len(sizes) != 3 or min(sizes) < 1:
        raise InputError(f"{what} of a volume is {sizes}; give three positive sizes")


class SlabBooks:
    """Books over the slabs of one volume, which come in any order, each slice once.

    Parameters
    ----------
    path : Path
        The volume, for messages.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    band : int
        Slices that are handed on together once they are whole.
    dtype : dtype
        Of the values.
    channels : int
        Length of the axis before z; 0 if there is none.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        band: int,
        dtype: np.dtype[Any] = DTYPE,
        channels: int = 0,
    ) -> None:
        check_sizes("shape", [*shape])
        self._path, self._shape, self._band = path, shape, band
        self._dtype, self._leading = dtype, (channels,) if channels else ()
        self._written = np.zeros(shape[0], dtype=bool)
        self._summed = 0

    def check(self, first: int, slab: NDArray[Any]) -> None:
        """Refuse a slab that does not fit the volume.

        Raises
        ------
        InputError
            If its shape, dtype or place is wrong, or a slice was written before.
        """
        slices = slab.shape[-3] if slab.ndim >= 3 else 0
        if (slab.dtype, slab.shape) != (self._dtype, (*self._leading, slices, *self._shape[1:])):
            raise InputError(
                f"slab of {slab.dtype} {slab.shape} does not fit a volume of {self._dtype}"
                f" {(*self._leading, *self._shape)}"
            )
        self.check_place(first, first + slices)

    def check_place(self, first: int, stop: int) -> None:
        """Refuse slices that are not in the volume or were written before."""
        if first < 0 or stop > self._shape[0] or stop <= first:
            raise InputError(f"slices {first} to {stop} are not in a volume of {self._shape[0]}")
        if self._written[first:stop].any():
            raise InputError(f"some of the slices {first} to {stop - 1} were written before")

    def mark(self, first: int, stop: int) -> None:
        """Slices are written."""
        self._written[first:stop] = True

    def whole_bands(self) -> Iterator[tuple[int, int]]:
        """Bands ``[start, stop)`` that have become whole, in order, each once."""
        while self._summed < self._shape[0]:
            start, stop = self._summed, min(self._summed + self._band, self._shape[0])
            if not self._written[start:stop].all():
                return
            self._summed = stop
            yield start, stop

    def require_all(self) -> None:
        """Refuse a volume with holes.

        Raises
        ------
        StorageError
            If slices are missing.
        """
        missing = np.flatnonzero(~self._written)
        if len(missing):
            raise StorageError(
                f"volume {self._path} misses {len(missing)} of {self._shape[0]} slices:"
                f" {_ranges(missing)}; it was not kept"
            )


def _ranges(numbers: NDArray[np.intp]) -> str:
    """Write ascending numbers as ``"0-3, 7"``."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
