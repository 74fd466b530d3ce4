"""Which pedestals a Jungfrau's series use: the newest ones that fit, found by one stated rule."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import ValidationError as SchemaError

from apsber_bluesky.core._errors import DataFileError, InputError
from apsber_bluesky.core._files import atomic_file, explain_disk_errors
from apsber_bluesky.core._run_folder import check_folder_name

#: Folder of the records below the data root.
CALIBRATION_FOLDER: Final = "calibration"
#: Pedestals drift with the temperature of the detector; older ones are refused unless told.
DEFAULT_PEDESTAL_AGE_S: Final = 8 * 3600.0

# Exposure times are kept in clock ticks by the detector.
_SAME_EXPOSURE: Final = 1e-3
_MAXIMUM_BYTES: Final = 1 << 20


class PedestalRecord(BaseModel):
    """Pedestals of one detector, measured in one run.

    Attributes
    ----------
    run_uid : str
        Bluesky run uid of the measurement.
    detector : str
        Name of the detector.
    taken_s : float
        Unix time of the measurement [s].
    rows, columns : int
        Size of the detector [pixel].
    exposure_s : float
        Exposure time [s]; pedestals hold what the sensor leaks meanwhile.
    setting : str
        Setting of the preamplifier, ``gain0`` or ``highgain0``.
    files : dict of int to str
        File with the maps of each storage cell, relative to the data root.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_uid: str
    detector: str
    taken_s: PositiveFloat
    rows: PositiveInt
    columns: PositiveInt
    exposure_s: PositiveFloat
    setting: str
    files: dict[NonNegativeInt, str]


class PedestalNeed(BaseModel):
    """What pedestals a series needs.

    Attributes
    ----------
    detector, rows, columns, exposure_s, setting
        As in `PedestalRecord`.
    cells : tuple of int
        Storage cells that the series uses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str
    rows: PositiveInt
    columns: PositiveInt
    exposure_s: PositiveFloat
    setting: str
    cells: tuple[NonNegativeInt, ...]

    def misfit(self, record: PedestalRecord) -> str:
        """Why pedestals cannot be used; empty if they can."""
        if (record.rows, record.columns) != (self.rows, self.columns):
            return (
                f"it is of {record.rows} x {record.columns} pixels, the detector has"
                f" {self.rows} x {self.columns}"
            )
        if record.setting != self.setting:
            return f"it is of setting {record.setting}, the series is of {self.setting}"
        if abs(record.exposure_s - self.exposure_s) > _SAME_EXPOSURE * self.exposure_s:
            return f"it is of {record.exposure_s:g} s, the series is of {self.exposure_s:g} s"
        missing = sorted(set(self.cells) - set(record.files))
        if missing:
            return f"it lacks storage cells {', '.join(map(str, missing))}"
        return ""


def keep_pedestals(data_root: Path, record: PedestalRecord) -> Path:
    """Enter measured pedestals, so that later series find them.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    record : PedestalRecord
        What was measured.

    Returns
    -------
    Path
        The record, ``<data root>/calibration/<detector>/<run uid>.json``.

    Raises
    ------
    StorageError
        If the disk will not have it.
    """
    path = _folder(data_root, record.detector) / f"{record.run_uid}.json"
    with explain_disk_errors(path, "enter the pedestals"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            partial.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    return path


def find_pedestals(
    data_root: Path,
    need: PedestalNeed,
    *,
    max_age_s: float = DEFAULT_PEDESTAL_AGE_S,
    run_uid: str = "",
    now_s: float | None = None,
) -> PedestalRecord:
    """Find the newest pedestals that fit a series.

    They must be of the same detector, size, setting and exposure time, hold all storage cells
    that the series uses, and be no older than `max_age_s`; of those, the newest is taken.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    need : PedestalNeed
        The series.
    max_age_s : float
        Greatest age [s].
    run_uid : str
        Take those of this run, or of the one whose uid begins so, and no others.
    now_s : float, optional
        Unix time against which the age counts [s]; now if not given.

    Returns
    -------
    PedestalRecord
        The pedestals.

    Raises
    ------
    InputError
        If there are none; the message says what is wrong with the newest.
    """
    now_s = time.time() if now_s is None else now_s
    known = [r for r in _records(data_root, need.detector) if r.run_uid.startswith(run_uid)]
    known.sort(key=lambda record: (record.taken_s, record.run_uid), reverse=True)
    fitting = [record for record in known if not need.misfit(record)]
    if not fitting:
        raise InputError(_nothing_fits(need, known, run_uid))
    newest = fitting[0]
    age_s = now_s - newest.taken_s
    if age_s > max_age_s:
        raise InputError(
            f"the newest pedestals of {need.detector}, of run {newest.run_uid[:8]}, are"
            f" {_duration(age_s)} old, and {_duration(max_age_s)} are allowed; run"
            " jungfrau_pedestal, or raise max_pedestal_age_s"
        )
    return newest


def has_pedestals(data_root: Path, detector: str, run_uid: str) -> bool:
    """Whether the pedestals of a run have been entered."""
    return (_folder(data_root, detector) / f"{run_uid}.json").is_file()


def _folder(data_root: Path, detector: str) -> Path:
    return data_root / CALIBRATION_FOLDER / check_folder_name(detector, "detector")


def _records(data_root: Path, detector: str) -> Iterator[PedestalRecord]:
    for path in sorted(_folder(data_root, detector).glob("*.json")):
        try:
            if path.stat().st_size > _MAXIMUM_BYTES:
                raise DataFileError(f"{path} is larger than 1 MiB; is it a pedestal record?")
            record = PedestalRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, SchemaError) as error:
            raise DataFileError(
                f"{path} is no record of pedestals ({' '.join(str(error).split())}); remove it"
            ) from error
        yield record


def _nothing_fits(need: PedestalNeed, known: Sequence[PedestalRecord], run_uid: str) -> str:
    if not known:
        where = f" of run {run_uid}" if run_uid else ""
        return f"there are no pedestals of {need.detector}{where}; run jungfrau_pedestal first"
    newest = known[0]
    return (
        f"none of {len(known)} pedestals of {need.detector} fits; the newest, of run"
        f" {newest.run_uid[:8]}, does not: {need.misfit(newest)}; run jungfrau_pedestal as the"
        " series will be taken"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
