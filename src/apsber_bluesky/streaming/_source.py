"""Where consumers read frames: the ring while they are there, else the spool."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters that detectors use
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, FrameError, FrameRange
from apsber_bluesky.streaming._chunk_ends import ChunkEnds
from apsber_bluesky.streaming._codecs import decode, stored_codec
from apsber_bluesky.streaming._ring import FrameRing, frame_tag, stream_key
from apsber_bluesky.streaming._superblock import grows

# How long one call waits for frames that are being decoded; a worker needs milliseconds for each.
_PATIENCE_S: Final = 0.5
_POLL_S: Final = 0.001


def path_of_uri(uri: str) -> Path:
    """The local path of a ``file:`` URI.

    Raises
    ------
    DataFileError
        If the URI is of another kind or another host.
    """
    parsed = urlparse(uri)
    if parsed.scheme != "file" or parsed.hostname not in (None, "localhost"):
        raise DataFileError(f"cannot read frames at {uri!r}: not a local file")
    return Path(unquote(parsed.path))


def _read_frame(dataset: Any, index: int, out: NDArray[Any], ends: ChunkEnds) -> None:
    """Read one frame; `out` has shape ``(rows, columns)``."""
    codec = None
    if dataset.chunks == (1, *dataset.shape[1:]):
        end = ends.end_of(dataset, index)
        # A frame that was lost has no place in the file.
        if end is not None:
            _check_within(dataset, index, end)
            codec = stored_codec(dataset)
    elif dataset.chunks is not None:
        chunk = dataset.id.get_chunk_info_by_coord((index, 0, 0))
        if chunk.byte_offset is not None:
            _check_within(dataset, index, chunk.byte_offset + chunk.size)
    if codec is not None:
        # HDF5 would take twice as long to decode them.
        filter_mask, encoded = dataset.id.read_direct_chunk((index, 0, 0))
        if not filter_mask:
            rows, columns = out.shape
            decode(encoded, codec, rows=rows, columns=columns, dtype=out.dtype.str, out=out)
            return
    dataset.read_direct(out, np.s_[index])


def _check_within(dataset: Any, index: int, chunk_end: int) -> None:
    if not dataset.file.swmr_mode:
        return
    if chunk_end > Path(dataset.file.filename).stat().st_size:
        raise DataFileError(
            f"{dataset.file.filename} ends before frame {index} of {dataset.name}; the file is"
            " truncated"
        )


class RingOrFileSource:
    """Read frames by document reference; implements `apsber_bluesky.core.FrameSource`.

    Parameters
    ----------
    ring : FrameRing or None
        The receiver's ring, where the detector streams; None reads files only.

    Attributes
    ----------
    from_ring, from_file : int
        Frames read so far, by where they were.
    """

    def __init__(self, ring: FrameRing | None = None) -> None:
        self._ring = ring
        self._files: dict[Path, h5py.File] = {}
        self._ends: defaultdict[tuple[str, str], ChunkEnds] = defaultdict(ChunkEnds)
        self._lock = threading.Lock()
        self.from_ring = 0
        self.from_file = 0

    def read(self, frames: FrameRange) -> NDArray[Any]:
        """Read the frames, shape ``(stop - start, rows, columns)``, in the detector's dtype.

        Raises
        ------
        DataFileError
            If they are neither in the ring nor in the file.
        """
        shape, dtype = self._form(frames)
        self._await(_tags(frames))
        return self._copy(frames, np.empty(shape, dtype))

    @contextmanager
    def borrow(self, frames: FrameRange) -> Iterator[NDArray[Any]]:
        """Lend the frames as `read` would return them, without a copy where the ring allows it.

        Yields
        ------
        ndarray, shape (stop - start, rows, columns)
            Not to be written to, nor kept beyond the body: meanwhile its slots of the ring are
            locked, and newer frames for them are left to the file.

        Raises
        ------
        DataFileError
            If they are neither in the ring nor in the file.
        """
        shape, dtype = self._form(frames)
        tags = _tags(frames)
        self._await(tags)
        if self._ring is not None:
            with self._ring.view(tags) as pieces:
                if pieces is not None and sum(p.size for p in pieces) == _size(shape, dtype):
                    # Around the end of the ring lies no array.
                    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                    self._count(in_ring=len(tags))
                    yield whole.view(dtype).reshape(shape)
                    return
        yield self._copy(frames, np.empty(shape, dtype))

    def _form(self, frames: FrameRange) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._lock:
            dataset = self._dataset(frames)
            return (frames.stop - frames.start, *dataset.shape[1:]), dataset.dtype

    def _await(self, tags: list[int]) -> None:
        """Wait a little for frames that a decode worker has."""
        if self._ring is None:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while self._ring.expects(tags) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _copy(self, frames: FrameRange, out: NDArray[Any]) -> NDArray[Any]:
        ring = self._ring
        late = [
            number
            for number, tag in enumerate(_tags(frames))
            if ring is None or not ring.get(tag, out[number])
        ]
        if late:
            with self._lock:
                self._read_file(self._dataset(frames), frames, late, out)
        self._count(in_ring=len(out) - len(late), in_file=len(late))
        return out

    def _count(self, *, in_ring: int = 0, in_file: int = 0) -> None:
        with self._lock:
            self.from_ring += in_ring
            self.from_file += in_file

    def _dataset(self, frames: FrameRange) -> Any:
        path = path_of_uri(frames.uri)
        try:
            if path not in self._files:
                self._files[path] = _open(path)
            dataset = self._files[path][frames.dataset]
        # h5py has no exception of its own for a damaged file: mostly it is one of these.
        except (OSError, KeyError, RuntimeError) as error:
            raise DataFileError(
                f"cannot read {frames.dataset} of {path}: {error}; is it still there?"
            ) from error
        shape = getattr(dataset, "shape", None)
        if shape is None or len(shape) != 3:
            raise DataFileError(
                f"{frames.dataset} of {path} has shape {shape}; frames are (n, rows, columns)"
            )
        return dataset

    def _read_file(
        self, dataset: Any, frames: FrameRange, late: list[int], out: NDArray[Any]
    ) -> None:
        # Also what HDF5 knew of frames that were then still to come is old.
        dataset.refresh()
        if dataset.shape[0] < frames.stop:
            raise DataFileError(
                f"{frames.uri} {frames.dataset} holds {dataset.shape[0]} frames, documents"
                f" announced {frames.stop}; the file is truncated"
            )
        ends = self._ends[frames.uri, frames.dataset]
        try:
            for number in late:
                _read_frame(dataset, frames.start + number, out[number], ends)
        except (OSError, RuntimeError, FrameError) as error:
            raise DataFileError(
                f"cannot read frame of {frames.uri} {frames.dataset}: {error}"
            ) from error

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._ends.clear()


def _open(path: Path) -> h5py.File:
    if not grows(path):
        return h5py.File(path, "r", libver="latest")
    # The receiver writes frames past HDF5, so none may stay in a cache; each is read once, whole.
    return h5py.File(path, "r", libver="latest", swmr=True, rdcc_nbytes=0)


def _tags(frames: FrameRange) -> list[int]:
    key = stream_key(frames.run_uid, frames.stream)
    return [frame_tag(key, index) for index in range(frames.start, frames.stop)]


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize
