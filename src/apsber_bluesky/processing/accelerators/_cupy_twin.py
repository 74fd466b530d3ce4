"""The arithmetic of the CUDA kernels in NumPy: the device engine on a host without a device.

Each function does what the kernel of its name in `_cupy_kernels` does. It is written to be
compared with, not to be fast; `GriddingEngine` is the engine for processors.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from apsber_bluesky.processing._free_memory import free_memory
from apsber_bluesky.processing.accelerators._backend import PAIRS
from apsber_bluesky.processing.accelerators._geometry import WIDTH, DeviceGeometry

_BLOCK = 64
Complex = NDArray[np.complex64]


def pack(projections: NDArray[np.float32], pairs: int, padded: int) -> Complex:
    """Rows ``2p`` and ``2p + 1`` as real and imaginary part of pair ``p``, padded with 0."""
    n, slices, columns = projections.shape
    rows = np.zeros((pairs, n, padded), dtype=np.complex64)
    rows.real[: (slices + 1) // 2, :, :columns] = projections[:, 0::2].swapaxes(0, 1)
    rows.imag[: slices // 2, :, :columns] = projections[:, 1::2].swapaxes(0, 1)
    return rows


def cut(rows: Complex, columns: int, period: int) -> Complex:
    """Cut back what the filter smeared; samples before the first pixel come last."""
    before = (period - columns) // 2
    return np.concatenate([rows[..., : period - before], rows[..., -before:]], axis=-1)


def spread(
    grid: Complex,
    spectra: Complex,
    steps: NDArray[np.float64],
    weights: NDArray[np.float32],
    turn: Complex,
    beta: float,
) -> None:
    """Add a block of pairs, ``(pairs, n, period)``, to its grid ``(pairs, size, size)``."""
    pairs, _, period = spectra.shape
    size = grid.shape[-1]
    m = np.rint(scipy.fft.fftfreq(period) * period)
    place = (steps[:, None, :] * m[None, :, None]).reshape(-1, 2)
    values = (spectra * weights[:, None] * turn).reshape(pairs, -1).T
    lowest = np.ceil(place - WIDTH / 2).astype(np.int64)
    flat = np.zeros((size * size, pairs), dtype=np.complex64)
    for j in range(WIDTH):
        for i in range(WIDTH):
            cell = lowest + np.array([i, j])
            d = (cell - place).astype(np.float32) / np.float32(WIDTH / 2)
            root = np.sqrt(np.maximum(0, 1 - d * d))
            weight = np.exp(np.float32(beta) * (root.sum(axis=1) - 2))
            weight[~(root > 0).all(axis=1)] = 0
            wrapped = cell % size
            np.add.at(flat, wrapped[:, 1] * size + wrapped[:, 0], values * weight[:, None])
    grid += flat.T.reshape(grid.shape)


def crop(
    grid: Complex, correction: NDArray[np.float32], radius: float, scale: float
) -> NDArray[np.float32]:
    """Images ``(2 pairs, columns, columns)`` of a transformed grid."""
    pairs, size, _ = grid.shape
    axis = np.arange(len(correction)) - len(correction) // 2
    factor = np.float32(scale) * correction[None, :] * correction[:, None]
    factor[axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2] = 0
    middle = grid[:, axis[:, None] % size, axis[None, :] % size] * factor
    images = np.empty((2 * pairs, *factor.shape), dtype=np.float32)
    images[0::2], images[1::2] = middle.real, middle.imag
    return images


class TwinBackend:
    """A `DeviceBackend` that works in host memory, up to a limit.

    Parameters
    ----------
    geometry : DeviceGeometry
        Lengths and tables.
    limit_bytes : int, optional
        Largest array that it makes; by default any.
    """

    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(self, geometry: DeviceGeometry, limit_bytes: int | None = None) -> None:
        self._geometry, self._limit = geometry, limit_bytes

    def free_bytes(self) -> int:
        """Free memory of the host; the limit is met by failing, as on a shared device."""
        return free_memory()

    def release(self) -> None:
        """Nothing is held back."""

    def wait(self) -> None:
        """Nothing is queued."""

    def spectra(self, pairs: int, projections: int, *, host: bool) -> Complex:
        """Make empty spectra."""
        del host
        return np.zeros((pairs, projections, self._geometry.period), dtype=np.complex64)

    def store(self, spectra: Complex, first: int, chunk: Complex) -> None:
        """Put filtered projections at their place."""
        spectra[:, first : first + chunk.shape[1]] = chunk

    def clear(self, spectra: Complex, first: int, stop: int) -> None:
        """Make the spectra of some projections 0 again."""
        spectra[:, first:stop] = 0

    def part(self, spectra: Complex, pairs: slice) -> Complex:
        """Spectra of some pairs."""
        return spectra[pairs]

    def grid(self, pairs: int) -> Complex:
        """Make an empty grid for each pair."""
        self._within(pairs * self._geometry.size**2 * 8)
        return np.zeros((pairs, self._geometry.size, self._geometry.size), dtype=np.complex64)

    def copy(self, grid: Complex, pairs: slice) -> Complex:
        """Copy the grids of some pairs."""
        self._within(grid[pairs].nbytes)
        return grid[pairs].copy()

    def filtered(self, projections: NDArray[np.float32], pairs: int) -> tuple[Complex, bool]:
        """Spectra of ramp-filtered projections, and whether all values were finite."""
        geometry = self._geometry
        self._within(pairs * len(projections) * geometry.padded * 8)
        rows = pack(projections, pairs, geometry.padded)
        rows = scipy.fft.fft(rows, axis=-1, overwrite_x=True)
        rows *= geometry.response
        rows = scipy.fft.ifft(rows, axis=-1, norm="forward", overwrite_x=True)
        shorter: Complex = scipy.fft.fft(cut(rows, geometry.columns, geometry.period), axis=-1)
        return shorter, bool(np.isfinite(projections).all())

    def points(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places of projections."""
        return steps

    def spread(
        self,
        grid: Complex,
        spectra: Complex,
        points: NDArray[np.float64],
        weights: NDArray[np.float64],
        turn: Complex,
    ) -> None:
        """Add weighted spectra to a grid."""
        single = weights.astype(np.float32)
        for pair in range(0, len(grid), PAIRS):
            part = slice(pair, pair + PAIRS)
            for a in range(0, len(points), _BLOCK):
                some = slice(a, a + _BLOCK)
                sums, values = grid[part], spectra[part, some]
                spread(sums, values, points[some], single[some], turn, self._geometry.beta)

    def images(self, grid: Complex, radius: float, scale: float, out: NDArray[np.float32]) -> None:
        """Transform a grid and write its slices."""
        for first in range(0, len(grid), PAIRS):
            part = grid[first : first + PAIRS]
            transformed = scipy.fft.ifft2(part, norm="forward")
            slices = crop(transformed, self._geometry.correction, radius, scale)
            target = out[2 * first : 2 * (first + PAIRS)]
            target[...] = slices[: len(target)]

    def _within(self, wanted: int) -> None:
        if self._limit is not None and wanted > self._limit:
            raise MemoryError(f"{wanted} bytes wanted, {self._limit} are allowed")
