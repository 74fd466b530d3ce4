"""Find the frames, angles and pixel size of a scan in an HDF5 file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, ImageKey, RunFolder
from apsber_bluesky.storage._scan_file import PIXEL_TYPES, FrameStack, ScanFile, damaged
from apsber_bluesky.storage._scan_run import read_run

_RADIANS = frozenset(("rad", "radian", "radians"))
_UM = {
    "m": 1e6, "meter": 1e6, "metre": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0,
    "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3,
}  # fmt: skip


def open_scan(path: Path) -> ScanFile:
    """Find out what scan a file holds; no pixel is read.

    Parameters
    ----------
    path : Path
        DXchange file (``/exchange/data``, ``data_white``, ``data_dark``, ``theta``), NXtomo file
        (one stack with an ``image_key``), or a run of the suite: its folder, ``raw.h5`` or
        ``run.nxs``.

    Returns
    -------
    ScanFile
        The scan; frames that the file marks as invalid or lost are left out.

    Raises
    ------
    DataFileError
        If the file is missing, truncated, not HDF5 or of another layout, has no flats or no
        projections, or angles that do not fit them.
    """
    if not path.exists():
        raise DataFileError(f"there is no file {path}; check the name of the scan")
    if path.is_dir():
        if not RunFolder(path).raw.is_file():
            raise DataFileError(f"{path} is a folder without raw.h5; give a run or an HDF5 file")
        return _check(read_run(RunFolder(path)))
    if path == RunFolder(path.parent).raw:
        return _check(read_run(RunFolder(path.parent)))
    file = _open_file(path)
    with file:
        try:
            found = _read_nxtomo(path, file) or _read_dxchange(path, file)
        except (OSError, KeyError, RuntimeError) as error:
            raise damaged(path, error) from error
    if found is None:
        raise DataFileError(
            f"{path} holds neither a DXchange scan (/exchange/data) nor an NXtomo stack"
            " (detector data with an image_key); give a file with one of these layouts"
        )
    return _check(found)


def _open_file(path: Path) -> h5py.File:
    if not os.access(path, os.R_OK):
        raise DataFileError(f"{path} may not be read; ask its owner for permission")
    try:
        if not h5py.is_hdf5(path):
            raise DataFileError(
                f"{path} is not an HDF5 file; give a DXchange or NXtomo file of a scan"
            )
        return h5py.File(path, "r")
    except OSError as error:
        raise damaged(path, error) from error


def _read_dxchange(path: Path, file: h5py.File) -> ScanFile | None:
    group = file.get("exchange")
    if not isinstance(group, h5py.Group) or "data" not in group:
        return None
    names = {
        ImageKey.PROJECTION: "data",
        ImageKey.FLAT: "data_white",
        ImageKey.DARK: "data_dark",
    }
    data = _frames(path, group["data"])
    stacks = {}
    for kind, name in names.items():
        if name not in group:
            stacks[kind] = FrameStack("", np.empty(0, np.int64))
            continue
        item = _frames(path, group[name], like=data)
        stacks[kind] = FrameStack(item.name, np.arange(len(item)))
    angles = _degrees(path, group["theta"]) if "theta" in group else None
    if angles is not None and len(angles) != len(data):
        raise DataFileError(
            f"{path} has {len(angles)} angles in /exchange/theta for {len(data)} projections;"
            " they must be as many"
        )
    return _scan_file(path, "DXchange", data, stacks, angles, None)


def _read_nxtomo(path: Path, file: h5py.File) -> ScanFile | None:
    keys = _find_image_key(file)
    if keys is None:
        return None
    detector = keys.parent
    data = _frames(path, detector["data"])
    name = f"/{keys.name.split('/')[1]}/sample/rotation_angle"
    image_key = np.asarray(keys[()])
    angles = _degrees(path, file[name]) if name in file else None
    if len(image_key) != len(data) or (angles is not None and len(angles) != len(data)):
        raise DataFileError(
            f"{path} has {len(data)} frames, {len(angles) if angles is not None else 0} angles and"
            f" {len(image_key)} image keys; they must be as many"
        )
    _refuse_calibrated(path, file)
    taken = _times(image_key)
    stacks = {
        kind: FrameStack(data.name, index, taken[index])
        for kind in (ImageKey.PROJECTION, ImageKey.FLAT, ImageKey.DARK)
        for index in [np.flatnonzero(image_key == int(kind))]
    }
    if angles is not None:
        angles = angles[stacks[ImageKey.PROJECTION].index]
    invalid = int(np.count_nonzero(image_key == int(ImageKey.INVALID)))
    notes = (f"{invalid} frames are marked invalid and left out",) if invalid else ()
    return _scan_file(path, "NXtomo", data, stacks, angles, _pixel_size_um(detector), notes)


def _times(image_key: NDArray[Any]) -> NDArray[np.float64]:
    """When each frame was taken, counted in projections; an invalid one is a projection, too."""
    projection = np.isin(image_key, (int(ImageKey.PROJECTION), int(ImageKey.INVALID)))
    taken: NDArray[np.float64] = np.cumsum(projection) - 0.5 * projection
    return taken


def _refuse_calibrated(path: Path, file: h5py.File) -> None:
    """Frames of a charge-integrating detector are no counts before their calibration."""
    entry = file.get("entry")
    steps = entry if isinstance(entry, h5py.Group) else ()
    if any(name.startswith("process_") and name.endswith("jungfrau_energy") for name in steps):
        raise DataFileError(
            f"{path} holds raw frames of a Jungfrau, which need their calibration first; use the"
            " volume of the run"
        )


def _find_image_key(file: h5py.File) -> h5py.Dataset | None:
    found: list[h5py.Dataset] = []

    def look(name: str, item: Any) -> None:
        if name.rsplit("/", 1)[-1] == "image_key" and isinstance(item, h5py.Dataset):
            found.append(item)

    file.visititems(look)
    key = next((item for item in found if "data" in item.parent), None)
    if key is None:
        return None
    # Linked from the plot, it is found under that name; the detector knows more.
    instrument = file.get(f"/{key.name.split('/')[1]}/instrument")
    groups = instrument.values() if isinstance(instrument, h5py.Group) else ()
    of_detector = (
        group["image_key"]
        for group in groups
        if isinstance(group, h5py.Group) and "image_key" in group and "data" in group
    )
    return next(of_detector, key)


def _frames(path: Path, item: Any, like: h5py.Dataset | None = None) -> h5py.Dataset:
    if not isinstance(item, h5py.Dataset) or item.ndim != 3 or 0 in item.shape[1:]:
        shape = getattr(item, "shape", "no dataset")
        raise DataFileError(
            f"{item.name} in {path} is not a stack of frames (frame, row, column) but {shape};"
            " give another file"
        )
    if item.dtype.str[1:] not in PIXEL_TYPES:
        raise DataFileError(
            f"the pixels in {path} are {item.dtype}, not numbers; give another file"
        )
    if like is not None and (item.shape[1:], item.dtype) != (like.shape[1:], like.dtype):
        raise DataFileError(
            f"the frames of {path} differ: {like.name} has {like.dtype} {like.shape[1:]},"
            f" {item.name} {item.dtype} {item.shape[1:]}"
        )
    if item.is_virtual:
        _check_sources(path, item)
    return item


def _check_sources(path: Path, data: h5py.Dataset) -> None:
    """HDF5 reads zeros where the file behind a virtual dataset is missing; that must not be."""
    names = {source.file_name for source in data.virtual_sources()} - {"."}
    missing = sorted(name for name in names if not (path.parent / name).exists())
    if missing:
        raise DataFileError(
            f"{path} shows the frames of {', '.join(missing)}, which is not beside it; copy it, too"
        )


def _degrees(path: Path, item: Any) -> NDArray[np.float64]:
    if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in "iuf":
        raise DataFileError(f"{path} has no usable angles at {item.name}; add them, one per frame")
    angles = np.asarray(item[()], dtype=np.float64)
    return np.rad2deg(angles) if _unit(item, "deg") in _RADIANS else angles


def _unit(item: h5py.Dataset, default: str) -> str:
    unit = item.attrs.get("units", default)
    return (unit.decode() if isinstance(unit, bytes) else str(unit)).strip().lower()


def _pixel_size_um(detector: h5py.Group) -> float | None:
    item = detector.get("x_pixel_size")
    if not isinstance(item, h5py.Dataset) or item.size != 1 or item.dtype.kind not in "iuf":
        return None
    factor = _UM.get(_unit(item, "m"))
    value = float(np.ravel(item[()])[0])
    return value * factor if factor is not None and np.isfinite(value) and value > 0 else None


def _scan_file(
    path: Path,
    layout: str,
    data: h5py.Dataset,
    stacks: dict[ImageKey, FrameStack],
    angles: NDArray[np.float64] | None,
    pixel_size_um: float | None,
    notes: tuple[str, ...] = (),
) -> ScanFile:
    return ScanFile(
        path=path.absolute(),
        layout=layout,
        rows=int(data.shape[1]),
        columns=int(data.shape[2]),
        dtype=data.dtype.str,
        stacks=stacks,
        angles_deg=angles,
        pixel_size_um=pixel_size_um,
        decodes_whole_frames=data.compression is not None or _has_filter(data),
        notes=notes,
    )


def _has_filter(data: h5py.Dataset) -> bool:
    return data.chunks is not None and data.id.get_create_plist().get_nfilters() > 0


def _check(scan: ScanFile) -> ScanFile:
    """Refuse what nothing can be reconstructed from."""
    projections = scan.count(ImageKey.PROJECTION)
    if projections < 2:
        raise DataFileError(
            f"{scan.path} has {projections} projection{'s' * (projections != 1)};"
            " a scan has at least two"
        )
    if scan.count(ImageKey.FLAT) == 0:
        raise DataFileError(f"{scan.path} has no flats; give a scan that was taken with flats")
    if scan.angles_deg is not None and not np.isfinite(scan.angles_deg).all():
        number = int(np.flatnonzero(~np.isfinite(scan.angles_deg))[0])
        raise DataFileError(
            f"angle {number} in {scan.path} is not a number; give the angles by hand"
        )
    return scan
