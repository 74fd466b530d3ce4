"""Look at single frames of a run, also while it is being taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

# Registers the filters that detectors compress frames with.
import hdf5plugin  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError

_ENERGIES = "/entry/data/energy"


@dataclass(frozen=True, slots=True)
class FrameSeries:
    """The frames of one stream.

    Attributes
    ----------
    dataset : str
        Where they are in the file.
    shape : tuple of int
        Shape ``(n, rows, columns)``.
    dtype : numpy.dtype
        Of the pixels.
    written : ndarray of int64
        Indices of those that are there.
    """

    dataset: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    written: NDArray[np.int64]


class FrameReader:
    """Read chosen frames out of ``raw.h5``, a ``raw_<name>.h5`` or an ``energies_<name>.h5``.

    Use it as a context manager. A receiver that is writing to the file is not disturbed; what it
    writes later is not seen.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    series : dict of str to FrameSeries
        What has frames, by stream; energies are the stream ``primary``.

    Raises
    ------
    DataFileError
        If the file is missing, damaged or of another layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        try:
            found = {name: self._series_of(name) for name in _streams(self._file)}
        except (OSError, KeyError, RuntimeError) as error:
            self._file.close()
            raise DataFileError(f"cannot read the frames in {path}: {error}") from error
        self.series = {name: series for name, series in found.items() if len(series.written)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, stream: str, indices: NDArray[np.int64], row: int | None = None) -> NDArray[Any]:
        """Read some frames, or one row of each.

        Parameters
        ----------
        stream : str
            One of `series`.
        indices : ndarray of int64, shape (n,)
            Which of its frames.
        row : int, optional
            Which row; without it whole frames are read.

        Returns
        -------
        ndarray, shape (n, rows, columns) or (n, columns)
            The pixels.

        Raises
        ------
        DataFileError
            If the file is damaged there.
        """
        series = self.series[stream]
        place = slice(None) if row is None else row
        try:
            data = self._file[series.dataset]
            # Not all at once: HDF5 is slow with lists of indices.
            return np.stack([data[index, place] for index in indices.tolist()])
        except (OSError, RuntimeError, ValueError) as error:
            raise DataFileError(
                f"cannot read frames of {stream} in {self.path}: {error}"
            ) from error

    def _series_of(self, stream: str) -> FrameSeries:
        if _ENERGIES in self._file:
            data, numbers = self._file[_ENERGIES], None
        else:
            group = self._file[f"/entry/{stream}"]
            data, numbers = group["data"], group["frame_number"][...]
        written = np.arange(len(data))
        if numbers is not None:
            # A receiver writes the number of a frame after its pixels.
            written = np.flatnonzero(numbers[: len(data)] >= 0)
        return FrameSeries(data.name, data.shape, data.dtype, written)


def _streams(file: h5py.File) -> list[str]:
    if _ENERGIES in file:
        return ["primary"]
    entry = file.get("entry", {})
    return [
        name for name in entry if "frame_number" in entry[name] and entry[name]["data"].ndim == 3
    ]


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise DataFileError(f"no frames: {path} is missing; the receiver writes it")
    try:
        return h5py.File(path, "r", libver="latest")
    except OSError:
        # Somebody is writing to it; then only a reader that knows may open it.
        pass
    try:
        # The receiver writes frames past HDF5, so none may stay in a cache.
        return h5py.File(path, "r", libver="latest", swmr=True, rdcc_nbytes=0)
    except OSError as error:
        raise DataFileError(
            f"cannot read {path}: {error}; it is truncated or no HDF5 file"
        ) from error
