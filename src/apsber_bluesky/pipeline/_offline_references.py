"""Darks and flats of a scan that is already on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.pipeline._offline_scan import Scan, saturation_of
from apsber_bluesky.processing import Normaliser, average_reference, bad_pixels

# References are averaged in blocks of rows of about this size.
_BLOCK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class References:
    """Mean dark, mean flat and bad pixels of some rows of the detector.

    Attributes
    ----------
    first_row : int
        Row of the detector that the first of these is.
    dark : ndarray of float32
        Mean, shape ``(rows, columns)`` [counts].
    flats : ndarray of float32
        Mean of the flats of each time they were taken at, shape ``(k, rows, columns)`` [counts].
    bad : ndarray of bool
        Pixels that are replaced by their neighbours.
    flat_times : tuple of float
        When the flats were taken, counted in projections; of no meaning for flats of one time.
    """

    first_row: int
    dark: NDArray[np.float32]
    flats: NDArray[np.float32]
    bad: NDArray[np.bool_]
    flat_times: tuple[float, ...] = (0.0,)

    @classmethod
    def measure(cls, scan: Scan, *, interpolated: bool = False) -> Self:
        """Average the darks and flats of a scan; a scan without darks has darks of 0.

        Pixels that are saturated in the flats are bad, beside those that `bad_pixels` finds.

        Parameters
        ----------
        scan : Scan
            The scan.
        interpolated : bool
            Whether flats that were taken at different times are averaged apart.

        Raises
        ------
        InputError
            If the flats are zero or nowhere brighter than the darks, or hold NaN, or nothing says
            when flats were taken that are to be interpolated.
        DataFileError
            If the file is damaged.
        """
        try:
            return cls._measure(scan, _flat_groups(scan) if interpolated else None)
        except InputError as error:
            raise InputError(f"{scan.path}: {error}") from error

    @classmethod
    def _measure(cls, scan: Scan, groups: dict[float, NDArray[np.intp]] | None) -> Self:
        shape = (scan.rows, scan.columns)
        parts = groups or {0.0: np.arange(scan.count(ImageKey.FLAT))}
        dark, mean = np.zeros(shape, np.float32), np.empty((len(parts), *shape), np.float32)
        saturated = np.zeros(shape, np.bool_)
        top = saturation_of(scan.dtype)
        flats, darks = scan.count(ImageKey.FLAT), scan.count(ImageKey.DARK)
        row_bytes = max(flats, darks) * scan.columns * (np.dtype(scan.dtype).itemsize + 8)
        step = scan.rows if scan.decodes_whole_frames else max(1, _BLOCK_BYTES // row_bytes)
        with scan.opened() as opened:
            for first in range(0, scan.rows, step):
                rows = range(first, min(first + step, scan.rows))
                place = slice(rows.start, rows.stop)
                if darks:
                    frames = opened.read(ImageKey.DARK, 0, darks, rows)
                    dark[place] = average_reference(frames, what="darks")
                frames = opened.read(ImageKey.FLAT, 0, flats, rows)
                mean[:, place] = _average_flats(frames, list(parts.values()))
                if top is not None:
                    saturated[place] = (frames == top).all(axis=0)
        for flat in mean:
            if not flat.any():
                # Says that they are zero.
                average_reference(flat[None], what="flats")
        if saturated.all():
            raise InputError("all flats are saturated; retake them")
        bad = np.any([bad_pixels(dark, flat) for flat in mean], axis=0)
        return cls(0, dark, mean, bad | saturated, tuple(parts))

    def normaliser(self) -> Normaliser:
        """What turns counts of these rows into line integrals."""
        if len(self.flats) == 1:
            return Normaliser(self.dark, self.flats[0], bad=self.bad)
        return Normaliser(self.dark, self.flats, bad=self.bad, flat_positions=self.flat_times)

    def rows_needed(self, rows: range) -> range:
        """Rows that repairing some rows needs: one without a good pixel repeats the nearest."""
        hopeless = np.asarray(self.bad.all(axis=1))
        good = np.flatnonzero(~hopeless)
        start, stop = rows.start, rows.stop
        for row in np.flatnonzero(hopeless[rows.start : rows.stop]) + rows.start:
            donor = int(good[np.argmin(np.abs(good - row))])
            start, stop = min(start, donor), max(stop, donor + 1)
        return range(start, stop)

    def cut(self, rows: range) -> References:
        """Those of some rows alone."""
        place = slice(rows.start - self.first_row, rows.stop - self.first_row)
        own = self.dark[place], self.flats[:, place], self.bad[place]
        return References(rows.start, *own, self.flat_times)

    @property
    def rows(self) -> range:
        """The rows of the detector that these are."""
        return range(self.first_row, self.first_row + len(self.dark))


def _flat_groups(scan: Scan) -> dict[float, NDArray[np.intp]]:
    """Flats of each time, by that time, in order.

    Raises
    ------
    InputError
        If the file does not say when flats were taken.
    """
    taken = scan.taken(ImageKey.FLAT)
    if taken is None or scan.taken(ImageKey.PROJECTION) is None:
        raise InputError(
            "the file does not say which flats were taken before and which after the projections,"
            " so they cannot be interpolated; use --flats average"
        )
    return {float(time): np.flatnonzero(taken == time) for time in np.unique(taken)}


def _average_flats(
    frames: NDArray[np.generic], groups: list[NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Mean of each group of flats, ``(k, rows, columns)``; some rows of flats may be dark."""
    means = []
    for group in groups:
        own = frames[group] if len(groups) > 1 else frames
        # Whether all are zero can only be asked of whole frames.
        means.append(average_reference(own, what="flats" if own.any() else "darks"))
    return np.stack(means)
