"""What a device engine keeps of the projections until slices are wanted."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.accelerators._backend import DeviceBackend
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry

_log = logging.getLogger(__name__)
_BLOCK = 64
# Blocks that may wait for an earlier one; each holds the spectra of _BLOCK projections.
_LATE = 8


class KeptSpectra:
    """All filtered spectra, so that slices can be had about any centre.

    They lie on the device while two thirds of its memory hold them, else in host memory.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        geometry: DeviceGeometry,
        angles: NDArray[np.float64],
        pairs: int,
    ) -> None:
        self._backend, self._geometry = backend, geometry
        self._points = backend.points(geometry.steps(angles))
        needed = spectra_bytes(geometry, pairs, len(angles))
        free = backend.free_bytes()
        self._spectra = None
        if needed <= free * 2 // 3:
            with contextlib.suppress(*backend.out_of_memory):
                self._spectra = backend.spectra(pairs, len(angles), host=False)
        if self._spectra is None:
            _log.warning(
                "spectra of %.1f GB are kept in host memory: the device has %.1f GB free",
                needed / 1e9,
                free / 1e9,
            )
            self._spectra = backend.spectra(pairs, len(angles), host=True)

    def add(self, first: int, chunk: Any) -> None:
        """Take filtered projections ``first`` and on."""
        self._backend.store(self._spectra, first, chunk)

    def commit(self) -> None:
        """Nothing to do: spectra are not used before `grid`."""

    def undo(self, first: int, stop: int) -> None:
        """Forget projections that were not committed."""
        self._backend.clear(self._spectra, first, stop)

    def grid(self, pairs: slice, centre: float, weights: NDArray[np.float64]) -> Any:
        """Grid of some pairs about a centre [pixel]."""
        grid = self._backend.grid(pairs.stop - pairs.start)
        spectra = self._backend.part(self._spectra, pairs)
        turn = self._geometry.phase(centre)
        self._backend.spread(grid, spectra, self._points, weights, turn)
        return grid

    def scale(self) -> float:
        """Factor that the images still lack."""
        return 1.0

    def weights_changed(self, seen: NDArray[np.bool_]) -> None:
        """Nothing to do: the weights are applied in `grid`."""


class HeldGrid:
    """One resident grid about one centre, to which projections are added as they come.

    They are added in blocks of 64 in the order of their numbers, whatever order they came in, so
    that the sums are the same. A block waits for those before it while not more than eight wait;
    after that the earliest is added as it is, and what comes late is added when it comes.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        geometry: DeviceGeometry,
        angles: NDArray[np.float64],
        weights: NDArray[np.float64],
        pairs: int,
        centre: float,
    ) -> None:
        self._backend, self._pairs, self.centre = backend, pairs, centre
        self._steps, self._turn = geometry.steps(angles), geometry.phase(centre)
        self._weights = weights
        self._grid = backend.grid(pairs)
        self._fresh: list[tuple[int, Any]] = []
        self._waiting: dict[int, Any] = {}
        self._arrived: dict[int, int] = {}
        self._next = 0
        self._scale = 1.0

    def add(self, first: int, chunk: Any) -> None:
        """Take filtered projections ``first`` and on; they count from `commit` on."""
        self._fresh.append((first, chunk))

    def commit(self) -> None:
        """Add to the grid what can be added."""
        while self._fresh:
            self._place(*self._fresh.pop(0))

    def undo(self, first: int, stop: int) -> None:
        """Forget projections that were not committed."""
        del first, stop
        self._fresh.clear()

    def _place(self, first: int, chunk: Any) -> None:
        done = 0
        while done < chunk.shape[1]:
            block, inside = divmod(first + done, _BLOCK)
            count = min(_BLOCK - inside, chunk.shape[1] - done)
            if block not in self._waiting:
                size = len(self._members(block))
                self._waiting[block] = self._backend.spectra(self._pairs, size, host=False)
                self._arrived[block] = 0
            piece = chunk[:, done : done + count]
            self._backend.store(self._waiting[block], inside, piece)
            self._arrived[block] += count
            done += count
            self._settle()

    def grid(self, pairs: slice, centre: float, _: NDArray[np.float64]) -> Any:
        """Grid of some pairs, with the projections that still wait."""
        if not math.isclose(centre, self.centre, abs_tol=1e-9):
            raise InputError(
                f"centre {centre} is not the one that is held, {self.centre}; "
                "ask for that, or make an engine that does not hold its centre"
            )
        grid = self._backend.copy(self._grid, pairs)
        for block in sorted(self._waiting):
            self._spread(grid, block, self._backend.part(self._waiting[block], pairs))
        return grid

    def scale(self) -> float:
        """Factor that the images still lack."""
        return self._scale

    def weights_changed(self, seen: NDArray[np.bool_]) -> None:
        """Raise all weights alike: what neighbours had was added long ago."""
        self._scale = float(self._weights.sum() / self._weights[seen].sum())

    def _settle(self) -> None:
        while self._waiting:
            block = min(self._waiting)
            whole = self._arrived[block] == len(self._members(block))
            if not (block < self._next or (block == self._next and whole)):
                if len(self._waiting) <= _LATE:
                    return
                _log.warning("projections before block %d are late; it is added as it is", block)
            self._spread(self._grid, block, self._waiting.pop(block))
            del self._arrived[block]
            self._next = max(self._next, block + 1)

    def _members(self, block: int) -> range:
        return range(block * _BLOCK, min((block + 1) * _BLOCK, len(self._weights)))

    def _spread(self, grid: Any, block: int, spectra: Any) -> None:
        part = slice(block * _BLOCK, (block + 1) * _BLOCK)
        points = self._backend.points(self._steps[part])
        self._backend.spread(grid, spectra, points, self._weights[part], self._turn)


def spectra_bytes(geometry: DeviceGeometry, pairs: int, projections: int) -> int:
    """Memory of the spectra of some projections."""
    return pairs * projections * geometry.period * np.dtype(np.complex64).itemsize


def grid_bytes(geometry: DeviceGeometry, pairs: int) -> int:
    """Memory of a grid."""
    return pairs * geometry.size**2 * np.dtype(np.complex64).itemsize


Store = KeptSpectra | HeldGrid
"""Either way of keeping projections."""
