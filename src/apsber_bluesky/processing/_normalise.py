"""From detector counts to line integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._references import bad_pixels, open_beam

MINIMUM_TRANSMISSION = 1e-4
"""Least transmission that is told from zero: line integrals end at ``-log(1e-4) = 9.21``."""


class Normaliser:
    """Turns projections into line integrals; prepared once, used for each chunk.

    Bad pixels are replaced by linear interpolation between the nearest good pixels of their row;
    a row without any good pixel repeats the nearest row that has some.

    Parameters
    ----------
    dark, flat : array_like
        Mean dark and mean flat, shape ``(rows, columns)`` [counts].
    bad : array_like of bool, optional
        Pixels to replace, shape ``(rows, columns)``; by default those that `bad_pixels` finds.
    minimum_transmission : float
        Transmission below which (and at negative counts) a pixel counts as opaque.

    Raises
    ------
    InputError
        If a shape or value is wrong, or no pixel is good.
    """

    def __init__(
        self,
        dark: ArrayLike,
        flat: ArrayLike,
        *,
        bad: ArrayLike | None = None,
        minimum_transmission: float = MINIMUM_TRANSMISSION,
    ) -> None:
        if not 0 < minimum_transmission < 1:
            raise InputError(
                f"minimum_transmission is {minimum_transmission}; give a number between 0 and 1"
            )
        gain = open_beam(dark, flat)
        self._bad = bad_pixels(dark, flat) if bad is None else np.asarray(bad, dtype=np.bool_)
        if self._bad.shape != gain.shape:
            raise InputError(f"bad pixels have shape {self._bad.shape}, flats {gain.shape}")
        if self._bad.all():
            raise InputError("every pixel is marked as bad; correct the mask")
        self._dark = np.asarray(dark, dtype=np.float32)
        usable = ~self._bad & (gain > 0)
        self._scale = np.zeros_like(gain)
        np.divide(np.float32(1), gain, out=self._scale, where=usable)
        self._minimum = np.float32(minimum_transmission)
        self._repair = _Repair(self._bad)

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Pixels that are replaced, shape ``(rows, columns)``."""
        return self._bad

    def __call__(
        self, frames: NDArray[Any], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Turn frames into line integrals.

        Parameters
        ----------
        frames : ndarray
            Projections, shape ``(n, rows, columns)`` [counts].
        out : ndarray of float32, optional
            Where to put the result; may be `frames` itself.

        Returns
        -------
        ndarray of float32
            ``-log((frame - dark) / (flat - dark))``, shape ``(n, rows, columns)``, finite.

        Raises
        ------
        InputError
            If shapes or `out` do not fit, or counts are NaN or infinite.
        """
        if frames.ndim != 3 or frames.shape[1:] != self._dark.shape:
            raise InputError(
                f"projections have shape {frames.shape}, darks and flats {self._dark.shape}; "
                "they must be of one camera, as (n, rows, columns)"
            )
        if out is None:
            out = np.empty(frames.shape, dtype=np.float32)
        elif out.shape != frames.shape or out.dtype != np.float32:
            raise InputError(f"out is {out.dtype} {out.shape}; it must be float32 {frames.shape}")
        exact = frames.dtype.kind in "biu"
        for number, (frame, result) in enumerate(zip(frames, out, strict=True)):
            if not exact and not np.isfinite(frame).all():
                raise InputError(f"projection {number} of the chunk holds NaN or infinite counts")
            self._line_integrals(frame, result)
        self._repair(out)
        return out

    def _line_integrals(self, frame: NDArray[Any], result: NDArray[np.float32]) -> None:
        # One frame at a time stays in the cache; there is no temporary but the result itself.
        np.subtract(frame, self._dark, out=result, casting="unsafe", dtype=np.float32)
        result *= self._scale
        np.maximum(result, self._minimum, out=result)
        np.log(result, out=result)
        np.negative(result, out=result)


class _Repair:
    """Where each bad pixel takes its value from."""

    def __init__(self, bad: NDArray[np.bool_]) -> None:
        hopeless = np.asarray(bad.all(axis=1))
        good_rows = np.flatnonzero(~hopeless)
        self._rows = np.flatnonzero(hopeless)
        self._donors = np.array(
            [good_rows[np.argmin(np.abs(good_rows - row))] for row in self._rows], dtype=np.intp
        )
        rows, columns = np.nonzero(bad & ~hopeless[:, None])
        left, right = _good_neighbours(bad)
        self._place = (rows, columns)
        self._left = (rows, left[rows, columns])
        self._right = (rows, right[rows, columns])
        width = np.maximum(self._right[1] - self._left[1], 1)
        self._weight = ((columns - self._left[1]) / width).astype(np.float32)

    def __call__(self, images: NDArray[np.float32]) -> None:
        if len(self._weight):
            left, right = (images[:, r, c] for r, c in (self._left, self._right))
            images[:, self._place[0], self._place[1]] = left + self._weight * (right - left)
        if len(self._rows):
            images[:, self._rows] = images[:, self._donors]


def _good_neighbours(bad: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns of the nearest good pixel to the left and right; at an edge both are the same."""
    columns = bad.shape[1]
    index = np.broadcast_to(np.arange(columns), bad.shape)
    left = np.maximum.accumulate(np.where(bad, -1, index), axis=1)
    right = np.minimum.accumulate(np.where(bad, columns, index)[:, ::-1], axis=1)[:, ::-1]
    nearest_left = np.where(left < 0, right, left)
    nearest_right = np.where(right >= columns, left, right)
    return nearest_left, nearest_right


def normalise(
    frames: NDArray[Any],
    dark: ArrayLike,
    flat: ArrayLike,
    *,
    out: NDArray[np.float32] | None = None,
    bad: ArrayLike | None = None,
    minimum_transmission: float = MINIMUM_TRANSMISSION,
) -> NDArray[np.float32]:
    """Turn projections into line integrals; see `Normaliser`, which is faster chunk by chunk.

    Parameters
    ----------
    frames : ndarray
        Projections, shape ``(n, rows, columns)`` [counts].
    dark, flat : array_like
        Mean dark and mean flat, shape ``(rows, columns)`` [counts].
    out : ndarray of float32, optional
        Where to put the result; may be `frames` itself.
    bad : array_like of bool, optional
        Pixels to replace; by default those that `bad_pixels` finds.
    minimum_transmission : float
        Transmission below which (and at negative counts) a pixel counts as opaque.

    Returns
    -------
    ndarray of float32
        ``-log((frame - dark) / (flat - dark))``, shape ``(n, rows, columns)``, finite.

    Raises
    ------
    InputError
        If a shape or value is wrong, or no pixel is good.
    """
    prepared = Normaliser(dark, flat, bad=bad, minimum_transmission=minimum_transmission)
    return prepared(frames, out)
