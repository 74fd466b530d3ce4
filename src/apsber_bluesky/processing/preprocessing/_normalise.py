"""From detector counts to line integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._arrays import array_namespace
from apsber_bluesky.processing.preprocessing._references import bad_pixels, open_beam
from apsber_bluesky.processing.preprocessing._repair import Repair

MINIMUM_TRANSMISSION = 1e-4
"""Least transmission that is told from zero: line integrals end at ``-log(1e-4) = 9.21``."""

# Counts that a compiled kernel takes as they come; others become float32 first.
_WHOLE_COUNTS = frozenset(np.dtype(name) for name in ("u1", "u2", "u4"))
_BLOCK_PIXELS = 1 << 18
# Open beam of pixels that are replaced anyway; it makes them opaque without dividing by zero.
_UNUSABLE = np.float32(1e30)


class Normaliser:
    """Turns projections into line integrals; prepared once, used for each chunk.

    Bad pixels are replaced by linear interpolation between the nearest good pixels of their row;
    a row without any good pixel repeats the nearest row that has some.

    NumPy arrays are normalised by compiled code in one pass over each frame, CuPy arrays on their
    GPU. A pixel's result depends on its own count alone, never on the chunk it came in.

    Parameters
    ----------
    dark : array_like
        Mean dark, shape ``(rows, columns)`` [counts].
    flat : array_like
        Mean flat, shape ``(rows, columns)``; or several that were taken at different times, shape
        ``(k, rows, columns)``, between which each projection's flat is interpolated [counts].
    bad : array_like of bool, optional
        Pixels to replace, shape ``(rows, columns)``; by default those that `bad_pixels` finds in
        any of the flats.
    minimum_transmission : float
        Transmission below which (and at negative counts) a pixel counts as opaque.
    flat_positions : array_like, optional
        When each of several flats was taken, rising, shape ``(k,)``; frame numbers or times.

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
        flat_positions: ArrayLike | None = None,
    ) -> None:
        if not 0 < minimum_transmission < 1:
            raise InputError(
                f"minimum_transmission is {minimum_transmission}; give a number between 0 and 1"
            )
        flats, self._positions = _flats_in_time(flat, flat_positions)
        gains = [open_beam(dark, each) for each in flats]
        self._bad = _bad_pixels(dark, flats) if bad is None else np.asarray(bad, dtype=np.bool_)
        if self._bad.shape != gains[0].shape:
            raise InputError(f"bad pixels have shape {self._bad.shape}, flats {gains[0].shape}")
        if self._bad.all():
            raise InputError("every pixel is marked as bad; correct the mask")
        self._dark = np.array(dark, dtype=np.float32, order="C")
        usable = ~self._bad & np.all([gain > 0 for gain in gains], axis=0)
        self._gains = [np.where(usable, gain, _UNUSABLE) for gain in gains]
        self._scale = np.zeros_like(gains[0])
        np.divide(np.float32(1), gains[0], out=self._scale, where=usable)
        self._minimum = np.float32(minimum_transmission)
        self._repair = Repair(self._bad)

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Pixels that are replaced, shape ``(rows, columns)``."""
        return self._bad

    def __call__(
        self,
        frames: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        *,
        positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Turn frames into line integrals.

        Parameters
        ----------
        frames : ndarray
            Projections, shape ``(n, rows, columns)`` [counts].
        out : ndarray of float32, optional
            Where to put the result; may be `frames` itself.
        positions : array_like, optional
            When each projection was taken, shape ``(n,)``, as `flat_positions`; needed if there
            are several flats. Before the first and after the last flat the nearest one holds.

        Returns
        -------
        ndarray of float32
            ``-log((frame - dark) / (flat - dark))``, shape ``(n, rows, columns)``, finite.

        Raises
        ------
        InputError
            If shapes, `out` or positions do not fit, or counts are NaN or infinite.
        """
        if frames.ndim != 3 or frames.shape[1:] != self._dark.shape:
            raise InputError(
                f"projections have shape {frames.shape}, darks and flats {self._dark.shape}; "
                "they must be of one camera, as (n, rows, columns)"
            )
        xp = array_namespace(frames)
        if out is None:
            out = xp.empty(frames.shape, dtype=np.float32)
        elif out.shape != frames.shape or out.dtype != np.float32:
            raise InputError(f"out is {out.dtype} {out.shape}; it must be float32 {frames.shape}")
        between = self._between(positions, len(frames))
        if xp is np:
            self._compiled(frames, out, between)
        else:
            self._on_arrays(xp, frames, out, between)
        self._repair(out)
        return out

    def _between(self, positions: ArrayLike | None, count: int) -> list[tuple[int, np.float32]]:
        """Number of the flat before each projection, and how far it is on the way to the next."""
        if len(self._gains) == 1:
            return [(0, np.float32(0))] * count
        if positions is None:
            raise InputError(
                f"there are {len(self._gains)} flats of different times; give the positions of the "
                "projections, too"
            )
        places = np.asarray(positions, dtype=np.float64)
        if places.shape != (count,) or not np.isfinite(places).all():
            raise InputError(
                f"positions have shape {places.shape} for {count} projections; give one finite "
                "number for each"
            )
        known = self._positions
        before = np.clip(np.searchsorted(known, places, side="right") - 1, 0, len(known) - 2)
        weights = (places - known[before]) / (known[before + 1] - known[before])
        return [
            (int(number), np.float32(weight))
            for number, weight in zip(before, np.clip(weights, 0, 1), strict=True)
        ]

    def _compiled(
        self,
        frames: NDArray[Any],
        out: NDArray[np.float32],
        between: list[tuple[int, np.float32]],
    ) -> None:
        # numba takes longer to import than all the rest of the package.
        from apsber_bluesky.processing.preprocessing import _normalise_kernels as kernels

        dark, scale, minimum = self._dark.reshape(-1), self._scale.reshape(-1), self._minimum
        gains = [gain.reshape(-1) for gain in self._gains]
        whole = frames.dtype in _WHOLE_COUNTS and frames.dtype.isnative and len(gains) == 1
        lines = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
        counts = _read_only(np.ascontiguousarray(frames).reshape(len(frames), dark.size))
        results = lines.reshape(len(frames), dark.size)
        wrong: set[int] = set()
        # A block of the references stays in the cache while all frames go by.
        for start in range(0, dark.size, _BLOCK_PIXELS):
            block = slice(start, start + _BLOCK_PIXELS)
            own = dark[block], scale[block], minimum
            for number, (place, weight) in enumerate(between):
                taken, result = counts[number, block], results[number, block]
                if whole:
                    kernels.lines_of_counts(taken, *own, result)
                    continue
                with np.errstate(over="ignore", invalid="ignore"):
                    np.copyto(result, taken, casting="unsafe")
                if len(gains) == 1:
                    bad = kernels.lines_in_place(result, *own)
                else:
                    light = gains[place][block], gains[place + 1][block]
                    bad = kernels.lines_between_flats(result, own[0], *light, weight, minimum)
                if bad:
                    wrong.add(number)
        if wrong:
            raise InputError(_not_finite(min(wrong)))
        if lines is not out:
            out[...] = lines

    def _on_arrays(
        self, xp: Any, frames: Any, out: Any, between: list[tuple[int, np.float32]]
    ) -> None:
        """The same with the functions of an array library, for arrays on a GPU."""
        dark, scale = xp.asarray(self._dark), xp.asarray(self._scale)
        gains = [xp.asarray(gain) for gain in self._gains] if len(self._gains) > 1 else []
        for number, (frame, result) in enumerate(zip(frames, out, strict=True)):
            counts = frame.astype(np.float32)
            if frames.dtype.kind == "f" and not bool(xp.isfinite(counts).all()):
                raise InputError(_not_finite(number))
            counts -= dark
            if gains:
                first, weight = between[number]
                counts /= gains[first] + weight * (gains[first + 1] - gains[first])
            else:
                counts *= scale
            xp.maximum(counts, self._minimum, out=counts)
            xp.negative(xp.log(counts), out=result)


