"""A recorded scan as the camera's images: DXchange or NXtomo files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, ImageKey

_BLOCK_BYTES = 64 << 20
_PIXEL_TYPES = frozenset(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
_RADIANS = frozenset(("rad", "radian", "radians"))


@dataclass(frozen=True, slots=True)
class _Stack:
    """Some frames of one dataset."""

    data: Any
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> NDArray[Any]:
        return np.asarray(self.data[int(self.index[i])])


class RecordedScan:
    """Frames of a scan that was measured somewhere, by kind and angle.

    Use `open`; it checks the whole file, so that nothing goes wrong once a scan has started.

    Attributes
    ----------
    path : Path
        The file.
    rows, columns : int
        Frame size [pixel].
    dtype : numpy.dtype
        Pixel type, little-endian.
    num_projections, num_flats, num_darks : int
        Frames of each kind.
    rotation_start_deg, rotation_stop_deg : float
        Angular range [deg]; the stop angle is one step beyond the last projection.
    pixel_size_um : float or None
        Pixel size at the sample [um], where the file says.
    """

    def __init__(
        self,
        path: Path,
        file: h5py.File,
        stacks: dict[ImageKey, _Stack],
        angles_deg: NDArray[np.float64],
        pixel_size_um: float | None,
    ) -> None:
        self.path = path
        self._file = file
        self._stacks = stacks
        self._angles_deg = angles_deg
        self.pixel_size_um = pixel_size_um
        data = stacks[ImageKey.PROJECTION].data
        self.rows, self.columns = int(data.shape[1]), int(data.shape[2])
        self.dtype: np.dtype[Any] = data.dtype.newbyteorder("<")
        self.num_projections = len(stacks[ImageKey.PROJECTION])
        self.num_flats = len(stacks[ImageKey.FLAT])
        self.num_darks = len(stacks[ImageKey.DARK])
        step = (angles_deg[-1] - angles_deg[0]) / (self.num_projections - 1)
        self.rotation_start_deg = float(angles_deg[0])
        self.rotation_stop_deg = float(angles_deg[0] + step * self.num_projections)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a recorded scan and read it through once.

        Parameters
        ----------
        path : Path
            DXchange (``/exchange/data``, ``data_white``, ``data_dark``, ``theta``) or NXtomo
            (one stack with an ``image_key``) file.

        Raises
        ------
        DataFileError
            If the file is missing, truncated, not HDF5, of another layout, without flats or
            darks, or holds angles or pixels that are not numbers.
        """
        file = _open_file(path)
        try:
            found = _read_dxchange(path, file) or _read_nxtomo(path, file)
            if found is None:
                raise DataFileError(
                    f"{path} holds neither a DXchange scan (/exchange/data) nor an NXtomo stack"
                    " (detector data with an image_key); give a file with one of these layouts"
                )
            _check(path, *found[:2])
            return cls(path, file, *found)
        except (OSError, KeyError, RuntimeError) as error:
            file.close()
            raise _damaged(path, error) from error
        except BaseException:
            file.close()
            raise

    def frame(self, kind: ImageKey, *, number: int, angle_deg: float = 0.0) -> NDArray[Any]:
        """One recorded frame.

        Parameters
        ----------
        kind : ImageKey
            Projection, flat or dark.
        number : int
            Number of the flat or dark; beyond the last it starts again.
        angle_deg : float
            Angle of the projection [deg]; the nearest recorded one is taken, in a full turn.

        Returns
        -------
        ndarray, shape (rows, columns)
            Pixels, in `dtype`.
        """
        stack = self._stacks[kind]
        if kind is ImageKey.PROJECTION:
            away = np.abs((self._angles_deg - angle_deg + 180.0) % 360.0 - 180.0)
            number = int(np.argmin(away))
        return np.ascontiguousarray(stack.read(number % len(stack)), dtype=self.dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_Found = tuple[dict[ImageKey, _Stack], NDArray[np.float64], float | None]


def _open_file(path: Path) -> h5py.File:
    if not path.exists():
        raise DataFileError(f"there is no file {path}; check the name of the recorded scan")
    if not os.access(path, os.R_OK):
        raise DataFileError(f"{path} may not be read; ask its owner for permission")
    if path.is_dir():
        raise DataFileError(f"{path} is a folder; give the HDF5 file of a recorded scan")
    try:
        if not h5py.is_hdf5(path):
            raise DataFileError(
                f"{path} is not an HDF5 file; give a DXchange or NXtomo file of a scan"
            )
        return h5py.File(path, "r")
    except OSError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataFileError:
    reason = " ".join(str(error).split())
    return DataFileError(
        f"cannot read {path} ({reason}); it is damaged or truncated, copy it again"
    )


def _stack(path: Path, item: Any, name: str) -> _Stack:
    if not isinstance(item, h5py.Dataset) or item.ndim != 3:
        raise DataFileError(
            f"{name} in {path} is not a stack of frames (frame, row, column); give another file"
        )
    return _Stack(item, np.arange(len(item)))


def _degrees(path: Path, item: Any, name: str) -> NDArray[np.float64]:
    if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in "iuf":
        raise DataFileError(f"{path} has no usable angles at {name}; add them, one per frame")
    unit = item.attrs.get("units", "deg")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    angles = np.asarray(item[()], dtype=np.float64)
    return np.rad2deg(angles) if unit.strip().lower() in _RADIANS else angles


def _read_dxchange(path: Path, file: h5py.File) -> _Found | None:
    group = file.get("exchange")
    if not isinstance(group, h5py.Group) or "data" not in group:
        return None
    for name, kind in (("data_white", "flats"), ("data_dark", "darks")):
        if name not in group:
            raise DataFileError(
                f"{path} has no {kind} (/exchange/{name}); give a scan that was taken with {kind}"
            )
    stacks = {
        key: _stack(path, group[name], f"/exchange/{name}")
        for key, name in (
            (ImageKey.PROJECTION, "data"),
            (ImageKey.FLAT, "data_white"),
            (ImageKey.DARK, "data_dark"),
        )
    }
    angles = _degrees(path, group.get("theta"), "/exchange/theta")
    if len(angles) != len(stacks[ImageKey.PROJECTION]):
        raise DataFileError(
            f"{path} has {len(angles)} angles in /exchange/theta for"
            f" {len(stacks[ImageKey.PROJECTION])} projections; they must be as many"
        )
    return stacks, angles, None


def _read_nxtomo(path: Path, file: h5py.File) -> _Found | None:
    keys = _find_image_key(file)
    if keys is None:
        return None
    detector = keys.parent
    stack = _stack(path, detector.get("data"), f"{detector.name}/data")
    entry = file[keys.name.split("/")[1]]
    name = f"{entry.name}/sample/rotation_angle"
    angles = _degrees(path, file.get(name), name)
    image_key = np.asarray(keys[()])
    if not len(stack) == len(angles) == len(image_key):
        raise DataFileError(
            f"{path} has {len(stack)} frames, {len(angles)} angles and {len(image_key)} image keys;"
            " they must be as many"
        )
    stacks = {
        key: _Stack(stack.data, np.flatnonzero(image_key == int(key)))
        for key in (ImageKey.PROJECTION, ImageKey.FLAT, ImageKey.DARK)
    }
    projections = stacks[ImageKey.PROJECTION].index
    return stacks, angles[projections], _pixel_size_um(detector)


def _find_image_key(file: h5py.File) -> h5py.Dataset | None:
    found: list[h5py.Dataset] = []

    def look(name: str, item: Any) -> None:
        if name.rsplit("/", 1)[-1] == "image_key" and isinstance(item, h5py.Dataset):
            found.append(item)

    file.visititems(look)
    return next((item for item in found if "data" in item.parent), None)


def _pixel_size_um(detector: h5py.Group) -> float | None:
    item = detector.get("x_pixel_size")
    if not isinstance(item, h5py.Dataset) or item.size != 1:
        return None
    unit = item.attrs.get("units", "m")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    in_um = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "micron": 1.0, "nm": 1e-3}.get(unit)
    value = float(np.ravel(item[()])[0])
    return value * in_um if in_um is not None and np.isfinite(value) and value > 0 else None


