"""The file of the spool: its datasets, empty, and how it is opened for writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from apsber_bluesky.core import KEY_OF_STREAM, SeriesRequest, explain_disk_errors
from apsber_bluesky.streaming._codecs import hdf5_filter
from apsber_bluesky.streaming._series_messages import Codec
from apsber_bluesky.streaming._superblock import release_dead_writer

# In the order in which they are written: the frame number says that the rest is there.
INDEX_FIELDS: Final[tuple[tuple[str, str, float], ...]] = (
    ("timestamp", "<f8", np.nan),
    ("angle", "<f8", np.nan),
    ("checksum", "<u8", 0),
    ("frame_number", "<i8", -1),
)
INDEX_CHUNK: Final = 1024
PAGE: Final = 4096


def dataset_path(stream: str, channel: int = 0) -> str:
    """Path of a stream's frames inside the spool; further channels are ``data_2`` and so on."""
    return f"/entry/{stream}/{dataset_name(channel)}"


def dataset_name(channel: int) -> str:
    """Name of the dataset of a channel in the group of its stream."""
    return "data" if channel == 0 else f"data_{channel + 1}"


def make_spool_file(path: Path, request: SeriesRequest, codec: Codec, channels: int) -> h5py.File:
    """Make the file with empty datasets, open for writing and for readers of what is written.

    Raises
    ------
    StorageError
        If it cannot be made, or is there already.
    """
    with explain_disk_errors(path, "create the frame spool"):
        # h5py reports a full or forbidden place without an errno; the system call has it.
        path.open("xb").close()
        file = _open(path, "w")
        for stream, image_key in KEY_OF_STREAM.items():
            group = file.create_group(f"entry/{stream}")
            group.attrs["image_key"] = int(image_key)
            _create(group, request, codec, channels)
        file.attrs["run_uid"] = request.run_uid
        # No dataset or attribute can be added after this.
        file.swmr_mode = True
    return file


def open_spool_file_again(path: Path) -> h5py.File:
    """Open the file of a receiver that was killed; the caller must know that it is dead.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """
    with explain_disk_errors(path, "open the frame spool again"):
        release_dead_writer(path)
        # Readers of the file have locked it against writers; to them this one is the one that died.
        file = _open(path, "r+", locking=False)
        file.swmr_mode = True
    return file


def _open(path: Path, mode: str, **options: Any) -> h5py.File:
    # Whole pages are written faster than parts of two.
    return h5py.File(
        path,
        mode,
        libver="latest",
        alignment_threshold=PAGE,
        alignment_interval=PAGE,
        # A cache would keep what is written behind its back from readers in this process.
        rdcc_nbytes=0,
        **options,
    )


def _create(group: h5py.Group, request: SeriesRequest, codec: Codec, channels: int) -> None:
    frame = (request.rows, request.columns)
    for channel in range(channels):
        group.create_dataset(
            dataset_name(channel),
            (0, *frame),
            request.dtype,
            chunks=(1, *frame),
            maxshape=(None, *frame),
            **(_allocated_early(fill_time="never") if codec == "none" else {}),
            **hdf5_filter(codec, request.dtype),
        )
    for name, dtype, fill in INDEX_FIELDS:
        group.create_dataset(
            name,
            (0,),
            dtype,
            chunks=(INDEX_CHUNK,),
            maxshape=(None,),
            **_allocated_early(fillvalue=fill),
        )


def _allocated_early(**options: Any) -> dict[str, Any]:
    """Chunks get their place in the file with the dataset, not with their first bytes."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return {"dcpl": properties, **options}
