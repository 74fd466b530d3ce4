"""Write labels that somebody drew; most of a volume has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from apsber_bluesky.core import InputError, atomic_file, explain_disk_errors

UNKNOWN: Final = 255


def write_drawn_labels(path: Path, labels: Any, classes: Sequence[str]) -> int:
    """Write drawn labels as HDF5, as the training of a segmenter reads them.

    The numbers in the file are one less than those that were drawn, 255 where nothing was drawn:
    the first class is 0. Slices without labels take no room.

    Parameters
    ----------
    path : Path
        The file; it appears whole or not at all.
    labels : array-like of integers, shape (slices, rows, columns)
        What was drawn: 1, 2, ... as `classes` names them, 0 where nothing was drawn. Read slice
        by slice.
    classes : sequence of str
        Names of 1, 2, ...

    Returns
    -------
    int
        How many voxels are labelled.

    Raises
    ------
    InputError
        If nothing was drawn, or a number that has no class.
    StorageError
        If the disk refuses.
    """
    if len(labels.shape) != 3:
        raise InputError(f"labels have shape {tuple(labels.shape)}; give slices, rows, columns")
    if not 1 <= len(classes) < UNKNOWN:
        raise InputError(f"{len(classes)} classes are named; give 1 to {UNKNOWN - 1}")
    count = 0
    with (
        explain_disk_errors(path, "write the labels"),
        atomic_file(path) as partial,
        h5py.File(partial, "w") as file,
    ):
        dataset = file.create_dataset(
            "labels",
            shape=labels.shape,
            dtype="u1",
            chunks=(1, *labels.shape[1:]),
            compression="gzip",
            fillvalue=UNKNOWN,
        )
        dataset.attrs["classes"] = list(classes)
        for number in range(labels.shape[0]):
            drawn = np.asarray(labels[number])
            if not drawn.any():
                continue
            _check(drawn, number, classes)
            count += int(np.count_nonzero(drawn))
            dataset[number] = np.where(drawn == 0, UNKNOWN, drawn - 1).astype(np.uint8)
        if not count:
            raise InputError("nothing is labelled yet; draw some of each class first")
    return count


def _check(drawn: Any, number: int, classes: Sequence[str]) -> None:
    low, high = int(drawn.min()), int(drawn.max())
    if low < 0 or high > len(classes):
        raise InputError(
            f"slice {number} has label {high if high > len(classes) else low}, but"
            f" {len(classes)} classes are named ({', '.join(classes)}); name the others too"
        )
