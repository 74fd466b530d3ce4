"""A scan on disk, ready to be read: DXchange, NXtomo or a run of the suite."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import h5py

# Registers the filters that detectors compress frames with.
import hdf5plugin  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, ImageKey, InputError, format_ranges

_KIND_NAMES = {
    ImageKey.PROJECTION: "projections",
    ImageKey.FLAT: "flats",
    ImageKey.DARK: "darks",
}
PIXEL_TYPES = frozenset(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))


@dataclass(frozen=True, slots=True)
class FrameStack:
    """Frames of one kind.

    Attributes
    ----------
    dataset : str
        Path of the dataset ``(n, rows, columns)`` in the file; empty if there are none.
    index : ndarray of int64
        Which frames of it, in order.
    taken : ndarray of float64 or None
        When each was taken, counted in projections of the scan: the third projection at 2.5, a
        flat before the first at 0. None if the file does not say.
    """

    dataset: str
    index: NDArray[np.int64]
    taken: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class ScanFile:
    """What a file says of a scan, and how its frames are read; it can be sent to other processes.

    Attributes
    ----------
    path : Path
        The file with the frames.
    layout : {"DXchange", "NXtomo", "run"}
        How it is laid out.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the pixels.
    stacks : dict of ImageKey to FrameStack
        Where the frames of each kind are.
    angles_deg : ndarray of float64 or None
        Angle of each projection [deg], if the file says.
    pixel_size_um : float or None
        Pixel size at the sample [um], if the file says.
    decodes_whole_frames : bool
        Whether reading some rows of a frame costs as much as reading all of it.
    notes : tuple of str
        What a user should know, such as frames that are missing.
    """

    path: Path
    layout: str
    rows: int
    columns: int
    dtype: str
    stacks: dict[ImageKey, FrameStack]
    angles_deg: NDArray[np.float64] | None
    pixel_size_um: float | None
    decodes_whole_frames: bool = False
    notes: tuple[str, ...] = ()

    def count(self, kind: ImageKey) -> int:
        """Frames of a kind."""
        return len(self.stacks[kind])

    def numbers(self, kind: ImageKey) -> NDArray[np.int64]:
        """Index of each frame of a kind in its dataset, as messages name it."""
        return self.stacks[kind].index

    def taken(self, kind: ImageKey) -> NDArray[np.float64] | None:
        """When each frame of a kind was taken, counted in projections; None if nothing says."""
        return self.stacks[kind].taken

    def without(self, numbers: Collection[int]) -> Self:
        """The same scan with some projections left out.

        Parameters
        ----------
        numbers : collection of int
            Indices of frames in the dataset of the projections.

        Raises
        ------
        InputError
            If there are no such projections.
        """
        stack = self.stacks[ImageKey.PROJECTION]
        unknown = sorted(set(numbers) - set(stack.index.tolist()))
        if unknown:
            raise InputError(
                f"frames {format_ranges(unknown, 10)} to leave out are no projections of"
                f" {self.path}; it has {format_ranges(stack.index.tolist(), 10)}"
            )
        keep = ~np.isin(stack.index, list(numbers))
        taken = None if stack.taken is None else stack.taken[keep]
        kept = FrameStack(stack.dataset, stack.index[keep], taken)
        angles = None if self.angles_deg is None else self.angles_deg[keep]
        return replace(self, stacks={**self.stacks, ImageKey.PROJECTION: kept}, angles_deg=angles)

    def with_angles(self, angles_deg: NDArray[np.float64]) -> Self:
        """The same scan with other angles [deg].

        Raises
        ------
        InputError
            If there is not one finite angle for each projection.
        """
        count = self.count(ImageKey.PROJECTION)
        if angles_deg.shape != (count,):
            raise InputError(
                f"{angles_deg.size} angles were given for the {count} projections of {self.path};"
                " they must be as many"
            )
        wrong = np.flatnonzero(~np.isfinite(angles_deg))
        if len(wrong):
            raise InputError(f"angle {wrong[0]} is {angles_deg[wrong[0]]}; give finite angles")
        return replace(self, angles_deg=angles_deg.astype(np.float64))

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenScan]:
        """Open the file for reading.

        Raises
        ------
        DataFileError
            If it cannot be opened.
        """
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise damaged(self.path, error) from error
        with file:
            yield OpenScan(self, file)


class OpenScan:
    """The frames of a scan whose file is open; see `ScanFile.opened`."""

    def __init__(self, scan: ScanFile, file: h5py.File) -> None:
        self._scan, self._file = scan, file

    def read(self, kind: ImageKey, start: int, stop: int, rows: range) -> NDArray[Any]:
        """Read some rows of some frames.

        Parameters
        ----------
        kind : ImageKey
            Projections, flats or darks.
        start, stop : int
            Which of them, counted over the frames of this kind.
        rows : range
            Which rows.

        Returns
        -------
        ndarray, shape (stop - start, len(rows), columns)
            Pixels in the detector's dtype, native byte order.

        Raises
        ------
        DataFileError
            If the file is damaged there.
        """
        stack = self._scan.stacks[kind]
        wanted = stack.index[start:stop]
        shape = (len(wanted), len(rows), self._scan.columns)
        out = np.empty(shape, np.dtype(self._scan.dtype).newbyteorder("="))
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        place = 0
        try:
            data = self._file[stack.dataset]
            for run in np.split(wanted, breaks):
                if not len(run):
                    continue
                source = np.s_[int(run[0]) : int(run[-1]) + 1, rows.start : rows.stop]
                data.read_direct(out, source, np.s_[place : place + len(run)])
                place += len(run)
        except (OSError, KeyError, RuntimeError) as error:
            what = f"{_KIND_NAMES[kind]} {wanted[0]} to {wanted[-1]}: {error}"
            raise damaged(self._scan.path, what) from error
        return out


def damaged(path: Path, error: object) -> DataFileError:
    """What to say of a file that HDF5 cannot read."""
    reason = " ".join(str(error).split())
    return DataFileError(
        f"cannot read {path} ({reason}); it is damaged or truncated, copy it again"
    )
