"""Which pixels of a detector have the same background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

#: Pixels that the background of a ring is measured with.
_SAMPLES = 64
# A ring is cut where its share of the horizontal polarisation passes these steps.
_POLARISATION_STEPS = 4
#: With fewer pixels nothing can be said about a background.
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Rings:
    """Pixels at one distance from the beam, and with about the same polarisation.

    Attributes
    ----------
    ring : ndarray of uint16, shape (rows, columns)
        Number of each pixel's ring; pixels that are left out have the number `count`.
    count : int
        Number of rings.
    samples : ndarray of int32
        Numbers of pixels, ring by ring, that the background is measured with.
    starts : ndarray of int32, shape (count + 1,)
        Where each ring's begin in `samples`.
    """

    ring: NDArray[np.uint16]
    count: int
    samples: NDArray[np.int32]
    starts: NDArray[np.int32]

    @classmethod
    def around(
        cls, centre_px: tuple[float, float], usable: NDArray[np.bool_], radii: tuple[float, float]
    ) -> Self:
        """Rings of one pixel's width.

        Parameters
        ----------
        centre_px : tuple of float
            Row and column of the beam [pixel].
        usable : ndarray of bool, shape (rows, columns)
            Pixels that work.
        radii : tuple of float
            Smallest and largest radius that is looked at [pixel].
        """
        rows, columns = usable.shape
        y = (np.arange(rows, dtype=np.float64) - centre_px[0])[:, None]
        x = (np.arange(columns, dtype=np.float64) - centre_px[1])[None, :]
        squared = x**2 + y**2
        radius = np.sqrt(squared)
        share = np.divide(x**2, squared, out=np.zeros_like(squared), where=squared > 0)
        step = np.minimum((share * _POLARISATION_STEPS).astype(np.int64), _POLARISATION_STEPS - 1)
        wanted = usable & (radius >= radii[0]) & (radius <= radii[1])
        raw = np.where(wanted, np.rint(radius).astype(np.int64) * _POLARISATION_STEPS + step, -1)
        found, numbered = np.unique(raw.ravel(), return_inverse=True)
        sizes = np.bincount(numbered, minlength=len(found))
        kept = np.flatnonzero((sizes >= _FEWEST) & (found >= 0))[: np.iinfo(np.uint16).max - 1]
        names = np.full(len(found), len(kept), np.int64)
        names[kept] = np.arange(len(kept))
        ring = names[numbered]
        samples, starts = _samples(ring, len(kept))
        return cls(ring.reshape(usable.shape).astype(np.uint16), len(kept), samples, starts)


def _samples(ring: NDArray[np.int64], count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Up to `_SAMPLES` pixels of each ring, drawn by lot, always the same ones."""
    lot = np.random.default_rng(0).permutation(len(ring))
    ordered = lot[np.argsort(ring[lot], kind="stable")]
    sizes = np.bincount(ring, minlength=count + 1)[:count]
    begins = np.cumsum(sizes) - sizes
    place = np.arange(sizes.sum()) - np.repeat(begins, sizes)
    # Memory is read in order.
    taken = [np.sort(part) for part in _cut(ordered[: sizes.sum()][place < _SAMPLES], sizes)]
    starts = np.concatenate([[0], np.cumsum(np.minimum(sizes, _SAMPLES))])
    samples = np.concatenate(taken) if taken else np.zeros(0)
    return samples.astype(np.int32), starts.astype(np.int32)


def _cut(values: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(values, np.cumsum(np.minimum(sizes, _SAMPLES))[:-1]) if len(sizes) else []
