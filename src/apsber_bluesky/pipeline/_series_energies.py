"""Series of a Jungfrau become energies while they are taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from apsber_bluesky.core import (
    PARTIAL_SUFFIX,
    DataFileError,
    FrameRange,
    InputError,
    JungfrauSettings,
    check_folder_name,
    explain_disk_errors,
    file_checksum,
    sync_directory,
    sync_file,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.processing import JungfrauConverter, read_jungfrau_map

SERIES_RUN: Final = "jungfrau_series"

_CHUNK_FRAMES: Final = 16

EnergyListener = Callable[[RunContext, int, NDArray[np.float32]], None]
"""(run, number of the frame, energies of shape (rows, columns) [keV])."""


class SeriesRun(BaseModel):
    """What the plan said of the run (start-document key ``crystallography``).

    Attributes
    ----------
    kind : str
        ``jungfrau_series``.
    name : str
        The detector.
    num_frames : int
        Frames to take.
    cells : tuple of int
        Storage cells that the frames are of, in turn.
    rows, columns : int
        Size of the detector [pixel].
    pedestal_run : str
        Uid of the run in which its pedestals were measured; empty without.
    pedestal_files : dict of int to str
        Their files, relative to the data root, by storage cell.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["jungfrau_series"]
    name: str
    num_frames: PositiveInt
    cells: tuple[int, ...]
    rows: PositiveInt
    columns: PositiveInt
    pedestal_run: str = ""
    pedestal_files: dict[int, str] = {}


class SeriesEnergies:
    """Convert the frames of a Jungfrau's series as they come; leaves other runs alone.

    ``energies_<detector>.h5`` in the run folder has ``/entry/data/energy``, shape
    ``(frames, rows, columns)`` float32 [keV], and the images ``sum`` and ``maximum`` of all
    frames. What did not come, whole frames or a module's part of one, is NaN there.

    Parameters
    ----------
    settings : JungfrauSettings, optional
        Where the gains are; without them nothing is converted.
    listeners : sequence of callable
        Given the run, the number of a frame and its energies, of each frame in order; not to be
        changed or kept, and nothing is to be raised.
    """

    name = "energies"
    essential = False

    def __init__(
        self, settings: JungfrauSettings | None, listeners: Sequence[EnergyListener] = ()
    ) -> None:
        self._settings = settings
        self._listeners = tuple(listeners)
        self._job: _Job | None = None
        self._tried = ""
        self._failure: Exception | None = None

    def frames(self, context: RunContext, frames: FrameRange) -> None:
        """Convert frames that were announced; what goes wrong is told by `run`."""
        if self._tried != context.run.uid:
            self._begin(context)
        if self._job is not None and self._failure is None and frames.stream == "primary":
            try:
                self._job.convert(frames)
            except Exception as error:  # noqa: BLE001 - raised again by run
                self._failure = error

    def _begin(self, context: RunContext) -> None:
        self.over()
        self._tried = context.run.uid
        if self._settings is None or context.run.conditions.get("kind") != SERIES_RUN:
            return
        try:
            run = SeriesRun.model_validate(context.run.conditions)
            if run.pedestal_run:
                self._job = _Job(context, run, self._settings.gain_file, self._listeners)
        except ValidationError as error:
            self._failure = DataFileError(
                "key 'crystallography' of the start document does not describe a series:"
                f" {' '.join(str(error).split())}; leave the key to jungfrau_series"
            )
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._failure = error

    def run(self, context: RunContext) -> None:
        """Convert what is left, and give the file its name.

        Raises
        ------
        DataFileError, InputError, StorageError
            If the frames cannot be converted; they are on disk all the same.
        """
        if self._tried != context.run.uid:
            self._begin(context)
        try:
            if self._failure is not None:
                raise self._failure
            if self._job is not None:
                for frames in context.findings.frames:
                    context.check_cancelled(self.name)
                    if frames.stream == "primary":
                        self._job.convert(frames)
                self._job.finish()
        finally:
            self.over()

    def over(self) -> None:
        """Forget the run; a file that is not finished is removed."""
        job, self._job = self._job, None
        self._failure = None
        if job is not None:
            job.close()


