"""Files with a Jungfrau's pedestals and gains: one map for each gain stage, checked when read."""

from __future__ import annotations

import datetime
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    DataFileError,
    InputError,
    array_checksum,
    atomic_file,
    explain_disk_errors,
)

MapKind = Literal["pedestal", "gain"]

UNITS: Final[dict[str, str]] = {"pedestal": "ADU", "gain": "ADU/keV"}

_MAXIMUM_ADC: Final = 0x3FFF
_STAGES: Final = ("G0", "G1", "G2")
# Clocks of two computers differ; one that is a day off is wrong.
_FUTURE_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class JungfrauMap:
    """Pedestals or gains of a whole detector.

    Attributes
    ----------
    kind : {"pedestal", "gain"}
        What it is.
    values : ndarray of float32
        One map each for G0, G1 and G2, shape ``(3, rows, columns)``; pedestals in ADU, gains in
        ADU/keV, negative in G1 and G2. NaN, and zero in a gain, where a pixel has none.
    taken : str
        When it was measured, ISO 8601 with its time zone.

    Raises
    ------
    InputError
        If the values or the time cannot be right; the message says why.
    """

    kind: MapKind
    values: NDArray[np.float32]
    taken: str

    def __post_init__(self) -> None:
        if self.kind not in UNITS:
            raise InputError(f"kind of a map is {self.kind!r}; give one of {', '.join(UNITS)}")
        _check_layout(self.kind, self.values.shape, self.values.dtype)
        _check_taken(self.kind, self.taken)
        _check_values(self.kind, self.values)

    @property
    def checksum(self) -> str:
        """`array_checksum` of the values."""
        return array_checksum(self.values)


def _check_layout(kind: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 3 or shape[0] != len(_STAGES) or 0 in shape:
        raise InputError(f"{kind} has shape {shape}; it must be (3, rows, columns)")
    if dtype != np.float32:
        raise InputError(f"{kind} is {dtype}; it must be float32")


def _check_taken(kind: str, taken: str) -> None:
    try:
        moment = datetime.datetime.fromisoformat(taken)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InputError(
            f"{kind} was taken at {taken!r}; give a time like '2026-05-04T12:00:00+00:00'"
        )
    if moment.timestamp() > time.time() + _FUTURE_S:
        raise InputError(f"{kind} was taken at {taken}, which has not come yet; is a clock wrong?")


def _check_values(kind: str, values: NDArray[np.float32]) -> None:
    for name, stage in zip(_STAGES, values, strict=True):
        if np.isinf(stage).any():
            raise InputError(f"{kind} of {name} is infinite in {np.isinf(stage).sum()} pixels")
        usable = stage[~np.isnan(stage) & ((stage != 0) | (kind == "pedestal"))]
        if name == "G0" and 2 * len(usable) < stage.size:
            raise InputError(f"{kind} of G0 is there for only {len(usable)} of {stage.size} pixels")
        if kind == "pedestal":
            wrong = int(np.count_nonzero((usable < 0) | (usable > _MAXIMUM_ADC)))
            if wrong:
                raise InputError(
                    f"pedestal of {name} is outside 0..{_MAXIMUM_ADC} ADU in {wrong} pixels"
                )
        else:
            _check_sign(name, usable)


def _check_sign(name: str, gains: NDArray[np.float32]) -> None:
    # The ADC rises with charge in G0 and falls in the others; a fit may fail in single pixels.
    positive = int(np.count_nonzero(gains > 0))
    right = positive if name == "G0" else len(gains) - positive
    if 2 * right < len(gains):
        sign = "positive" if name == "G0" else "negative"
        raise InputError(
            f"gain of {name} must be {sign}, and is so in only {right} of {len(gains)} pixels;"
            " are the stages in the order G0, G1, G2?"
        )


def write_jungfrau_map(path: Path, calibration: JungfrauMap) -> None:
    """Write a map as an HDF5 file, whole or not at all.

    Raises
    ------
    StorageError
        If the disk will not have it.
    """
    import h5py

    with (
        explain_disk_errors(path, f"write the {calibration.kind}"),
        atomic_file(path) as partial,
        h5py.File(partial, "w", libver="latest") as file,
    ):
        dataset = file.create_dataset(calibration.kind, data=calibration.values)
        dataset.attrs["units"] = UNITS[calibration.kind]
        file["taken"] = calibration.taken


def read_jungfrau_map(path: Path, kind: MapKind) -> JungfrauMap:
    """Read a map from an HDF5 or NumPy ``.npz`` file.

    Parameters
    ----------
    path : Path
        File with an array of the name `kind` and the time ``taken``.
    kind : {"pedestal", "gain"}
        Which of the two it must hold.

    Returns
    -------
    JungfrauMap
        The map, checked.

    Raises
    ------
    DataFileError
        If the file cannot be read or holds nothing of the kind; the message says what to correct.
    """
    try:
        values, taken = (_read_npz if path.suffix == ".npz" else _read_hdf5)(path, kind)
        return JungfrauMap(kind, values, taken)
    except KeyError as error:
        raise DataFileError(
            f"{path} has no {error.args[0]}; a file of {kind}s holds the arrays {kind!r}"
            " (3, rows, columns) and 'taken'"
        ) from error
    except InputError as error:
        raise DataFileError(f"{path}: {error}") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataFileError(f"cannot read {kind} from {path}: {error}") from error


def _read_hdf5(path: Path, kind: str) -> tuple[NDArray[np.float32], str]:
    import h5py

    with h5py.File(path, "r") as file:
        for name in (kind, "taken"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise KeyError(repr(name))
        # Before it is read: a wrong file may be as large as the disk.
        _check_layout(kind, file[kind].shape, file[kind].dtype)
        taken = file["taken"][()]
        return file[kind][()], taken.decode() if isinstance(taken, bytes) else str(taken)


def _read_npz(path: Path, kind: str) -> tuple[NDArray[np.float32], str]:
    # Of a file that it cannot read, NumPy would leave the handle open.
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no .npz file")
        stream.seek(0)
        file = np.load(stream, allow_pickle=False)
        for name in (kind, "taken"):
            if name not in file:
                raise KeyError(repr(name))
        return file[kind], str(file["taken"][()])
