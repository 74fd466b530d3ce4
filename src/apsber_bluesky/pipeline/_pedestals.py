"""Pedestals of a Jungfrau, measured in a run of dark frames."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from apsber_bluesky.core import (
    DataFileError,
    FrameRange,
    PedestalRecord,
    atomic_file,
    book_name,
    check_folder_name,
    explain_disk_errors,
    file_checksum,
    keep_pedestals,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.processing import JungfrauMap

PEDESTAL_RUN: Final = "jungfrau_pedestal"

_STAGES: Final = ("G0", "G1", "G2")
_BITS: Final = (0, 1, 3)
_CHUNK_FRAMES: Final = 32
# A pixel in the dark may be hit by a cosmic ray; many that switch their gain are in light.
_MOST_SWITCHED: Final = 0.01


class PedestalRun(BaseModel):
    """What the plan said of the run (start-document key ``detector``).

    Attributes
    ----------
    kind : str
        ``jungfrau_pedestal``.
    name : str
        The detector.
    frames_per_stage : int
        Frames of each of the series, which are of G0, G1 and G2 in this order.
    cells : tuple of int
        Storage cells that the frames of a series are of, in turn.
    exposure_s : float
        Exposure time [s].
    setting : str
        Setting of the preamplifier.
    rows, columns : int
        Size of the detector [pixel].
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["jungfrau_pedestal"]
    name: str
    frames_per_stage: PositiveInt
    cells: tuple[int, ...]
    exposure_s: PositiveFloat
    setting: str
    rows: PositiveInt
    columns: PositiveInt


