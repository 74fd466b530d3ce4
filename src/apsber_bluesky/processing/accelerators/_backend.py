"""What an accelerator must be able to do for `DeviceEngine`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PAIRS = 8
"""Pairs of slices that are gridded together: a block of 16 slices."""


class DeviceBackend(Protocol):
    """Memory and kernels of one device; arrays of the device are opaque to the engine.

    Spectra have shape ``(pairs, projections, period)``, complex; slices ``2p`` and ``2p + 1`` are
    the real and imaginary part of pair ``p``. `pairs` is always a multiple of `PAIRS`, so that
    each block is transformed in the same way however many there are. Work is queued: results are
    there after `wait`.
    """

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """Exceptions that say that the device's memory is used up."""
        ...

    def free_bytes(self) -> int:
        """Memory that can still be taken on the device."""
        ...

    def release(self) -> None:
        """Give unused memory back."""
        ...

    def spectra(self, pairs: int, projections: int, *, host: bool) -> Any:
        """Make empty spectra on the device, or in the memory of the host."""
        ...

    def store(self, spectra: Any, first: int, chunk: Any) -> None:
        """Put filtered projections at their place."""
        ...

    def clear(self, spectra: Any, first: int, stop: int) -> None:
        """Make the spectra of some projections 0 again."""
        ...

    def part(self, spectra: Any, pairs: slice) -> Any:
        """Spectra of some pairs, on the device."""
        ...

    def grid(self, pairs: int) -> Any:
        """Make an empty grid for each pair."""
        ...

    def copy(self, grid: Any, pairs: slice) -> Any:
        """Copy the grids of some pairs."""
        ...

    def filtered(self, projections: NDArray[np.float32], pairs: int) -> tuple[Any, bool]:
        """Spectra ``(pairs, n, period)`` of ramp-filtered projections ``(n, rows, columns)``.

        The second tells whether all values given were finite.
        """
        ...

    def points(self, steps: NDArray[np.float64]) -> Any:
        """Prepare the places of projections; `steps` is from `DeviceGeometry.steps`."""
        ...

    def spread(
        self,
        grid: Any,
        spectra: Any,
        points: Any,
        weights: NDArray[np.float64],
        turn: NDArray[np.complex64],
    ) -> None:
        """Add weighted spectra to a grid, always in the same order."""
        ...

    def images(self, grid: Any, radius: float, scale: float, out: NDArray[np.float32]) -> None:
        """Transform a grid in place and bring the first ``len(out)`` of its slices to the host."""
        ...

    def wait(self) -> None:
        """Let all work that was queued come to its end."""
        ...