def _flats_in_time(
    flat: ArrayLike, flat_positions: ArrayLike | None
) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """Flats one by one, and when each was taken."""
    flats = np.asarray(flat)
    if flats.ndim != 3:
        return [flats], np.zeros(1)
    if flat_positions is None:
        raise InputError(
            f"{len(flats)} flats were given; average them, or say by flat_positions when each was "
            "taken"
        )
    positions = np.asarray(flat_positions, dtype=np.float64)
    rising = np.isfinite(positions).all() and (np.diff(positions) > 0).all()
    if not len(flats) or positions.shape != (len(flats),) or not rising:
        raise InputError(
            f"flat_positions are {positions.tolist()} for {len(flats)} flats; give one rising, "
            "finite number for each"
        )
    return list(flats), positions


def _bad_pixels(dark: ArrayLike, flats: list[NDArray[Any]]) -> NDArray[np.bool_]:
    found = [bad_pixels(dark, flat) for flat in flats]
    return np.asarray(np.any(found, axis=0), dtype=np.bool_)


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    # Frames are lent read-only or own; seen as one kind, they need one compiled function.
    view = values.view()
    view.flags.writeable = False
    return view


def _not_finite(number: int) -> str:
    return f"projection {number} of the chunk holds NaN or infinite counts"


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
