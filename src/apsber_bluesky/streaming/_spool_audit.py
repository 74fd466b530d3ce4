"""What a spool really holds: its index, and which frames' pixels fit their checksums.

A receiver that was killed leaves no books of its last series, but it leaves its spool; and one that
still runs has not written them yet.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from apsber_bluesky.core import (
    KEY_OF_STREAM,
    DataFileError,
    FrameBooks,
    SeriesBooks,
)
from apsber_bluesky.streaming._superblock import grows

#: One row of the index: what the spool says of a frame.
INDEX_DTYPE: Final = np.dtype(
    [("frame_number", "<i8"), ("timestamp", "<f8"), ("angle", "<f8"), ("checksum", "<u8")]
)


_END_OF_FILE: Final = struct.Struct("<Q")
_END_OF_FILE_AT: Final = 28
_PATIENCE_S: Final = 0.5
_POLL_S: Final = 0.01


def _check_not_cut(path: Path) -> None:
    """Refuse a spool that is shorter than its superblock says.

    HDF5 notices that of a closed file; of one that a SWMR writer has marked it waits for the rest,
    for ever.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with path.open("rb") as stream:
            stream.seek(_END_OF_FILE_AT)
            field = stream.read(_END_OF_FILE.size)
        size = path.stat().st_size
        if len(field) == _END_OF_FILE.size and size >= _END_OF_FILE.unpack(field)[0]:
            return
        # A writer that lives may be about to make the file longer.
        if time.monotonic() > deadline:
            raise OSError(f"it is truncated to {size} bytes")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        if marked := grows(path):
            _check_not_cut(path)
        with h5py.File(path, "r", libver="latest", swmr=marked) as file:
            yield file
    except (OSError, KeyError) as error:
        raise DataFileError(f"cannot read the frame spool {path}: {error}") from error


def _streams(file: h5py.File) -> list[str]:
    return [stream for stream in KEY_OF_STREAM if f"/entry/{stream}/frame_number" in file]


def _index(group: Any) -> NDArray[Any]:
    index = np.zeros(len(group["frame_number"]), INDEX_DTYPE)
    for name in INDEX_DTYPE.fields or ():
        # A series may have been added between one dataset and the next.
        values = group[name][: len(index)]
        index[name][: len(values)] = values
        index[name][len(values) :] = -1 if name == "frame_number" else 0
    return index


def read_spool_index(path: Path) -> dict[str, NDArray[Any]]:
    """Read what the spool says of each frame, also while a receiver writes to it.

    Parameters
    ----------
    path : Path
        ``raw.h5``.

    Returns
    -------
    dict of str to ndarray
        For each stream that has room for frames a structured array of `INDEX_DTYPE`, shape
        ``(n,)``; ``frame_number`` is -1 where no frame is.

    Raises
    ------
    DataFileError
        If the file is missing, truncated or of another layout.
    """
    with _opened(path) as file:
        indices = {name: _index(file[f"/entry/{name}"]) for name in _streams(file)}
    return {name: index for name, index in indices.items() if len(index)}


def audit_spool(
    path: Path, *, checksums: bool = True, first: Mapping[str, int] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Tell which frames of a spool are there: those whose checksum fits their stored bytes.

    Parameters
    ----------
    path : Path
        ``raw.h5``, closed or not.
    checksums : bool
        Whether to read the frames; otherwise the index is believed.
    first : mapping of str to int, optional
        Frame of a stream from which on to read; those before are believed.

    Returns
    -------
    dict of str to ndarray
        For each stream that has room for frames, shape ``(n,)``: whether the frame is whole.

    Raises
    ------
    DataFileError
        If the file is missing, truncated or of another layout.
    """
    whole: dict[str, NDArray[np.bool_]] = {}
    with _opened(path) as file:
        for stream in _streams(file):
            group = file[f"/entry/{stream}"]
            index = _index(group)
            if not len(index):
                continue
            present = np.asarray(index["frame_number"] >= 0)
            # Room for pixels is made in steps, behind that for the index.
            present[len(group["data"]) :] = False
            if checksums:
                begin = (first or {}).get(stream, 0)
                for number in np.flatnonzero(present[begin:]) + begin:
                    present[number] = _fits(group["data"], int(number), index["checksum"][number])
            whole[stream] = present
    return whole


def _fits(data: Any, number: int, checksum: int) -> bool:
    try:
        _, stored = data.id.read_direct_chunk((number, 0, 0))
    except (OSError, RuntimeError):
        # The chunk was never written, or lies beyond the end of a file that was cut short.
        return False
    return xxhash.xxh3_64_intdigest(stored) == int(checksum)


def reconcile_books(books: FrameBooks, whole: Mapping[str, NDArray[np.bool_]]) -> FrameBooks:
    """Enter in the books the frames of a series that nobody closed.

    Parameters
    ----------
    books : FrameBooks
        What the ledger has: every series that ended.
    whole : mapping of str to ndarray of bool
        What `audit_spool` found. Room beyond what a stream's books expected is that of a series
        which has not ended; its frames are on disk or missing.

    Returns
    -------
    FrameBooks
        New books; those of streams without such room are unchanged.
    """
    streams = dict(books.streams)
    for name, present in whole.items():
        own = streams.get(name, SeriesBooks())
        tail = present[own.expected :]
        if not len(tail):
            continue
        there = int(np.count_nonzero(tail))
        lost = [own.expected + int(number) for number in np.flatnonzero(~tail)]
        streams[name] = SeriesBooks(
            expected=len(present),
            received=own.received + there,
            written=own.written + there,
            used=own.used,
            duplicated=own.duplicated,
            refused=own.refused,
            missing=own.missing + lost,
            decoded=own.decoded,
            recovered=own.recovered,
            incomplete=own.incomplete,
        )
    return FrameBooks(streams)