class PedestalSums:
    """Mean and noise of each pixel in each gain stage, of one storage cell.

    Sums are of integers, so the order of frames does not change a bit of the result.

    Parameters
    ----------
    rows, columns : int
        Size [pixel].
    """

    def __init__(self, rows: int, columns: int) -> None:
        shape = (len(_STAGES), rows, columns)
        self._sums = np.zeros(shape, dtype=np.int64)
        self._squares = np.zeros(shape, dtype=np.int64)
        self._elsewhere = np.zeros(shape, dtype=np.int64)
        self.frames = [0] * len(_STAGES)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Frames that count for each pixel, shape ``(3, rows, columns)``."""
        return np.array(self.frames)[:, None, None] - self._elsewhere

    def add(self, stage: int, raw: NDArray[np.uint16]) -> None:
        """Add a dark frame ``(rows, columns)`` of a gain stage; pixels in others do not count."""
        adc = (raw & 0x3FFF).astype(np.int32)
        # Few pixels are elsewhere; the others need no count of their own.
        elsewhere = np.flatnonzero(raw >> 14 != _BITS[stage])
        adc.reshape(-1)[elsewhere] = 0
        self._elsewhere[stage].reshape(-1)[elsewhere] += 1
        self._sums[stage] += adc
        self._squares[stage] += adc * adc
        self.frames[stage] += 1

    def switched(self, stage: int) -> float:
        """Part of the pixels that were in another stage than they were to be."""
        taken = self.frames[stage] * self._elsewhere[stage].size
        return float(self._elsewhere[stage].sum()) / taken if taken else 0.0

    def mean(self) -> NDArray[np.float32]:
        """Pedestals, shape ``(3, rows, columns)`` [ADU]; NaN where a pixel has none."""
        mean = np.full(self._sums.shape, np.nan)
        counts = self.counts
        np.divide(self._sums, counts, out=mean, where=counts > 0)
        return mean.astype(np.float32)

    def noise(self) -> NDArray[np.float32]:
        """Standard deviations of single frames, of that shape [ADU]; NaN of fewer than 2."""
        counts = self.counts
        enough = counts > 1
        noise = np.full(self._sums.shape, np.nan)
        # Exact in integers: n sum(x^2) stays below 2^63 for more than 180,000 frames.
        spread = counts * self._squares - self._sums * self._sums
        np.divide(spread, counts * (counts - 1), out=noise, where=enough)
        result: NDArray[np.float32] = np.sqrt(noise).astype(np.float32)
        return result


class MeasurePedestals:
    """Turn dark frames into pedestals that later series find; leaves other runs alone.

    Each storage cell has a file ``pedestal_<detector>_cell<number>.h5`` in the run folder, with
    the arrays ``pedestal``, ``noise`` and ``frames`` of shape ``(3, rows, columns)``; see
    `apsber_bluesky.processing.read_jungfrau_map`.
    """

    name = "pedestals"
    essential = True

    def run(self, context: RunContext) -> None:
        """Measure, write, and enter them in the records of the data root.

        Raises
        ------
        DataFileError
            If the frames do not make pedestals; the message says why.
        """
        if context.run.conditions.get("kind") != PEDESTAL_RUN:
            return
        started_s = time.time()
        run = _describe(context)
        sums = self._sum(context, run)
        problem = _problem(run, sums)
        if problem:
            raise DataFileError(f"no pedestals of {run.name}: {problem}")
        taken = datetime.datetime.fromtimestamp(context.run.start_time_s, datetime.UTC)
        files = {
            cell: _write(context, run, cell, sums[cell], taken.isoformat()) for cell in run.cells
        }
        context.record(
            "jungfrau_pedestals",
            started_s,
            {
                **run.model_dump(mode="json"),
                "frames_used": {str(cell): sums[cell].frames for cell in run.cells},
            },
            outputs={file.name: file_checksum(file) for file in files.values()},
        )
        data_root = context.folder.path.parent.parent
        record = PedestalRecord(
            run_uid=context.run.uid,
            detector=run.name,
            taken_s=context.run.start_time_s,
            rows=run.rows,
            columns=run.columns,
            exposure_s=run.exposure_s,
            setting=run.setting,
            files={cell: str(file.relative_to(data_root)) for cell, file in files.items()},
        )
        keep_pedestals(data_root, record)

    def _sum(self, context: RunContext, run: PedestalRun) -> dict[int, PedestalSums]:
        sums = {cell: PedestalSums(run.rows, run.columns) for cell in run.cells}
        unusable = _unusable(context)
        total = run.frames_per_stage * len(_STAGES)
        for first, chunk in _chunks(context):
            context.check_cancelled(self.name)
            for index, raw in enumerate(chunk, start=first):
                if index not in unusable and index < total:
                    cell = run.cells[index % run.frames_per_stage % len(run.cells)]
                    sums[cell].add(index // run.frames_per_stage, raw)
            context.report(self.name, min(first + len(chunk), total), total)
        return sums


def _describe(context: RunContext) -> PedestalRun:
    try:
        run = PedestalRun.model_validate(context.run.conditions)
        check_folder_name(run.name, "detector")
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise DataFileError(
            f"key 'detector' of the start document does not describe a pedestal run: {problems};"
            " leave the key to jungfrau_pedestal"
        ) from None
    if not run.cells:
        raise DataFileError("key 'detector' of the start document names no storage cells")
    return run


def _unusable(context: RunContext) -> frozenset[int]:
    books = context.findings.books.streams
    names = {name for f in context.findings.frames for name in (book_name(f.stream, f.detector),)}
    found = [books[name].unusable for name in names if name in books]
    return frozenset().union(*found)


def _chunks(context: RunContext) -> Iterator[tuple[int, NDArray[Any]]]:
    """Index of the first frame, and frames, of all that was announced."""
    source = context.findings.source
    for frames in context.findings.frames:
        for start in range(frames.start, frames.stop, _CHUNK_FRAMES):
            part: FrameRange = replace(
                frames, start=start, stop=min(start + _CHUNK_FRAMES, frames.stop)
            )
            if source is not None:
                yield start, source.read(part)


def _problem(run: PedestalRun, sums: dict[int, PedestalSums]) -> str:
    """Why these frames make no pedestals; empty if they do."""
    for cell, own in sums.items():
        for stage, name in enumerate(_STAGES):
            if own.frames[stage] < 2:
                return f"storage cell {cell} has {own.frames[stage]} whole frames of {name}"
            if own.switched(stage) > _MOST_SWITCHED:
                return (
                    f"{own.switched(stage):.1%} of the pixels of storage cell {cell} were in"
                    f" another gain stage than {name}; was there light on the detector?"
                )
    return ""


def _write(
    context: RunContext, run: PedestalRun, cell: int, sums: PedestalSums, taken: str
) -> Path:
    import h5py

    checked = JungfrauMap("pedestal", sums.mean(), taken)
    path = context.folder.path / f"pedestal_{run.name}_cell{cell}.h5"
    arrays = {"pedestal": checked.values, "noise": sums.noise(), "frames": sums.counts}
    with (
        explain_disk_errors(path, "write the pedestals"),
        atomic_file(path) as partial,
        h5py.File(partial, "w", libver="latest") as file,
    ):
        for name, values in arrays.items():
            file.create_dataset(name, data=values).attrs["units"] = (
                "1" if name == "frames" else "ADU"
            )
        file["taken"] = taken
        file["run_uid"] = context.run.uid
        file["storage_cell"] = cell
        file["exposure_s"] = run.exposure_s
        file["setting"] = run.setting
    return path
