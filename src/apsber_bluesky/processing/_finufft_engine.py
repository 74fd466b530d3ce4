"""Filtered back-projection as one non-uniform Fourier transform per pair of slices."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.processing._engine_scan import EngineScan
from apsber_bluesky.processing._filters import check_filter, ramp_filter
from apsber_bluesky.processing._lengths import cut_length, padded_length

_TOLERANCE = 1e-4


class FinufftEngine(EngineScan):
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
        super().__init__(rows, columns, angles_deg, threads)
        self._padded = padded_length(columns)
        self._period = cut_length(columns)
        self._filter = ramp_filter(self._padded, filter_name)
        self._spectra = np.zeros(
            ((rows + 1) // 2, len(self._angles), self._period), dtype=np.complex64
        )
        self._frequencies = scipy.fft.fftfreq(self._period)
        self._plans: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._points: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory that the engine needs: its spectra, and the workspace of each thread."""
        samples = projections * cut_length(columns)
        spectra = (rows + 1) // 2 * samples * 8
        # Sorted indices, folded points and strengths; image and oversampled grid.
        workspace = samples * (8 + 8 + 8) + columns**2 * 8 * (1 + 4)
        return spectra + samples * (8 + 8) + threads * workspace

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
            self._check_values(projections, first)
            numbers = range(first, first + len(projections))
            tasks = zip(projections, numbers, strict=True)
            self._each(lambda task: self._filter_projection(*task), tasks)
            self._seen[first : first + len(projections)] = True

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
        self._check_centre(centre)
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

    def _outside(self, centre: float) -> NDArray[np.bool_]:
        """Pixels that leave the field of view at some angle."""
        axis = np.arange(self._columns) - self._columns // 2
        radius = self._field_radius(centre)
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
