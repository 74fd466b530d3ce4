"""Where consumers read frames: the ring while they are there, else the spool."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters that detectors use
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, FrameRange
from apsber_bluesky.streaming._ring import FrameRing, frame_tag, stream_key

# Signature and version; then sizes of offsets and lengths, and the flags.
_SUPERBLOCK_3: Final = b"\x89HDF\r\n\x1a\n\x03"
_SWMR_WRITE: Final = 0x04


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


def _grows(path: Path) -> bool:
    """Whether a SWMR writer has the file open, or ended without closing it.

    It stands in the superblock. Any other file is opened as usual, for then HDF5 notices when it
    was cut short; a SWMR reader gets zeros, without an error, or waits for ever.
    """
    with path.open("rb") as stream:
        start = stream.read(len(_SUPERBLOCK_3) + 3)
    return start.startswith(_SUPERBLOCK_3) and bool(start[-1] & _SWMR_WRITE)


def _check_within(dataset: Any, index: int, file_bytes: int, frames: FrameRange) -> None:
    if dataset.chunks is None:
        return
    chunk = dataset.id.get_chunk_info_by_coord((index, 0, 0))
    # A frame that was lost has no place in the file.
    if chunk.byte_offset is not None and chunk.byte_offset + chunk.size > file_bytes:
        raise DataFileError(
            f"{frames.uri} ends before frame {index} of {frames.dataset}; the file is truncated"
        )


class RingOrFileSource:
    """Read frames by document reference; implements `apsber_bluesky.core.FrameSource`.

    Parameters
    ----------
    ring : FrameRing or None
        The receiver's ring, where the detector streams; None reads files only.
    """

    def __init__(self, ring: FrameRing | None = None) -> None:
        self._ring = ring
        self._files: dict[Path, h5py.File] = {}
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
        with self._lock:
            dataset = self._dataset(frames)
            out = np.empty((frames.stop - frames.start, *dataset.shape[1:]), dataset.dtype)
            key = stream_key(frames.run_uid, frames.stream)
            late = [
                index
                for index in range(frames.start, frames.stop)
                if self._ring is None
                or not self._ring.get(frame_tag(key, index), out[index - frames.start])
            ]
            self.from_ring += len(out) - len(late)
            self.from_file += len(late)
            if late:
                self._read_file(dataset, frames, late, out)
            return out

    def _dataset(self, frames: FrameRange) -> Any:
        path = path_of_uri(frames.uri)
        try:
            if path not in self._files:
                self._files[path] = h5py.File(path, "r", libver="latest", swmr=_grows(path))
            dataset = self._files[path][frames.dataset]
        except (OSError, KeyError) as error:
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
        dataset.refresh()
        if dataset.shape[0] < frames.stop:
            raise DataFileError(
                f"{frames.uri} {frames.dataset} holds {dataset.shape[0]} frames, documents"
                f" announced {frames.stop}; the file is truncated"
            )
        swmr = dataset.file.swmr_mode
        size = path_of_uri(frames.uri).stat().st_size if swmr else None
        try:
            for index in late:
                if size is not None:
                    _check_within(dataset, index, size, frames)
                out[index - frames.start] = dataset[index]
        except OSError as error:
            raise DataFileError(
                f"cannot read frame of {frames.uri} {frames.dataset}: {error}"
            ) from error

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
