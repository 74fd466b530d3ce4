"""The suite's own Fourier engine for processors: 16 slices at a time, compiled."""

from __future__ import annotations

import functools
import itertools
import math
import queue

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._engine_scan import EngineScan
from apsber_bluesky.processing._filters import check_filter
from apsber_bluesky.processing._lengths import padded_length
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.gridding._geometry import (
    GriddingGeometry,
    grid_bytes,
    grid_size,
)
from apsber_bluesky.processing.gridding._resident import ResidentGrid
from apsber_bluesky.processing.gridding._spectra import SpectraPlace, SpectraStore
from apsber_bluesky.processing.gridding._spread import TAPS
from apsber_bluesky.processing.gridding._stages import (
    GROUP,
    all_finite,
    filter_rows,
    transform_columns,
    transform_rows,
)

_DEFAULT_TAPS = 6


class GriddingEngine(EngineScan):
    """Fourier reconstruction with 16 slices innermost; see `create_engine`.

    Each detector row is ramp-filtered as it arrives (zero-padded to twice its length), cut back
    to 1.125 of its length and kept as a spectrum. `finish` turns the spectra about the rotation
    centre, adds them to a Fourier grid that is oversampled by 1.25, and transforms that: a type-1
    non-uniform FFT in which every array has 16 slices innermost. Where a sample goes, and with
    which weights, is worked out once for 16 slices, and the arithmetic on them fills the vectors
    of the processor; two slices share one complex number. Pixels that are not in the field of
    view at every angle are 0.

    After `hold_centre` the spectra are added to grids that stay in memory, as they arrive.

    Each projection is filtered on its own and added in an order that is fixed by the scan, by one
    thread for each 16 slices, so the volume does not depend, bit by bit, on chunks, their order
    or the number of threads.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    filter_name : str
        Window of the ramp filter.
    threads : int
        Threads to work with.
    taps : {4, 5, 6}
        Width of the gridding kernel [cell]; more is more exact and slower.
    """

    name = "gridding"

    def __init__(
        self,
        rows: int,
        columns: int,
        angles_deg: ArrayLike,
        filter_name: str,
        threads: int,
        *,
        taps: int = _DEFAULT_TAPS,
    ) -> None:
        check_filter(filter_name)
        if taps not in TAPS:
            raise InputError(f"a kernel of {taps} taps is not there; choose one of {TAPS}")
        super().__init__(rows, columns, angles_deg, threads)
        self._geometry = GriddingGeometry(columns, filter_name, taps)
        self._correction = self._geometry.correction.astype(np.float64)
        self._blocks = -(-rows // LANES)
        self._store: SpectraStore | ResidentGrid | None = None
        self._filter_memory: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()
        self._image_memory: queue.SimpleQueue[tuple[NDArray[np.float32], NDArray[np.float32]]] = (
            queue.SimpleQueue()
        )

    @staticmethod
    @functools.cache
    def prepare() -> None:
        """Compile the kernels or load them from an earlier session, once in a process.

        It takes seconds the first time; done before a scan, no projection waits for it.
        """
        for held in (False, True):
            tiny = GriddingEngine(1, 2, [0.0], "ramp", 1)
            if held:
                tiny.hold_centre(0.5)
            tiny.accumulate(np.ones((1, 1, 2), np.float32), 0)
            tiny.finish(slice(None), 0.5)

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory that the engine needs: its spectra, and what each thread works with."""
        kept = SpectraStore.required_bytes(rows, columns, projections)
        return kept + _working_bytes(rows, columns, threads)

    @staticmethod
    def required_bytes_held(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory that it needs after `hold_centre`: grids in the place of spectra."""
        kept = ResidentGrid.required_bytes(rows, columns, projections, _DEFAULT_TAPS)
        return kept + _working_bytes(rows, columns, threads)

    def hold_centre(self, centre: float) -> None:
        """Add projections to the grid of this rotation centre as they arrive.

        Then `finish` is quick, and takes no other centre.

        Parameters
        ----------
        centre : float
            Column of the rotation axis [pixel].

        Raises
        ------
        InputError
            If the centre lies outside the frame, or projections were accumulated before.
        """
        self._check_centre(centre)
        with self._lock:
            if self._store is not None:
                raise InputError(
                    "projections have been accumulated; hold the centre before the first of them"
                )
            self._store = ResidentGrid(
                self._geometry, self._angles, self._blocks, centre, self._each
            )

    def accumulate(self, projections: NDArray[np.float32], first: int) -> None:
        """Take line integrals of projections ``first`` to ``first + n``.

        Parameters
        ----------
        projections : ndarray of float32
            Line integrals, shape ``(n, rows, columns)``.
        first : int
            Number of the first of them in the scan.

        Raises
        ------
        InputError
            If the shape or a number does not fit the scan, a value is NaN or infinite, or a
            projection was seen before. Nothing of the chunk is taken then.
        """
        with self._lock:
            self._check_chunk(projections, first)
            if not len(projections):
                return
            # One layout and one kind of access, for which the kernels are compiled.
            chunk = np.ascontiguousarray(projections, dtype=np.float32).view()
            chunk.flags.writeable = False
            self._check_values(chunk, first)
            store = self._opened_store()
            for place in store.places(first, len(chunk)):
                self._filter(chunk[place.start : place.start + len(place.slots)], place)
            self._seen[first : first + len(chunk)] = True
            if isinstance(store, ResidentGrid):
                store.settle(self._seen, self._weights)

    def finish(self, slices: slice, centre: float) -> NDArray[np.float32]:
        """Reconstruct some slices from the projections seen so far.

        Parameters
        ----------
        slices : slice
            Which slices.
        centre : float
            Column of the rotation axis [pixel]; the one that is held, if one is.

        Returns
        -------
        ndarray of float32
            Attenuation [1/pixel], shape ``(n, size, size)``.

        Raises
        ------
        InputError
            If the centre lies outside the frame, another one is held or there are no such slices.
        """
        wanted = self._wanted(slices)
        self._check_centre(centre)
        with self._lock:
            store, seen = self._opened_store(), self._seen.copy()
            weights = np.where(seen, self._weights, 0)
            if isinstance(store, ResidentGrid):
                if centre != store.centre:
                    raise InputError(
                        f"the engine holds centre {store.centre}, so it cannot reconstruct about "
                        f"{centre}"
                    )
                # Nothing may be added to the grids while they are read.
                return self._images(wanted, centre, store, seen, weights)
            store.prepare(self._each)
        return self._images(wanted, centre, store, seen, weights)

    def _opened_store(self) -> SpectraStore | ResidentGrid:
        if self._store is None:
            self._store = SpectraStore(self._geometry, self._angles, self._blocks)
        return self._store

    def _weights_changed(self) -> None:
        if isinstance(self._store, ResidentGrid):
            self._store.give_up(self._seen, self._weights)

    def _check_values(self, projections: NDArray[np.float32], first: int) -> None:
        good = np.empty(len(projections), np.bool_)

        def check(index: int) -> None:
            good[index] = all_finite(projections[index].reshape(-1).view(np.uint32))

        self._each(check, range(len(projections)))
        if not good.all():
            super()._check_values(projections, first)

    def _filter(self, projections: NDArray[np.float32], place: SpectraPlace) -> None:
        """Filter projections and keep their spectra."""
        geometry = self._geometry
        # Where there are fewer blocks than threads, threads share the projections of a block.
        parts = min(-(-self._threads // self._blocks), len(projections))
        cuts = [len(projections) * k // parts for k in range(parts + 1)]

        def work(task: tuple[int, tuple[int, int]]) -> None:
            block, (start, stop) = task
            memory = self._borrow_filter_memory()
            filter_rows(
                projections,
                start,
                stop,
                place.slots,
                block * LANES,
                geometry.response,
                geometry.padded_plan.parts,
                geometry.period_plan.parts,
                place.spectra,
                block * place.block_floats,
                memory[0],
                memory[1],
            )
            self._filter_memory.put(memory)

        self._each(work, itertools.product(range(self._blocks), itertools.pairwise(cuts)))

    def _images(
        self,
        wanted: range,
        centre: float,
        store: SpectraStore | ResidentGrid,
        seen: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        size = self._columns
        # Zeroed memory comes in huge pages, which are many times faster to get than small ones.
        volume = np.zeros((len(wanted), size, size), np.float32)
        targets = np.full((self._blocks, LANES), -1, np.int64)
        for index, number in enumerate(wanted):
            targets[number // LANES, number % LANES] = index * size * size
        blocks = np.flatnonzero((targets >= 0).any(axis=1))
        turn = self._geometry.turn(centre).reshape(-1)
        radius, out = self._field_radius(centre), volume.reshape(-1)

        def work(block: int) -> None:
            grid, columns = self._borrow_image_memory()
            if isinstance(store, ResidentGrid):
                filled = store.fill(block, seen, weights, grid)
            else:
                filled = store.fill(block, weights, turn, grid)
            self._transform(filled, grid, columns, radius, out, targets[block], store.scale)
            self._image_memory.put((grid, columns))

        self._each(work, blocks)
        return volume

    def _transform(
        self,
        filled: NDArray[np.float32],
        grid: NDArray[np.float32],
        columns: NDArray[np.float32],
        radius: float,
        out: NDArray[np.float32],
        targets: NDArray[np.int64],
        scale: float,
    ) -> None:
        """Transform the grid of 16 slices, and write those that are wanted."""
        geometry = self._geometry
        plan, size, stride = geometry.grid_plan.parts, geometry.size, geometry.stride
        transform_columns(
            filled, geometry.taps - 1, size, stride, plan, math.floor(radius), grid, columns
        )
        steps = np.unique(np.diff(targets))
        together = int(steps[0]) if targets[0] >= 0 and len(steps) == 1 else 0
        correction = (self._correction * math.sqrt(scale)).astype(np.float32)
        transform_rows(
            grid, size, stride, plan, correction, radius, out, targets, together, columns
        )

    def _borrow_filter_memory(self) -> NDArray[np.float32]:
        try:
            return self._filter_memory.get_nowait()
        except queue.Empty:
            return np.zeros((2, LANES * self._geometry.padded), np.float32)

    def _borrow_image_memory(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            return self._image_memory.get_nowait()
        except queue.Empty:
            geometry = self._geometry
            grid = np.zeros(math.prod(geometry.grid_shape), np.float32)
            return grid, np.zeros((GROUP + 1) * LANES * geometry.size, np.float32)


def _working_bytes(rows: int, columns: int, threads: int) -> int:
    filtering = 2 * LANES * padded_length(columns) * 4
    image = grid_bytes(columns, _DEFAULT_TAPS) + (GROUP + 1) * LANES * grid_size(columns) * 4
    return threads * filtering + min(threads, -(-rows // LANES)) * image