class _Job:
    """The conversion of one run."""

    def __init__(
        self,
        context: RunContext,
        run: SeriesRun,
        gain_file: Path,
        listeners: Sequence[EnergyListener],
    ) -> None:
        self._context, self._run, self._gain_file = context, run, gain_file
        self._listeners = listeners
        self._started_s = time.time()
        self._inputs = {"gain": file_checksum(gain_file)}
        self._converters = self._load()
        self._path = context.folder.path / f"energies_{check_folder_name(run.name, 'detector')}.h5"
        self._partial = self._path.with_name(self._path.name + PARTIAL_SUFFIX)
        self._sum = np.zeros((run.rows, run.columns))
        self._maximum = np.full((run.rows, run.columns), np.nan, dtype=np.float32)
        self._done = 0
        self._file: Any = None
        with explain_disk_errors(self._path, "write the energies"):
            self._energy = self._create()

    def _load(self) -> dict[int, JungfrauConverter]:
        run, data_root = self._run, self._context.folder.path.parent.parent
        gain = read_jungfrau_map(self._gain_file, "gain")
        if gain.values.shape[1:] != (run.rows, run.columns):
            raise InputError(
                f"{self._gain_file} holds gains of {gain.values.shape[1:]} pixels, {run.name} has"
                f" {(run.rows, run.columns)}; give those of this detector"
            )
        converters = {}
        for cell in set(run.cells):
            if cell not in run.pedestal_files:
                raise InputError(f"the run names no pedestals of storage cell {cell}")
            path = data_root / run.pedestal_files[cell]
            pedestal = read_jungfrau_map(path, "pedestal")
            self._inputs[f"pedestal_cell{cell}"] = file_checksum(path)
            converters[cell] = JungfrauConverter(pedestal.values, gain.values)
        return converters

    def _create(self) -> Any:
        import h5py
        import hdf5plugin

        run = self._run
        self._file = h5py.File(self._partial, "w", libver="latest")
        energy = self._file.create_dataset(
            "entry/data/energy",
            (run.num_frames, run.rows, run.columns),
            dtype="<f4",
            chunks=(1, run.rows, run.columns),
            fillvalue=np.nan,
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        energy.attrs["units"] = "keV"
        return energy

    def convert(self, frames: FrameRange) -> None:
        """Convert those of the frames that were not converted yet."""
        source = self._context.findings.source
        while source is not None and self._done < min(frames.stop, self._run.num_frames):
            stop = min(self._done + _CHUNK_FRAMES, frames.stop, self._run.num_frames)
            raw = source.read(replace(frames, start=self._done, stop=stop))
            for number, image in enumerate(raw, start=self._done):
                self._add(number, image)
            self._done = stop

    def _add(self, number: int, raw: NDArray[Any]) -> None:
        cells = self._run.cells
        energy = self._converters[cells[number % len(cells)]](raw)
        # No pixel that works reads 0: its pedestal alone is thousands of ADU.
        energy[raw == 0] = np.nan
        with explain_disk_errors(self._path, "write the energies"):
            self._energy[number] = energy
        for listener in self._listeners:
            listener(self._context, number, energy)
        self._sum += np.nan_to_num(energy)
        np.fmax(self._maximum, energy, out=self._maximum)

    def finish(self) -> None:
        """Give the file its name, and enter the conversion in the provenance."""
        with explain_disk_errors(self._path, "write the energies"):
            for name, values in (("sum", self._sum), ("maximum", self._maximum)):
                self._file["entry/data"].create_dataset(name, data=values).attrs["units"] = "keV"
            self._file["entry/pedestal_run"] = self._run.pedestal_run
            self._file.close()
            self._file = None
            sync_file(self._partial)
            self._partial.replace(self._path)
            sync_directory(self._path.parent)
        converters = self._converters.values()
        self._context.record(
            "jungfrau_energy",
            self._started_s,
            {
                "unit": "keV",
                "pedestal_run": self._run.pedestal_run,
                "gain_file": str(self._gain_file),
                "num_frames": self._done,
                "invalid_pixels": sum(c.invalid_pixels for c in converters),
                "uncalibrated_pixels": sum(c.uncalibrated_pixels for c in converters),
            },
            inputs=self._inputs,
            outputs={self._path.name: file_checksum(self._path)},
        )

    def close(self) -> None:
        """Close the file; one that is not finished is removed."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)
