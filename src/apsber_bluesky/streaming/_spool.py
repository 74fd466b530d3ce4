"""The spool: frames as they left the detector, appended to ``raw.h5`` and readable meanwhile.

HDF5 in SWMR mode: the file is valid at any instant and readers follow it while it grows. Frames
are written as direct chunks at their own place, so a frame that is late still lands where it
belongs, and one that is lost leaves zeros with frame number -1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from apsber_bluesky.core import KEY_OF_STREAM, SeriesRequest, StorageError, explain_disk_errors
from apsber_bluesky.streaming._codecs import hdf5_filter
from apsber_bluesky.streaming._series_messages import Codec, Frame

_INDEX_FIELDS: Final[tuple[tuple[str, str, float], ...]] = (
    ("frame_number", "<i8", -1),
    ("timestamp", "<f8", np.nan),
    ("angle", "<f8", np.nan),
    ("checksum", "<u8", 0),
)
_INDEX_CHUNK: Final = 1024


def dataset_path(stream: str, channel: int = 0) -> str:
    """Path of a stream's frames inside the spool; further channels are ``data_2`` and so on."""
    return f"/entry/{stream}/{_dataset_name(channel)}"


def _dataset_name(channel: int) -> str:
    return "data" if channel == 0 else f"data_{channel + 1}"


class Spool:
    """``raw.h5`` of one run, open for appending.

    Parameters
    ----------
    path : Path
        The file; it must not exist yet.
    request : SeriesRequest
        First series of the run; all its streams have frames of this size and dtype.
    codec : {"none", "bslz4", "lz4"}
        How the detector compresses frames; they are stored as they come.
    channels : int
        Images per frame.

    Raises
    ------
    StorageError
        If the file cannot be made there.
    """

    def __init__(
        self, path: Path, request: SeriesRequest, *, codec: Codec = "none", channels: int = 1
    ) -> None:
        self.path = path
        self.request = request
        self._codec = codec
        self._unflushed: set[str] = set()
        with explain_disk_errors(path, "create the frame spool"):
            # h5py reports a full or forbidden place without an errno; the system call has it.
            path.open("xb").close()
            self._file = h5py.File(path, "w", libver="latest")
        self._data: dict[str, list[Any]] = {}
        self._index: dict[str, dict[str, Any]] = {}
        for stream, image_key in KEY_OF_STREAM.items():
            self._create(stream, int(image_key), channels)
        self._file.attrs["run_uid"] = request.run_uid
        # No dataset or attribute can be added after this.
        self._file.swmr_mode = True

    def _create(self, stream: str, image_key: int, channels: int) -> None:
        frame = (self.request.rows, self.request.columns)
        group = self._file.create_group(f"entry/{stream}")
        group.attrs["image_key"] = image_key
        self._data[stream] = [
            group.create_dataset(
                _dataset_name(channel),
                (0, *frame),
                self.request.dtype,
                chunks=(1, *frame),
                maxshape=(None, *frame),
                **hdf5_filter(self._codec, self.request.dtype),
            )
            for channel in range(channels)
        ]
        self._index[stream] = {
            name: group.create_dataset(
                name, (0,), dtype, chunks=(_INDEX_CHUNK,), maxshape=(None,), fillvalue=fill
            )
            for name, dtype, fill in _INDEX_FIELDS
        }

    def extend(self, stream: str, num_frames: int) -> int:
        """Make room for a series; the index of its first frame."""
        images = self._data[stream]
        first = int(images[0].shape[0])
        with explain_disk_errors(self.path, "extend the frame spool"):
            for data in images:
                data.resize(first + num_frames, axis=0)
            for field in self._index[stream].values():
                field.resize(first + num_frames, axis=0)
            self._unflushed.add(stream)
            self.flush()
        return first

    def write(self, stream: str, index: int, frame: Frame) -> None:
        """Write a frame at its place."""
        self._unflushed.add(stream)
        with explain_disk_errors(self.path, "write a frame"):
            # The mask says that the filter was skipped, for a frame that came uncompressed.
            skipped = int(self._codec != "none" and frame.codec == "none")
            data = self._data[stream][frame.channel]
            data.id.write_direct_chunk((index, 0, 0), frame.pixels, filter_mask=skipped)
            if frame.channel:
                return
            fields = self._index[stream]
            fields["timestamp"][index] = frame.timestamp_s
            fields["angle"][index] = frame.angle_deg
            fields["checksum"][index] = frame.checksum
            fields["frame_number"][index] = frame.number

    def flush(self) -> None:
        """Make what was written visible: pixels first, then the index that names them."""
        with explain_disk_errors(self.path, "write frames"):
            for stream in self._unflushed:
                for data in self._data[stream]:
                    data.flush()
                for field in self._index[stream].values():
                    field.flush()
        self._unflushed.clear()

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        StorageError
            If what was written cannot all be kept.
        """
        try:
            with explain_disk_errors(self.path, "close the frame spool"):
                self._file.close()
        except RuntimeError as error:
            # What h5py makes of a write that fails while it closes.
            message = " ".join(str(error).split())
            raise StorageError(f"cannot close the frame spool {self.path}: {message}") from error
