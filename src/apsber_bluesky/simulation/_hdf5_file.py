"""The HDF5 files that the camera's HDF1 plugin writes, laid out as NDFileHDF5 does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from apsber_bluesky.simulation._plugin import Frame

_ATTRIBUTES: dict[str, type] = {
    "NDArrayUniqueId": np.int32,
    "NDArrayTimeStamp": np.float64,
    "NDArrayEpicsTSSec": np.uint32,
    "NDArrayEpicsTSnSec": np.uint32,
    "RotAngle": np.float64,
    "ImageKey": np.int32,
}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How to write: zlib level (None for no compression), and single-writer-multiple-reader."""

    zlib_level: int | None = None
    swmr: bool = False


class FrameFile:
    """One open file: ``/entry/data/data`` and the attributes of each frame beside it.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    frame : Frame
        Any frame, for size and type.
    options : FileOptions
        How to write.
    """

    def __init__(self, path: Path, frame: Frame, options: FileOptions) -> None:
        self.path = path
        self.num_frames = 0
        self._file = h5py.File(path, "w", libver="latest")
        try:
            self._lay_out(frame, options)
            if options.swmr:
                self._file.swmr_mode = True
        except BaseException:
            self._file.close()
            raise

    def _lay_out(self, frame: Frame, options: FileOptions) -> None:
        entry = _group(self._file, "entry", "NXentry")
        self._file.attrs["default"] = "entry"
        entry.attrs["default"] = "data"
        instrument = _group(entry, "instrument", "NXinstrument")
        detector = _group(instrument, "detector", "NXdetector")
        shape = frame.pixels.shape
        compression: dict[str, Any] = {}
        if options.zlib_level is not None:
            compression = {"compression": "gzip", "compression_opts": options.zlib_level}
        self._data = detector.create_dataset(
            "data",
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape),
            dtype=frame.pixels.dtype,
            **compression,
        )
        data = _group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        data["data"] = self._data
        attributes = _group(instrument, "NDAttributes", "NXcollection")
        self._attributes = {
            name: attributes.create_dataset(
                name, shape=(0,), maxshape=(None,), chunks=(1024,), dtype=dtype
            )
            for name, dtype in _ATTRIBUTES.items()
        }
        entry["NDAttributes"] = attributes

    def append(self, frame: Frame) -> None:
        """Write one more frame."""
        index = self.num_frames
        self._data.resize(index + 1, axis=0)
        self._data[index] = frame.pixels
        seconds, nanoseconds = frame.epics_time
        values = (
            frame.unique_id, frame.time_s, seconds, nanoseconds, frame.angle_deg, int(frame.kind),
        )  # fmt: skip
        for dataset, value in zip(self._attributes.values(), values, strict=True):
            dataset.resize(index + 1, axis=0)
            dataset[index] = value
        self.num_frames += 1

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _group(parent: Any, name: str, nexus_class: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group
