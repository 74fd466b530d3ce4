"""What is to be reconstructed from a scan that is already on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, ImageKey, InputError, ReconstructionEngine
from apsber_bluesky.processing import (
    FrameGeometry,
    IterationReport,
    IterativeEngine,
    IterativeSettings,
    average_reference,
    bad_pixels,
    create_engine,
    engine_names,
    required_bytes,
)

#: Engines make this many slices at once, and chunks of a volume hold them.
BLOCK_SLICES = 16
# References are averaged in blocks of rows of about this size.
_BLOCK_BYTES = 256 << 20


class OpenedScan(Protocol):
    """The frames of a scan whose file is open (``storage.OpenScan`` is one)."""

    def read(self, kind: ImageKey, start: int, stop: int, rows: range) -> NDArray[Any]:
        """Some rows of some frames of a kind, shape ``(stop - start, len(rows), columns)``."""
        ...


class Scan(Protocol):
    """A scan on disk that can be sent to other processes (``storage.ScanFile`` is one)."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a frame [pixel]."""
        ...

    @property
    def columns(self) -> int:
        """Columns of a frame [pixel]."""
        ...

    @property
    def dtype(self) -> str:
        """NumPy dtype string of the pixels."""
        ...

    @property
    def angles_deg(self) -> NDArray[np.float64] | None:
        """Angle of each projection [deg]."""
        ...

    @property
    def decodes_whole_frames(self) -> bool:
        """Whether reading some rows of a frame costs as much as reading all of it."""
        ...

    def count(self, kind: ImageKey) -> int:
        """Frames of a kind."""
        ...

    def numbers(self, kind: ImageKey) -> NDArray[np.int64]:
        """What messages call the frames of a kind."""
        ...

    def opened(self) -> AbstractContextManager[OpenedScan]:
        """Open the file."""
        ...


