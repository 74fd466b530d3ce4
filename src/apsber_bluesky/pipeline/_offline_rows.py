"""The projections of some slices of a scan on disk, as an engine takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ArrayDigest, ImageKey, InputError
from apsber_bluesky.pipeline._held_projections import STRIPE_METHODS
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_scan import OpenedScan, saturation_of
from apsber_bluesky.pipeline._preparation import PreparationSteps
from apsber_bluesky.processing import FrameGeometry

#: Projections are read and normalised in chunks of about this size.
CHUNK_BYTES = 32 << 20

# A frame with more saturated pixels than this shows no sample.
_MOST_SATURATED = 0.5


def chunk_projections(rows: int, columns: int) -> int:
    """Projections of some rows that are taken at a time."""
    return max(1, CHUNK_BYTES // (rows * columns * 4))


class PreparedRows:
    """The projections of some slices, chunk by chunk, as an engine takes them.

    Parameters
    ----------
    job : OfflineJob
        Where the frames are, and what is done to them.
    geometry : FrameGeometry
        What to make of them.
    references : References
        Of at least the rows that the slices are prepared from (`OfflineJob.rows_read`).
    first, stop : int
        Slices, the last not included.
    threads : int
        Threads that remove stripes; the result does not depend on it.
    check : callable, optional
        Called now and then; raises if it is to stop.

    Attributes
    ----------
    saturated : ndarray of int64
        Saturated pixels in each projection seen so far.
    """

    def __init__(
        self,
        job: OfflineJob,
        geometry: FrameGeometry,
        references: References,
        first: int,
        stop: int,
        *,
        threads: int = 1,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._scan, self._geometry, self._threads = job.scan, geometry, threads
        self._first, self._stop = first, stop
        self._check = check or _go_on
        self._rows = references.rows
        self._wanted = self._within(geometry.recorded_rows(first, stop))
        # Slabs share rows; each row is counted for one.
        self._own = self._within(geometry.levelled_rows(first, stop))
        asked = job.preparation
        self._steps = PreparationSteps(
            references.normaliser(), asked.zingers, job.phase_filter(len(self._rows))
        )
        self._stripes = asked.stripes
        several = len(references.flats) > 1
        self._positions = self._scan.taken(ImageKey.PROJECTION) if several else None
        self._flats = "interpolate" if several else "average"
        self._good = ~references.bad
        self._top = saturation_of(self._scan.dtype)
        self._numbers = self._scan.numbers(ImageKey.PROJECTION)
        count = len(self._numbers)
        self.saturated = np.zeros(count, np.int64)
        dtype = np.dtype(self._scan.dtype).newbyteorder("=")
        self._digest = ArrayDigest(dtype, (count, len(self._rows), self._scan.columns))

    @property
    def checksum(self) -> str:
        """`array_checksum` of the pixels, once all chunks are read."""
        return self._digest.checksum()

    @property
    def parameters(self) -> dict[str, Any]:
        """What was done to the projections, and how often so far; for the provenance."""
        return {"flats": self._flats, **self._steps.parameters}

    def chunks(
        self, opened: OpenedScan, step: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Number of the first projection of each chunk, and the projections.

        They are the caller's own. Where stripes are removed, all are read before the first comes.

        Parameters
        ----------
        opened : OpenedScan
            The file.
        step : int, optional
            Projections of a chunk.

        Raises
        ------
        InputError
            If a projection holds NaN, nothing but zeros or mostly saturated pixels.
        DataFileError
            If the file cannot be read.
        """
        source = self.lines(opened, step)
        if self._stripes != "none":
            source = self._without_stripes(source, step)
        for first, lines in source:
            self._check()
            yield first, self._geometry.prepare(lines, self._first, self._stop)

    def lines(
        self, opened: OpenedScan, step: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The line integrals of the recorded rows, with their stripes; see `chunks`."""
        count = len(self._numbers)
        step = step or chunk_projections(len(self._rows), self._scan.columns)
        for first in range(0, count, step):
            self._check()
            stop = min(first + step, count)
            raw = opened.read(ImageKey.PROJECTION, first, stop, self._rows)
            self._digest.update(raw)
            self._look_at(raw, first)
            positions = None if self._positions is None else self._positions[first:stop]
            lines = self._steps(raw, positions=positions, own_rows=self._own)
            yield first, lines[:, self._wanted]

    def remove_stripes(self, lines: NDArray[np.float32]) -> None:
        """Remove the stripes of all projections of some rows, in place."""
        remove = STRIPE_METHODS[self._stripes]

        def work(row: int) -> None:
            self._check()
            remove(lines[:, row : row + 1])

        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(work, range(lines.shape[1])):
                pass

    def _without_stripes(
        self, source: Iterator[tuple[int, NDArray[np.float32]]], step: int | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        count, rows, columns = len(self._numbers), self._wanted, self._scan.columns
        held = np.empty((count, rows.stop - rows.start, columns), np.float32)
        for first, lines in source:
            held[first : first + len(lines)] = lines
        self.remove_stripes(held)
        step = step or chunk_projections(held.shape[1], columns)
        for first in range(0, count, step):
            yield first, held[first : first + step]

    def _within(self, rows: range) -> slice:
        """Rows of the detector, counted in those that are read."""
        start, stop = rows.start - self._rows.start, rows.stop - self._rows.start
        return slice(max(start, 0), min(stop, len(self._rows)))

    def _look_at(self, raw: NDArray[Any], first: int) -> None:
        """Refuse frames that would spoil the volume without anybody seeing why."""
        for number, frame in enumerate(raw, first):
            if self._top is None:
                if not np.isfinite(frame).all():
                    self._refuse(number, "holds NaN or infinite counts")
            elif frame.max() == self._top:
                many = int(np.count_nonzero((frame == self._top) & self._good))
                self.saturated[number] = many
                if many > _MOST_SATURATED * max(int(np.count_nonzero(self._good)), 1):
                    self._refuse(number, f"is saturated in {many} of {frame.size} pixels")
            if not frame.any():
                self._refuse(number, "holds nothing but zeros, as a lost frame does")

    def _refuse(self, number: int, what: str) -> None:
        name = int(self._numbers[number])
        raise InputError(
            f"projection {name} of {self._scan.path} {what} (rows {self._rows.start} to"
            f" {self._rows.stop - 1}); leave it out with --leave-out {name}"
        )


def _go_on() -> None:
    """Nobody asks to stop."""