def _check(path: Path, stacks: dict[ImageKey, _Stack], angles: NDArray[np.float64]) -> None:
    for key, name in ((ImageKey.FLAT, "flats"), (ImageKey.DARK, "darks")):
        if len(stacks[key]) == 0:
            raise DataFileError(f"{path} has no {name}; give a scan that was taken with {name}")
    projections = stacks[ImageKey.PROJECTION]
    if len(projections) < 2:
        raise DataFileError(f"{path} has {len(projections)} projections; a scan has at least two")
    if not np.isfinite(angles).all():
        raise DataFileError(f"{path} has angles that are not numbers; repair or leave them out")
    if angles[0] == angles[-1]:
        raise DataFileError(f"all angles in {path} are {angles[0]} deg; a scan covers a range")
    shape, dtype = projections.data.shape[1:], projections.data.dtype
    if dtype.str[1:] not in _PIXEL_TYPES:
        raise DataFileError(f"the pixels in {path} are {dtype}, not numbers; give another file")
    for key, stack in stacks.items():
        if stack.data.shape[1:] != shape or stack.data.dtype != dtype:
            raise DataFileError(
                f"the frames of {path} differ: projections are {dtype} {shape},"
                f" {key.name.lower()}s {stack.data.dtype} {stack.data.shape[1:]}"
            )
    for data in {stack.data for stack in stacks.values()}:
        _read_through(path, data)


def _read_through(path: Path, data: h5py.Dataset) -> None:
    """Read every pixel once: damage and NaN are found now, not in the middle of a scan."""
    frame_bytes = max(int(np.prod(data.shape[1:])) * data.dtype.itemsize, 1)
    step = max(_BLOCK_BYTES // frame_bytes, 1)
    for first in range(0, len(data), step):
        block = data[first : first + step]
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            raise DataFileError(
                f"{data.name} in {path} has pixels that are not numbers (NaN or infinite) in"
                f" frames {first} to {first + len(block) - 1}; repair or leave them out"
            )
