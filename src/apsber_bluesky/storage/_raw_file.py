"""What a run's ``raw.h5`` holds: the frames of each stream and what is known of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import KEY_OF_STREAM, DataFileError, ImageKey, StreamName

ACQUISITION_ORDER: tuple[StreamName, ...] = ("darks", "flats", "primary")


@dataclass(frozen=True, slots=True)
class RawStream:
    """The frames of one stream.

    Attributes
    ----------
    name : {"darks", "flats", "primary"}
        The stream.
    shape : tuple of int
        Shape ``(n, rows, columns)``.
    num_stored : int
        Frames that the dataset has room for; those behind it, up to ``n``, were lost.
    dtype : numpy.dtype
        Of the pixels.
    frame_number : ndarray of int64, shape (n,)
        The detector's own numbers, -1 where a frame was lost.
    timestamp : ndarray of float64, shape (n,)
        Unix times [s].
    angle_deg : ndarray of float64, shape (n,)
        Angles that the detector reported [deg], NaN where it did not.
    """

    name: StreamName
    shape: tuple[int, int, int]
    num_stored: int
    dtype: np.dtype[Any]
    frame_number: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    angle_deg: NDArray[np.float64]

    @property
    def dataset(self) -> str:
        """Path of the frames in the file."""
        return f"/entry/{self.name}/data"

    def image_key(self, unusable: frozenset[int] = frozenset()) -> NDArray[np.int32]:
        """`ImageKey` of each frame, shape ``(n,)``; lost and `unusable` ones are invalid."""
        keys = np.where(self.frame_number < 0, ImageKey.INVALID, KEY_OF_STREAM[self.name])
        keys[[index for index in unusable if index < len(keys)]] = ImageKey.INVALID
        return keys.astype(np.int32)


def read_raw(path: Path) -> list[RawStream]:
    """List the streams of a ``raw.h5`` in the order in which they are taken.

    Parameters
    ----------
    path : Path
        The file; nobody may be writing to it.

    Returns
    -------
    list of RawStream
        Darks, flats, projections; those that have frames.

    Raises
    ------
    DataFileError
        If the file is missing, truncated, of another layout or without frames.
    """
    if not path.is_file():
        raise DataFileError(f"no frames: {path} is missing; the receiver writes it")
    try:
        with h5py.File(path, "r") as file:
            found = (_read_stream(path, file, name) for name in ACQUISITION_ORDER)
            streams = [stream for stream in found if stream is not None]
    except OSError as error:
        raise DataFileError(
            f"cannot read {path}: {error}; it is truncated, no HDF5 file or still being written"
        ) from error
    if not streams:
        raise DataFileError(f"{path} holds no frames in any of {', '.join(ACQUISITION_ORDER)}")
    kinds = {(stream.shape[1:], stream.dtype.str) for stream in streams}
    if len(kinds) > 1:
        raise DataFileError(f"{path} holds frames of different kinds: {sorted(kinds)}")
    return streams


def _read_stream(path: Path, file: h5py.File, name: StreamName) -> RawStream | None:
    if f"/entry/{name}" not in file:
        return None
    try:
        data, *columns = (
            file[f"/entry/{name}/{what}"] for what in ("data", "frame_number", "timestamp", "angle")
        )
    except KeyError as error:
        raise DataFileError(f"{path} misses a part of stream {name!r}: {error}") from error
    for dataset in (data, *columns):
        # This process may have followed the file while it grew, or was cut to what had come.
        dataset.refresh()
    frames = len(columns[0]) if columns[0].ndim == 1 else 0
    # The tables have a row for every frame of the series, the pixels room for those that came.
    if data.ndim != 3 or len(data) > frames or any(column.shape != (frames,) for column in columns):
        raise DataFileError(
            f"{path}: stream {name!r} has frames of shape {data.shape} but tables of"
            f" {[column.shape for column in columns]}; it was not closed properly"
        )
    if not frames:
        return None
    frame_number, timestamp, angle = (column[...] for column in columns)
    frame_number[len(data) :] = -1
    shape = (frames, *data.shape[1:])
    return RawStream(name, shape, len(data), data.dtype, frame_number, timestamp, angle)
