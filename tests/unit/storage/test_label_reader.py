"""Labels are the same from every kind of file, and what is none is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from apsber_bluesky.core import DataFileError, InputError
from apsber_bluesky.storage import VolumeWriter, label_content, open_labels

LABELS = np.random.default_rng(3).integers(0, 3, (5, 12, 10)).astype(np.uint8)
NAMES = ("air", "root", "pore")


def write_hdf5(path: Path) -> Path:
    with h5py.File(path / "labels.h5", "w") as file:
        file["drawn/labels"] = LABELS.astype(np.int32)
        file["drawn/labels"].attrs["classes"] = list(NAMES)
        file["volume"] = np.zeros(LABELS.shape, np.float32)
    return path / "labels.h5"


def write_napari(path: Path) -> Path:
    # What napari's own writer does with a layer of labels.
    tifffile.imwrite(path / "Labels.tif", LABELS.astype(np.int32), compression="zlib")
    return path / "Labels.tif"


def write_imagej(path: Path) -> Path:
    tifffile.imwrite(path / "labels.tiff", LABELS, imagej=True)
    return path / "labels.tiff"


def write_folder(path: Path) -> Path:
    (path / "slices").mkdir()
    for number, values in enumerate(LABELS):
        tifffile.imwrite(path / "slices" / f"l_{number:04}.tif", values)
    return path / "slices"


def write_zarr(path: Path) -> Path:
    with VolumeWriter(path / "l.zarr", LABELS.shape, content=label_content(NAMES)) as sink:
        sink.write(0, LABELS)
    return path / "l.zarr"


def write_old_zarr(path: Path) -> Path:
    group = zarr.open_group(path / "old.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=LABELS)
    group.attrs["multiscales"] = [{"version": "0.4", "datasets": [{"path": "0"}]}]
    return path / "old.zarr"


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (write_hdf5, NAMES),
        (write_napari, ()),
        (write_imagej, ()),
        (write_folder, ()),
        (write_zarr, NAMES),
        (write_old_zarr, ()),
    ],
)
def test_every_kind_of_file_gives_the_same_labels(
    tmp_path: Path, write: Callable[[Path], Path], names: tuple[str, ...]
) -> None:
    labels = open_labels(write(tmp_path))
    assert labels.shape == LABELS.shape
    assert labels.dtype.kind in "iu"
    assert labels.names == dict(enumerate(names))
    for number in (3, 0, 2, 1):
        np.testing.assert_array_equal(labels.slice(number), LABELS[number])


def test_four_slices_that_were_taken_for_colours_are_slices(tmp_path: Path) -> None:
    four = LABELS[:4].astype(np.int32)
    how = {"compression": "zlib", "photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "l.tif", four, **how)
    labels = open_labels(tmp_path / "l.tif")
    np.testing.assert_array_equal([labels.slice(number) for number in range(4)], four)


def hdf5(values: Any, **more: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "l.h5", "w") as file:
            for name, each in {"labels": values, **more}.items():
                file[name] = each
        return folder / "l.h5"

    return write


def text_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text("no labels")
        return folder / name

    return write


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (hdf5(np.full((2, 4, 4), np.nan)), InputError, "are float64, not whole numbers.*NaN"),
        (hdf5(LABELS[0]), DataFileError, "it has none"),
        (hdf5(LABELS, more=LABELS), DataFileError, r"it has /labels, /more; name one as l\.h5:/"),
        (text_file("l.h5"), DataFileError, "is it an HDF5 file"),
        (text_file("l.tif"), DataFileError, "is it a TIFF file"),
        (text_file("l.png"), DataFileError, "of no kind that labels are read from"),
        (lambda folder: folder / "gone.tif", DataFileError, "there are no labels at"),
        (lambda folder: folder, DataFileError, "holds neither TIFF files nor OME-Zarr"),
    ],
)
def test_what_holds_no_labels_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_labels(write(tmp_path))


def test_a_dataset_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = hdf5(LABELS, other=LABELS[::-1])(tmp_path)
    np.testing.assert_array_equal(open_labels(path, "other").slice(0), LABELS[-1])
    with pytest.raises(DataFileError, match="has no dataset 'third'"):
        open_labels(path, "third")


def test_a_truncated_file_is_said_to_be_unreadable_where_it_is(tmp_path: Path) -> None:
    path = write_napari(tmp_path)
    labels = open_labels(path)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages[1].dataoffsets[0]
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="cannot read slice 1 of"):
        labels.slice(1)
