"""Fourier gridding on an accelerator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._engine_scan import EngineScan
from apsber_bluesky.processing._filters import check_filter
from apsber_bluesky.processing.accelerators._backend import PAIRS, DeviceBackend
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry
from apsber_bluesky.processing.accelerators._stores import HeldGrid, KeptSpectra, Store, grid_bytes

_log = logging.getLogger(__name__)
_PROJECTIONS = 64


class DeviceEngine(EngineScan):
    """Filtered back-projection by gridding 16 slices at a time; see `create_engine`.

    Each detector row is ramp-filtered (zero-padded to twice its length), cut back to 1.125 of its
    length and kept as a spectrum; two slices share one complex spectrum. `finish` turns the
    spectra about the centre, adds them to an oversampled Fourier grid and transforms that.

    How many projections and slices are worked on at once follows from the memory of the device.
    Where it does not suffice the number is halved, with a warning, until it does. If the spectra
    of the whole scan do not fit the device they are kept in host memory.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    filter_name : str
        Window of the ramp filter.
    name : str
        Name of the engine.
    backend : callable
        Makes the `DeviceBackend` for a geometry.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        angles_deg: ArrayLike,
        filter_name: str,
        *,
        name: str,
        backend: Callable[[DeviceGeometry], DeviceBackend],
    ) -> None:
        check_filter(filter_name)
        self.name = name
        super().__init__(rows, columns, angles_deg, threads=1)
        self._geometry = DeviceGeometry(columns, filter_name)
        self._pairs = pairs_of(rows)
        self._backend = backend(self._geometry)
        self._store: Store | None = None
        self._spoilt = False

    def hold_centre(self, centre: float) -> None:
        """Add projections to a resident grid from now on, about one centre.

        `finish` then costs only the Fourier transform, and takes no other centre. After
        `give_up_missing` all projections count more, not only the neighbours of those missing.
        If the device cannot hold the grid a warning says so and the spectra are kept.

        Parameters
        ----------
        centre : float
            Column of the rotation axis [pixel].

        Raises
        ------
        InputError
            If the centre lies outside the frame or projections were accumulated before.
        """
        self._check_centre(centre)
        with self._lock:
            if self._store is not None:
                raise InputError("a centre can only be held before the first projection")
            needed, free = grid_bytes(self._geometry, self._pairs), self._backend.free_bytes()
            if needed > free * 2 // 3:
                _log.warning(
                    "a resident grid of %.1f GB does not fit the device, which has %.1f GB free; "
                    "spectra are kept",
                    needed / 1e9,
                    free / 1e9,
                )
                return
            with self._memory_stated():
                self._store = HeldGrid(
                    self._backend, self._geometry, self._angles, self._weights, self._pairs, centre
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
            If the shape or a number does not fit the scan, a value is NaN or infinite, a
            projection was seen before (nothing of the chunk is taken then), or the device has not
            memory enough for a single projection.
        """
        with self._lock:
            self._check_chunk(projections, first)
            store = self._opened()
            done, at_once = 0, max(1, min(_PROJECTIONS, len(projections)))
            while done < len(projections):
                part = projections[done : done + at_once]
                try:
                    chunk, finite = self._backend.filtered(part, self._pairs)
                    store.add(first + done, chunk)
                    done += len(part)
                    if not finite:
                        self._check_values(part, first + done - len(part))
                except self._backend.out_of_memory as error:
                    if at_once == 1:
                        store.undo(first, first + done)
                    at_once = self._halved(at_once, "projections", error)
                except InputError:
                    store.undo(first, first + done)
                    raise
            with self._memory_stated():
                # What fails here has changed a part of the grid.
                self._spoilt = True
                store.commit()
                self._spoilt = False
            self._seen[first : first + len(projections)] = True

    def finish(
        self, slices: slice, centre: float, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Reconstruct some slices from the projections seen so far.

        Parameters
        ----------
        slices : slice
            Which slices.
        centre : float
            Column of the rotation axis [pixel].
        out : ndarray of float32, optional
            Page-locked memory for the volume, shape ``(slices, size, size)``, all of them; saves
            a copy on the host.

        Returns
        -------
        ndarray of float32
            Attenuation [1/pixel], shape ``(n, size, size)``.

        Raises
        ------
        InputError
            If the centre lies outside the frame, there are no such slices, or the device has not
            memory enough for 16 slices.
        """
        wanted = self._wanted(slices)
        self._check_centre(centre)
        with self._lock:
            blocks = sorted({number // (2 * PAIRS) for number in wanted})
            if out is None:
                out = np.empty(self._shape_of(blocks), dtype=np.float32)
            elif len(wanted) != self._rows or out.shape != self.shape:
                raise InputError(f"out has shape {out.shape}; give {self.shape}, for all slices")
            self._transform(blocks, centre, out)
        place = {block: index * 2 * PAIRS for index, block in enumerate(blocks)}
        index = [place[number // (2 * PAIRS)] + number % (2 * PAIRS) for number in wanted]
        if index == list(range(len(out))):
            return out
        return out[index]

    def _weights_changed(self) -> None:
        self._opened().weights_changed(self._seen)

    @contextlib.contextmanager
    def _memory_stated(self) -> Iterator[None]:
        try:
            yield
        except self._backend.out_of_memory as error:
            raise InputError(
                f"the device has not memory enough: {error}; bin the frames, use fewer rows at a "
                "time or another engine"
            ) from error

    def _opened(self) -> Store:
        if self._spoilt:
            raise InputError(
                "the device ran out of memory while projections were added; make a new engine"
            )
        if self._store is None:
            self._store = KeptSpectra(self._backend, self._geometry, self._angles, self._pairs)
        return self._store

    def _shape_of(self, blocks: list[int]) -> tuple[int, int, int]:
        last = min(self._rows - blocks[-1] * 2 * PAIRS, 2 * PAIRS)
        return (len(blocks) - 1) * 2 * PAIRS + last, self._columns, self._columns

    def _transform(self, blocks: list[int], centre: float, out: NDArray[np.float32]) -> None:
        store, radius = self._opened(), self._field_radius(centre)
        done, at_once = 0, self._blocks_at_once(len(blocks))
        while done < len(blocks):
            together = _consecutive(blocks[done : done + at_once])
            pairs = slice(together[0] * PAIRS, (together[-1] + 1) * PAIRS)
            start = done * 2 * PAIRS
            part = out[start : start + len(together) * 2 * PAIRS]
            try:
                grid = store.grid(pairs, centre, self._weights)
                self._backend.images(grid, radius, store.scale(), part)
                del grid
            except self._backend.out_of_memory as error:
                at_once = self._halved(at_once, "blocks of 16 slices", error)
                continue
            done += len(together)
        self._backend.wait()

    def _blocks_at_once(self, wanted: int) -> int:
        # The grid, as much for the transform, and the images twice.
        each = 2 * grid_bytes(self._geometry, PAIRS) + 2 * PAIRS * self._columns**2 * 8
        each += PAIRS * len(self._angles) * self._geometry.period * 8
        # A sixth of what is wanted lets transfer and work overlap.
        return max(1, min(-(-wanted // 6), self._backend.free_bytes() // (2 * each)))

    def _halved(self, count: int, what: str, error: Exception) -> int:
        self._backend.release()
        if count == 1:
            raise InputError(
                f"the device has not memory enough for the smallest part ({what}): {error}; "
                "bin the frames, use fewer rows at a time or another engine"
            ) from error
        _log.warning("device out of memory with %d %s at once; going on with half", count, what)
        return count // 2


def pairs_of(rows: int) -> int:
    """Pairs of slices in whole blocks of 16 slices."""
    return -(-rows // (2 * PAIRS)) * PAIRS


def _consecutive(blocks: list[int]) -> list[int]:
    """The first blocks that follow on one another."""
    count = 1
    while count < len(blocks) and blocks[count] == blocks[count - 1] + 1:
        count += 1
    return blocks[:count]
