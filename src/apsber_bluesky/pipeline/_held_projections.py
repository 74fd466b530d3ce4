"""Projections that wait for the last one, since stripes show in whole sinograms only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, TomographyScan
from apsber_bluesky.processing import (
    free_memory,
    remove_stripes_by_sorting,
    remove_stripes_by_wavelet,
)

#: How stripes are removed, by the name that profiles give it.
STRIPE_METHODS: dict[str, Callable[[NDArray[np.float32]], None]] = {
    "sorting": remove_stripes_by_sorting,
    "wavelet": remove_stripes_by_wavelet,
}
_SLAB_ROWS = 16
_GIGABYTE = 1e9


class HeldProjections:
    """Keeps the line integrals of a scan, and removes stripes from its sinograms.

    Parameters
    ----------
    scan : TomographyScan
        Size of the scan.
    method : {"sorting", "wavelet"}
        How stripes are removed.

    Raises
    ------
    InputError
        If memory would not suffice.
    """

    def __init__(self, scan: TomographyScan, method: Literal["sorting", "wavelet"]) -> None:
        shape = (scan.num_projections, scan.rows, scan.columns)
        needed, free = 4 * int(np.prod(shape)), free_memory()
        if needed > free:
            raise InputError(
                f"removing stripes keeps all projections: {needed / _GIGABYTE:.1f} GB, "
                f"{free / _GIGABYTE:.1f} GB are free; set processing.stripes to none, and remove "
                "them offline"
            )
        self._remove = STRIPE_METHODS[method]
        self._lines = np.zeros(shape, np.float32)

    def keep(self, projections: NDArray[np.float32], first: int) -> None:
        """Keep projections ``first`` to ``first + n``."""
        self._lines[first : first + len(projections)] = projections

    def without_stripes(self, numbers: list[int]) -> NDArray[np.float32]:
        """All projections, without the stripes of those that count.

        Parameters
        ----------
        numbers : list of int
            Projections that are there, rising; the others play no part.

        Returns
        -------
        ndarray of float32
            Shape ``(projections, rows, columns)``.
        """
        whole = len(numbers) == len(self._lines)
        for top in range(0, self._lines.shape[1], _SLAB_ROWS):
            rows = slice(top, top + _SLAB_ROWS)
            part = self._lines[:, rows] if whole else self._lines[numbers, rows]
            self._remove(part)
            if not whole:
                self._lines[numbers, rows] = part
        return self._lines
