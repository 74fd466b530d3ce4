"""Filtered back-projection as one non-uniform Fourier transform per pair of slices."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._filters import check_filter, ramp_filter
from apsber_bluesky.processing._weights import angular_weights, check_angles

_TOLERANCE = 1e-4
_CROP = 1.125


class FinufftEngine:
    """Fourier reconstruction on finufft; see `create_engine`.

    Each detector row is ramp-filtered as it arrives (zero-padded to twice its length), cut back
    to 1.125 of its length and kept as a spectrum; two slices share one complex spectrum as its
    real and imaginary part. `finish` turns the spectra about the rotation centre and sums them
    on the image grid by a type-1 non-uniform FFT (Barnett, Magland and af Klinteberg, SIAM J.
    Sci. Comput. 41 (2019) C479). Pixels that are not in the field of view at every angle are 0.

    Each projection is filtered on its own and each pair of slices is transformed by one thread,
    so the volume does not depend, bit by bit, on chunks, their order or the number of threads.

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
    """

    name = "finufft"

    def __init__(
        self, rows: int, columns: int, angles_deg: ArrayLike, filter_name: str, threads: int
    ) -> None:
        check_filter(filter_name)
        self._rows, self._columns, self._threads = rows, columns, threads
        self._angles = check_angles(angles_deg)
        self._weights = angular_weights(self._angles)
        self._padded = _padded_length(columns)
        self._period = _period(columns)
        self._filter = ramp_filter(self._padded, filter_name)
        self._seen = np.zeros(len(self._angles), dtype=np.bool_)
        self._spectra = np.zeros(
            ((rows + 1) // 2, len(self._angles), self._period), dtype=np.complex64
        )
        self._frequencies = scipy.fft.fftfreq(self._period)
        self._lock = threading.Lock()
        self._plans: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._points: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory that the engine needs: its spectra, and the workspace of each thread."""
        samples = projections * _period(columns)
        spectra = (rows + 1) // 2 * samples * 8
        # Sorted indices, folded points and strengths; image and oversampled grid.
        workspace = samples * (8 + 8 + 8) + columns**2 * 8 * (1 + 4)
        return spectra + samples * (8 + 8) + threads * workspace

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(slices, size, size)`` of the volume."""
        return self._rows, self._columns, self._columns

    @property
    def accumulated(self) -> int:
        """Projections seen so far."""
        return int(np.count_nonzero(self._seen))

    @property
    def missing(self) -> list[int]:
        """Numbers of the projections not seen so far."""
        return [int(number) for number in np.flatnonzero(~self._seen)]

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
            numbers = range(first, first + len(projections))
            tasks = zip(projections, numbers, strict=True)
            self._each(lambda task: self._filter_projection(*task), tasks)
            self._seen[first : first + len(projections)] = True

    def give_up_missing(self) -> list[int]:
        """Share the weight of the projections not seen among their neighbours.

        To be called when no more projections will come and some were lost; without it the
        missing ones count as empty and the attenuation comes out too low.

        Returns
        -------
        list of int
            Numbers of the projections given up.

        Raises
        ------
        InputError
            If no projection was seen at all.
        """
        with self._lock:
            if not self._seen.any():
                raise InputError("no projection has arrived; there is nothing to reconstruct from")
            weights = np.zeros(len(self._angles))
            weights[self._seen] = angular_weights(self._angles[self._seen])
            self._weights = weights
            return self.missing

    def finish(self, slices: slice, centre: float) -> NDArray[np.float32]:
        """Reconstruct some slices from the projections seen so far.

        Parameters
        ----------
        slices : slice
            Which slices.
        centre : float
            Column of the rotation axis [pixel].

        Returns
        -------
        ndarray of float32
            Attenuation [1/pixel], shape ``(n, size, size)``.

        Raises
        ------
        InputError
            If the centre lies outside the frame or there are no such slices.
        """
        wanted = self._wanted(slices)
        if not 0 <= centre <= self._columns - 1:
            raise InputError(
                f"centre {centre} lies outside the frame of {self._columns} columns; "
                f"give a column between 0 and {self._columns - 1}"
            )
        turn = np.exp(2j * np.pi * centre * self._frequencies) / self._period
        factors = self._weights.astype(np.float32)[:, None] * turn.astype(np.complex64)
        outside = self._outside(centre)
        volume = np.empty((len(wanted), self._columns, self._columns), dtype=np.float32)
        places: dict[int, list[tuple[int, int]]] = {}
        for index, number in enumerate(wanted):
            places.setdefault(number // 2, []).append((index, number % 2))

        def transform(pair: int) -> None:
            image = self._image(pair, factors)
            image[outside] = 0
            for index, part in places[pair]:
                volume[index] = image.imag if part else image.real

        self._each(transform, places)
        return volume

    def _check_chunk(self, projections: NDArray[np.float32], first: int) -> None:
        expected = (self._rows, self._columns)
        if projections.ndim != 3 or projections.shape[1:] != expected:
            raise InputError(
                f"projections have shape {projections.shape}; this engine takes (n, rows, "
                f"columns) = (n, {self._rows}, {self._columns})"
            )
        stop = first + len(projections)
        if first < 0 or stop > len(self._angles):
            raise InputError(
                f"projections {first} to {stop - 1} do not fit a scan of {len(self._angles)} "
                f"(0 to {len(self._angles) - 1})"
            )
        again = first + np.flatnonzero(self._seen[first:stop])
        if len(again):
            raise InputError(f"projection {again[0]} was accumulated before; give each once")
        for number, projection in enumerate(projections, first):
            if not np.isfinite(projection).all():
                raise InputError(
                    f"projection {number} holds NaN or infinite line integrals; normalise it first"
                )

    def _filter_projection(self, projection: NDArray[np.float32], number: int) -> None:
        pairs = self._spectra.shape[0]
        rows = np.zeros((pairs, self._padded), dtype=np.complex64)
        rows.real[:, : self._columns] = projection[0::2]
        rows.imag[: self._rows // 2, : self._columns] = projection[1::2]
        filtered = scipy.fft.fft(rows, axis=-1, overwrite_x=True)
        filtered *= self._filter
        filtered = scipy.fft.ifft(filtered, axis=-1, overwrite_x=True)
        # Beyond the detector the filtered row has a tail; what is cut off is never looked at.
        before = (self._period - self._columns) // 2
        after = self._period - before
        cut = np.empty((pairs, self._period), dtype=np.complex64)
        cut[:, :after] = filtered[:, :after]
        cut[:, after:] = filtered[:, self._padded - before :]
        self._spectra[:, number] = scipy.fft.fft(cut, axis=-1, overwrite_x=True)

    def _wanted(self, slices: slice) -> range:
        wanted = range(self._rows)[slices]
        if not len(wanted):
            raise InputError(f"no slices in {slices}; the volume has {self._rows}")
        return wanted

    def _outside(self, centre: float) -> NDArray[np.bool_]:
        """Pixels that leave the field of view at some angle."""
        axis = np.arange(self._columns) - self._columns // 2
        radius = min(centre, self._columns - 1 - centre) + 0.5
        return np.asarray(axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2)

    def _image(self, pair: int, factors: NDArray[np.complex64]) -> NDArray[np.complex64]:
        plan = self._borrow_plan()
        try:
            strengths = (self._spectra[pair] * factors).ravel()
            image: NDArray[np.complex64] = plan.execute(strengths)
        finally:
            self._plans.put(plan)
        return image

    def _borrow_plan(self) -> Any:
        try:
            return self._plans.get_nowait()
        except queue.Empty:
            return self._new_plan()

    def _new_plan(self) -> Any:
        import finufft

        if self._points is None:
            theta = np.deg2rad(self._angles)[:, None]
            omega = 2 * np.pi * self._frequencies[None, :]
            down = (omega * np.sin(theta)).astype(np.float32).ravel()
            across = (omega * np.cos(theta)).astype(np.float32).ravel()
            self._points = (down, across)
        size = (self._columns, self._columns)
        plan = finufft.Plan(1, size, eps=_TOLERANCE, isign=1, dtype="complex64", nthreads=1)
        plan.setpts(*self._points)
        return plan

    def _each(self, work: Callable[[Any], None], tasks: Iterable[Any]) -> None:
        if self._threads == 1:
            for task in tasks:
                work(task)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(work, tasks):
                pass


def _padded_length(columns: int) -> int:
    length = int(scipy.fft.next_fast_len(2 * columns))
    while length % 2:
        length = int(scipy.fft.next_fast_len(length + 1))
    return length


def _period(columns: int) -> int:
    """Length of the cut rows: odd, since a Nyquist frequency would mix the slices of a pair."""
    length = math.ceil(_CROP * columns) | 1
    while scipy.fft.next_fast_len(length) != length:
        length += 2
    return length
