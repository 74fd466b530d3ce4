"""The spool: frames as they left the detector, in ``raw.h5``, readable while they come.

HDF5 in SWMR mode: the file is valid at any instant and readers follow it while it grows. Each
frame has its own place, so one that is late still lands where it belongs, and one that is lost
leaves zeros with frame number -1.

HDF5 only makes the places; the bytes are written behind its back. Plain frames are written with
pwrite at the offset of their chunk, into blocks reserved ahead, which costs two thirds of writing
a growing file and lets other threads run. Compressed frames, whose size nobody knows before, go
through HDF5 as direct chunks. The index rows that name the frames are written last, many at a
time; so whatever a killed receiver leaves, a row means that its frame is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import KEY_OF_STREAM, SeriesRequest, StorageError, explain_disk_errors
from apsber_bluesky.streaming._disk_space import blank, reserve
from apsber_bluesky.streaming._series_messages import Codec, Frame
from apsber_bluesky.streaming._spool_file import (
    INDEX_CHUNK,
    INDEX_FIELDS,
    PAGE,
    dataset_name,
    make_spool_file,
    open_spool_file_again,
)

_INDEX_ITEM: Final = 8
_PROBE: Final = 64
_GROW_BYTES: Final = 256 << 20
_GROW_FRAMES: Final = 4096
_GROW_FRACTION: Final = 0.25


class _Row(NamedTuple):
    """One row of the index."""

    place: int
    timestamp: float
    angle: float
    checksum: int
    frame_number: int


class StoredBytes(NamedTuple):
    """Where the bytes of a frame lie in the spool: offset and size [byte]."""

    offset: int
    size: int


class _Places:
    """The datasets of one stream, and where their chunks lie in the file."""

    def __init__(self, group: h5py.Group, channels: int) -> None:
        self.images = [group[dataset_name(channel)] for channel in range(channels)]
        self.index = {name: group[name] for name, _, _ in INDEX_FIELDS}
        # Room is made in steps while frames come; this many frames there are to be.
        self.planned = int(self.index["frame_number"].shape[0])
        self.image_offsets: list[NDArray[np.int64]] = []
        self.index_offsets: dict[str, NDArray[np.int64]] = {}
        self.rows: list[_Row] = []
        self.reserved = 0
        self.locate()

    def locate(self) -> None:
        """Ask HDF5 where the chunks are."""
        self.image_offsets = [_chunk_offsets(data) for data in self.images]
        self.index_offsets = {name: _chunk_offsets(data) for name, data in self.index.items()}


def _chunk_offsets(dataset: Any) -> NDArray[np.int64]:
    """Offset of each chunk along the first axis [byte]; -1 where there is none yet."""
    step = dataset.chunks[0]
    offsets = np.full(-(-dataset.shape[0] // step), -1, np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0] // step] = chunk.byte_offset

    # Asking for one chunk at a time searches all of them each time.
    dataset.id.chunk_iter(note)
    return offsets


class Spool:
    """``raw.h5`` of one run, open for appending. One thread at a time may use it.

    Parameters
    ----------
    path : Path
        The file; it must not exist yet, unless it is resumed.
    request : SeriesRequest
        First series of the run; all its streams have frames of this size and dtype.
    codec : {"none", "bslz4", "lz4"}
        How the detector compresses frames; they are stored as they come.
    channels : int
        Images per frame.
    resume : bool
        Go on with the file of a receiver that was killed; the caller must know that it is dead.

    Raises
    ------
    StorageError
        If the file cannot be made there, or cannot be read again.
    """

    def __init__(
        self,
        path: Path,
        request: SeriesRequest,
        *,
        codec: Codec = "none",
        channels: int = 1,
        resume: bool = False,
    ) -> None:
        self.path = path
        self.request = request
        if resume:
            self._file = open_spool_file_again(path)
        else:
            self._file = make_spool_file(path, request, codec, channels)
        self._plain = codec == "none"
        self._streams: dict[str, _Places] = {
            stream: _Places(self._file[f"entry/{stream}"], channels) for stream in KEY_OF_STREAM
        }
        self._frame_bytes = request.frame_bytes
        self._step = max(1, min(_GROW_FRAMES, _GROW_BYTES // self._frame_bytes))
        #: Where the frame lies that was compressed and written last.
        self.last_stored = StoredBytes(0, 0)
        with explain_disk_errors(path, "open the frame spool"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def extend(self, stream: str, num_frames: int) -> int:
        """Make room for a series; the index of its first frame."""
        places = self._streams[stream]
        first = places.planned
        with explain_disk_errors(self.path, "extend the frame spool"):
            for dataset in places.index.values():
                dataset.resize(first + num_frames, axis=0)
            places.planned = first + num_frames
            self._grow(places, first)
        return first

    def _grow(self, places: _Places, index: int) -> None:
        """Make a place for the frame and some after it.

        Not for the whole series at once: a scan that is given up would leave the rest behind, and
        every copy of the file would carry it.
        """
        # By a fraction, too: HDF5 tells the places only of all frames at once.
        step = max(self._step, int(index * _GROW_FRACTION))
        length = min(places.planned, index + step)
        for data in places.images:
            data.resize(length if self._plain else places.planned, axis=0)
        for dataset in (*places.images, *places.index.values()):
            dataset.flush()
        # So that the file is as long as its places are.
        self._file.flush()
        places.locate()

    def shorten(self, stream: str, num_frames: int) -> None:
        """Give up the places of a stream behind so many frames.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        self.flush()
        places = self._streams[stream]
        with explain_disk_errors(self.path, "shorten the frame spool"):
            for offsets in places.image_offsets if self._plain else []:
                for offset in offsets[num_frames:]:
                    blank(self._descriptor, int(offset), self._frame_bytes)
            for dataset in (*places.images, *places.index.values()):
                dataset.resize(min(num_frames, dataset.shape[0]), axis=0)
                dataset.flush()
            self._file.flush()
            places.planned, places.reserved = num_frames, 0
            places.locate()

    def write(self, stream: str, index: int, frame: Frame) -> None:
        """Write a frame at its place; `flush` makes it known.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        places = self._streams[stream]
        with explain_disk_errors(self.path, "write a frame"):
            if self._plain:
                self._write_plain(places, index, frame)
            else:
                # The mask says that the filter was skipped, for a frame that came uncompressed.
                data, skipped = places.images[frame.channel], int(frame.codec == "none")
                data.id.write_direct_chunk((index, 0, 0), frame.pixels, filter_mask=skipped)
                self.last_stored = self._stored_last(data, index, frame.pixels)
        if frame.channel == 0:
            places.rows.append(
                _Row(index, frame.timestamp_s, frame.angle_deg, frame.checksum, frame.number)
            )

    def _write_plain(self, places: _Places, index: int, frame: Frame) -> None:
        if index >= places.images[0].shape[0]:
            self._grow(places, index)
        offset = int(places.image_offsets[frame.channel][index])
        size = len(frame.pixels)
        if offset + size > places.reserved:
            ahead = size * min(self._step, places.planned - index)
            reserve(self._descriptor, offset, ahead)
            places.reserved = offset + ahead
        self._write_at(offset, frame.pixels)

    def _write_at(self, offset: int, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._descriptor, view, offset)
            view, offset = view[done:], offset + done

    def _stored_last(self, data: Any, index: int, pixels: memoryview) -> StoredBytes:
        size = len(pixels)
        offset = os.fstat(self._descriptor).st_size - size
        # HDF5 searches all chunks for the place of one. A new one lies at the end of the file,
        # nearly always; the bytes tell.
        head = min(size, _PROBE)
        if (
            offset % PAGE == 0
            and os.pread(self._descriptor, head, offset) == pixels[:head]
            and os.pread(self._descriptor, head, offset + size - head) == pixels[-head:]
        ):
            return StoredBytes(offset, size)
        chunk = data.id.get_chunk_info_by_coord((index, 0, 0))
        return StoredBytes(chunk.byte_offset, chunk.size)

    def forget(self, stream: str, indices: Sequence[int]) -> None:
        """Take frames back: the index names them no more.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        rows = self._streams[stream].rows
        rows.extend(_Row(index, np.nan, np.nan, 0, -1) for index in indices)
        self.flush()

    def flush(self) -> None:
        """Make what was written known: pixels first, then the rows that name them.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        with explain_disk_errors(self.path, "write frames"):
            for places in self._streams.values():
                if not places.rows:
                    continue
                if not self._plain:
                    for data in places.images:
                        data.flush()
                self._write_rows(places)
                places.rows.clear()

    def _write_rows(self, places: _Places) -> None:
        # The last of two rows of one frame holds.
        rows = sorted({row.place: row for row in places.rows}.values())
        for run in _runs(rows):
            chunk, first = divmod(run[0].place, INDEX_CHUNK)
            for name, dtype, _ in INDEX_FIELDS:
                values = np.array([getattr(row, name) for row in run], dtype)
                offset = int(places.index_offsets[name][chunk]) + first * _INDEX_ITEM
                self._write_at(offset, values.tobytes())

    def blank(self, stream: str, indices: Sequence[int]) -> None:
        """Make frames that did not come read as zeros, whatever a failed write left there.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        places = self._streams[stream]
        with explain_disk_errors(self.path, "blank missing frames"):
            if self._plain:
                for offsets in places.image_offsets:
                    for index in indices:
                        if index < len(offsets):
                            blank(self._descriptor, int(offsets[index]), self._frame_bytes)
                return
            # One that a killed receiver wrote, but did not get to name, has a chunk.
            places.locate()
            for data, offsets in zip(places.images, places.image_offsets, strict=True):
                for index in indices:
                    if offsets[index] >= 0:
                        data[index] = 0
                data.flush()

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        StorageError
            If what was written cannot all be kept.
        """
        try:
            try:
                self.flush()
            finally:
                with explain_disk_errors(self.path, "close the frame spool"):
                    self._file.close()
        except RuntimeError as error:
            # What h5py makes of a write that fails while it closes.
            message = " ".join(str(error).split())
            raise StorageError(f"cannot close the frame spool {self.path}: {message}") from error
        finally:
            os.close(self._descriptor)


def _runs(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows that lie side by side in one chunk of the index."""
    run: list[_Row] = []
    for row in rows:
        if run and (row.place != run[-1].place + 1 or row.place % INDEX_CHUNK == 0):
            yield run
            run = []
        run.append(row)
    if run:
        yield run