@dataclass(frozen=True, slots=True)
class OfflineJob:
    """How to reconstruct a scan.

    Attributes
    ----------
    scan : Scan
        Where the frames are.
    geometry : FrameGeometry
        Centre, slices, binning, tilt.
    engine : str
        Name of the engine.
    filter_name : str
        Window of the ramp filter.
    region : tuple of int or None
        Pixels of each slice to keep, ``(x_first, x_stop, y_first, y_stop)``; None keeps all.
    iterative : IterativeSettings or None
        How to reconstruct iteratively; None means filtered back-projection. The engine then only
        helps to find the rotation centre.
    """

    scan: Scan
    geometry: FrameGeometry
    engine: str
    filter_name: str = "ramp"
    region: tuple[int, int, int, int] | None = None
    iterative: IterativeSettings | None = None

    def __post_init__(self) -> None:
        if self.region is not None:
            x0, x1, y0, y1 = self.region
            size = self.geometry.size
            if not (0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size):
                raise InputError(
                    f"region {x0}:{x1},{y0}:{y1} is not within slices of {size} x {size} pixels"
                )

    @property
    def angles_deg(self) -> NDArray[np.float64]:
        """Angle of each projection [deg].

        Raises
        ------
        InputError
            If the file does not say.
        """
        angles = self.scan.angles_deg
        if angles is None:
            raise InputError(f"{self.scan.path} has no angles; give them with --angles")
        return angles

    @property
    def projections(self) -> int:
        """Projections used."""
        return self.scan.count(ImageKey.PROJECTION)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the volume."""
        size = self.geometry.size
        x0, x1, y0, y1 = self.region or (0, size, 0, size)
        return self.geometry.slices, y1 - y0, x1 - x0

    @property
    def local_engine(self) -> str:
        """The engine, or the best one here if only the workers of a cluster have it."""
        return self.engine if self.engine in engine_names() else "auto"

    @property
    def holds_centre(self) -> bool:
        """Whether projections are added for this centre alone, because that takes less memory.

        Asked of the job, not of a slab: slices must not depend on how the volume is cut.
        """
        if self.iterative is not None:
            return False
        needed = [
            required_bytes(16, self.geometry.size, self.projections, name=self.engine, held=held)
            for held in (False, True)
        ]
        return needed[1] < needed[0]

    def make_engine(
        self,
        slices: int,
        threads: int,
        cancelled: Cancellation | None = None,
        *,
        progress: Callable[[IterationReport], None] | None = None,
    ) -> ReconstructionEngine:
        """An engine for some slices of the job.

        Parameters
        ----------
        slices : int
            How many.
        threads : int
            Threads to work with.
        cancelled : Cancellation, optional
            Asked before each iteration.
        progress : callable, optional
            Told of each iteration.

        Raises
        ------
        InputError
            If memory would not suffice, or there is no such engine.
        """
        size, angles = self.geometry.size, self.angles_deg
        if self.iterative is not None:
            return IterativeEngine(
                slices,
                size,
                angles,
                self.iterative,
                threads,
                progress=progress,
                cancelled=cancelled,
            )
        engine = create_engine(
            self.engine,
            rows=slices,
            columns=size,
            angles_deg=angles,
            filter_name=self.filter_name,
            threads=threads,
        )
        if self.holds_centre:
            engine.hold_centre(self.geometry.engine_centre_px)
        return engine

    def engine_bytes(self, slices: int, threads: int) -> int:
        """Memory that an engine for some slices needs [byte]."""
        size = self.geometry.size
        if self.iterative is not None:
            return IterativeEngine.required_bytes(
                self.iterative, slices, size, self.projections, threads
            )
        return required_bytes(
            slices, size, self.projections, name=self.local_engine, threads=threads
        )

    def slices_at_once(self, threads: int) -> int:
        """Slices that are finished together: threads share blocks of an iterative method only."""
        return BLOCK_SLICES * (threads if self.iterative is not None else 1)

    def keep(self, slab: NDArray[np.float32]) -> NDArray[np.float32]:
        """The region of a slab of whole slices."""
        if self.region is None:
            return slab
        x0, x1, y0, y1 = self.region
        return np.ascontiguousarray(slab[:, y0:y1, x0:x1])


@dataclass(frozen=True, slots=True)
class References:
    """Mean dark, mean flat and bad pixels of some rows of the detector.

    Attributes
    ----------
    first_row : int
        Row of the detector that the first of these is.
    dark, flat : ndarray of float32
        Means, shape ``(rows, columns)`` [counts].
    bad : ndarray of bool
        Pixels that are replaced by their neighbours.
    """

    first_row: int
    dark: NDArray[np.float32]
    flat: NDArray[np.float32]
    bad: NDArray[np.bool_]

    @classmethod
    def measure(cls, scan: Scan) -> Self:
        """Average the darks and flats of a scan; a scan without darks has darks of 0.

        Pixels that are saturated in the flats are bad, beside those that `bad_pixels` finds.

        Raises
        ------
        InputError
            If the flats are zero or nowhere brighter than the darks, or hold NaN.
        DataFileError
            If the file is damaged.
        """
        try:
            return cls._measure(scan)
        except InputError as error:
            raise InputError(f"{scan.path}: {error}") from error

    @classmethod
    def _measure(cls, scan: Scan) -> Self:
        shape = (scan.rows, scan.columns)
        dark, flat = np.zeros(shape, np.float32), np.empty(shape, np.float32)
        saturated = np.zeros(shape, np.bool_)
        top = saturation_of(scan.dtype)
        flats, darks = scan.count(ImageKey.FLAT), scan.count(ImageKey.DARK)
        row_bytes = max(flats, darks) * scan.columns * (np.dtype(scan.dtype).itemsize + 8)
        step = scan.rows if scan.decodes_whole_frames else max(1, _BLOCK_BYTES // row_bytes)
        with scan.opened() as opened:
            for first in range(0, scan.rows, step):
                rows = range(first, min(first + step, scan.rows))
                place = slice(rows.start, rows.stop)
                if darks:
                    frames = opened.read(ImageKey.DARK, 0, darks, rows)
                    dark[place] = average_reference(frames, what="darks")
                frames = opened.read(ImageKey.FLAT, 0, flats, rows)
                # Whether all are zero is asked of the whole frame, below.
                flat[place] = average_reference(frames, what="flats" if frames.any() else "darks")
                if top is not None:
                    saturated[place] = (frames == top).all(axis=0)
        if not flat.any():
            average_reference(flat[None], what="flats")
        if saturated.all():
            raise InputError("all flats are saturated; retake them")
        return cls(0, dark, flat, bad_pixels(dark, flat) | saturated)

    def rows_needed(self, rows: range) -> range:
        """Rows that repairing some rows needs: one without a good pixel repeats the nearest."""
        hopeless = np.asarray(self.bad.all(axis=1))
        good = np.flatnonzero(~hopeless)
        start, stop = rows.start, rows.stop
        for row in np.flatnonzero(hopeless[rows.start : rows.stop]) + rows.start:
            donor = int(good[np.argmin(np.abs(good - row))])
            start, stop = min(start, donor), max(stop, donor + 1)
        return range(start, stop)

    def cut(self, rows: range) -> References:
        """Those of some rows alone."""
        place = slice(rows.start - self.first_row, rows.stop - self.first_row)
        return References(rows.start, self.dark[place], self.flat[place], self.bad[place])

    @property
    def rows(self) -> range:
        """The rows of the detector that these are."""
        return range(self.first_row, self.first_row + len(self.dark))


def saturation_of(dtype: str) -> int | None:
    """Value of a saturated pixel; None for a dtype that has none."""
    kind = np.dtype(dtype)
    return int(np.iinfo(kind).max) if kind.kind in "iu" else None
