"""Labels that somebody drew, slice by slice: HDF5, TIFF and OME-Zarr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, InputError

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class LabelVolume:
    """Labels on disk.

    Attributes
    ----------
    path : Path
        File or folder.
    shape : tuple of int
        Shape ``(slices, rows, columns)``.
    dtype : dtype
        Of the numbers, an integer one.
    names : dict of int to str
        What the numbers mean, if the file says.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    names: dict[int, str]
    _read: Callable[[int], NDArray[Any]]

    def slice(self, number: int) -> NDArray[Any]:
        """The labels of a slice, shape ``(rows, columns)``.

        Raises
        ------
        DataFileError
            If it cannot be read.
        """
        try:
            return np.asarray(self._read(number))
        except Exception as error:  # decoders have no common class of errors
            raise DataFileError(f"cannot read slice {number} of {self.path}: {error}") from error


def open_labels(path: Path, dataset: str | None = None) -> LabelVolume:
    """Find out what labels a file holds; none is read.

    Parameters
    ----------
    path : Path
        HDF5 file; TIFF with a page for each slice, as napari saves a layer of labels; folder of
        TIFF files, one for each slice in the order of their names; or OME-Zarr.
    dataset : str, optional
        Which dataset of an HDF5 file; without a name it must have one of three dimensions and
        whole numbers.

    Returns
    -------
    LabelVolume
        The labels.

    Raises
    ------
    DataFileError
        If there is no such file, or it cannot be read, or has no labels.
    InputError
        If its values are no whole numbers, or have not three dimensions.
    """
    if not path.exists():
        raise DataFileError(f"there are no labels at {path}; check the name")
    if path.is_dir():
        is_zarr = (path / "zarr.json").is_file() or (path / ".zattrs").is_file()
        return _open_zarr(path) if is_zarr else _open_folder(path)
    suffix = path.suffix.lower()
    if suffix in _HDF5:
        return _open_hdf5(path, dataset)
    if suffix in _TIFF:
        return _open_tiff(path)
    raise DataFileError(
        f"{path} is of no kind that labels are read from; give HDF5 ({', '.join(_HDF5)}),"
        " TIFF (.tif), a folder of TIFF files, or OME-Zarr"
    )


def _open_hdf5(path: Path, dataset: str | None) -> LabelVolume:
    try:
        with h5py.File(path, "r") as file:
            found: Any = file.get(dataset) if dataset else _only_dataset(path, file)
            if not isinstance(found, h5py.Dataset):
                raise DataFileError(f"{path} has no dataset {dataset!r}")
            name = str(found.name)
            shape, dtype = _checked(path, found.shape, found.dtype)
            names = _named(found.attrs.get("classes", ()))
    except OSError as error:
        raise DataFileError(f"cannot read {path} ({error}); is it an HDF5 file?") from error

    def read(number: int) -> NDArray[Any]:
        with h5py.File(path, "r") as file:
            values: NDArray[Any] = file[name][number]
        return values

    return LabelVolume(path, shape, dtype, names, read)


def _only_dataset(path: Path, file: h5py.File) -> h5py.Dataset:
    candidates: list[h5py.Dataset] = []

    def look(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset) and entry.ndim == 3:
            candidates.append(entry)

    file.visititems(look)
    whole = [entry for entry in candidates if entry.dtype.kind in "iu"]
    # A single one that is none of labels is refused with the reason.
    chosen = whole or candidates
    if len(chosen) != 1:
        names = ", ".join(str(entry.name) for entry in chosen) or "none"
        raise DataFileError(
            f"{path} should have one dataset of three dimensions and whole numbers, it has"
            f" {names}; name one as {path.name}:/NAME"
        )
    return chosen[0]


def _open_tiff(path: Path) -> LabelVolume:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            shape = series.shape if len(series.shape) != 2 else (1, *series.shape)
            pages, dtype = len(series.pages), series.dtype
            mapped = series.dataoffset is not None
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
        raise DataFileError(f"cannot read {path} ({error}); is it a TIFF file?") from error
    checked, dtype = _checked(path, shape, dtype)

    def read(number: int) -> NDArray[Any]:
        if pages == checked[0]:
            page: NDArray[Any] = tifffile.imread(path, key=number)
            return page
        # ImageJ keeps all slices behind the header of one page; 3 or 4 may pass for colours.
        whole: NDArray[Any] = tifffile.memmap(path, mode="r") if mapped else tifffile.imread(path)
        return np.array(whole.reshape(checked)[number])

    return LabelVolume(path, checked, dtype, {}, read)


def _open_folder(path: Path) -> LabelVolume:
    import tifffile

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _TIFF)
    if not files:
        raise DataFileError(f"the folder {path} holds neither TIFF files nor OME-Zarr labels")
    try:
        first = tifffile.imread(files[0])
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataFileError(f"cannot read {files[0]} ({error}); is it a TIFF file?") from error
    shape, dtype = _checked(path, (len(files), *first.shape), first.dtype)

    def read(number: int) -> NDArray[Any]:
        values: NDArray[Any] = tifffile.imread(files[number])
        if values.shape != shape[1:]:
            raise ValueError(f"{files[number].name} has shape {values.shape}, not {shape[1:]}")
        return values

    return LabelVolume(path, shape, dtype, {}, read)


def _open_zarr(path: Path) -> LabelVolume:
    try:
        group = zarr.open_group(path, mode="r")
        # Before version 0.5 the attributes had no key of their own.
        ome: Any = group.attrs.get("ome", group.attrs)
        array = group[ome["multiscales"][0]["datasets"][0]["path"]]
    except (zarr.errors.BaseZarrError, OSError, KeyError, ValueError, TypeError) as error:
        raise DataFileError(f"{path} is no OME-Zarr of labels: {error}") from error
    if not isinstance(array, zarr.Array):
        raise DataFileError(f"the full level of {path} is missing; the copy is damaged")
    shape, dtype = _checked(path, array.shape, array.dtype)
    properties = ome.get("image-label", {}).get("properties", [])
    names = {
        int(entry["label-value"]): str(entry["class"])
        for entry in properties
        if "label-value" in entry and "class" in entry
    }
    return LabelVolume(path, shape, dtype, names, lambda number: np.asarray(array[number]))


def _checked(path: Path, shape: Any, dtype: Any) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    kind = np.dtype(dtype)
    if len(shape) != 3:
        raise InputError(f"the labels {path} have shape {tuple(shape)}; give slices, rows, columns")
    if kind.kind not in "iu":
        raise InputError(
            f"the labels {path} are {kind.name}, not whole numbers; save them as integers, and"
            " what is not labelled as a number of its own instead of NaN"
        )
    slices, rows, columns = (int(length) for length in shape)
    return (slices, rows, columns), kind


def _named(classes: Any) -> dict[int, str]:
    texts = (name.decode() if isinstance(name, bytes) else str(name) for name in classes)
    return dict(enumerate(texts))
