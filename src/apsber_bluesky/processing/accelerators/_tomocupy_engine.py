"""TomocuPy's Fourier reconstruction for one-shot work, where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._engine_scan import EngineScan
from apsber_bluesky.processing._filters import check_filter, ramp_filter
from apsber_bluesky.processing.accelerators._cupy_backend import cuda_devices

_SLICES = 16
# A disc of attenuation 1 away from the middle shows the scale and the way y points.
_RADIUS, _PLACE = 0.12, (0.15, 0.2)


class TomocupyEngine(EngineScan):
    """Adapter of TomocuPy's ``FBPFilter`` and ``FourierRec``; see `create_engine`.

    TomocuPy (V. Nikitin, J. Synchrotron Rad. 30 (2023) 179) comes from conda-forge. Its classes
    work on sinograms of a whole scan, so projections are only collected until `finish`. It counts
    every projection alike; here each is weighted first, so that any list of angles is right. Its
    scale and the direction of its y axis are not documented: they are measured once, on a disc
    that is known exactly, and if the disc is not found where it should be the engine refuses to
    work. It has not run on a device yet.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel]; `columns` must be even.
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    filter_name : str
        Window of the ramp filter.
    threads : int
        Not used: the device does the work.
    """

    name = "tomocupy"

    def __init__(
        self, rows: int, columns: int, angles_deg: ArrayLike, filter_name: str, threads: int
    ) -> None:
        check_filter(filter_name)
        if columns % 2:
            raise InputError(
                f"TomocuPy takes an even number of columns, not {columns}; cut one off or choose "
                "another engine"
            )
        super().__init__(rows, columns, angles_deg, threads)
        self._sinograms = np.zeros((rows, len(self._angles), columns), dtype=np.float32)
        self._filter_name = filter_name
        self._solver: tuple[Any, Any, Any] | None = None
        self._scale: tuple[float, bool] | None = None

    @staticmethod
    def usable() -> bool:
        """Whether TomocuPy and CuPy are installed and there is a device."""
        present = all(importlib.util.find_spec(name) is not None for name in ("tomocupy", "cupy"))
        return present and cuda_devices() > 0

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory of the host: the sinograms, and one slab of them."""
        del threads
        return (rows + 2 * _SLICES) * projections * columns * 4

    def accumulate(self, projections: NDArray[np.float32], first: int) -> None:
        """Keep line integrals of projections ``first`` to ``first + n``; see `create_engine`."""
        with self._lock:
            self._check_chunk(projections, first)
            self._check_values(projections, first)
            stop = first + len(projections)
            self._sinograms[:, first:stop] = projections.swapaxes(0, 1)
            self._seen[first:stop] = True

    def finish(self, slices: slice, centre: float) -> NDArray[np.float32]:
        """Attenuation [1/pixel] of some slices, shape ``(n, size, size)``."""
        wanted = self._wanted(slices)
        self._check_centre(centre)
        volume = np.empty((len(wanted), self._columns, self._columns), dtype=np.float32)
        with self._lock:
            if self._scale is None:
                self._scale = self._measured_scale()
            scale, upside_down = self._scale
            for start in range(0, len(wanted), _SLICES):
                numbers = list(wanted[start : start + _SLICES])
                raw = self._solve(self._sinograms[numbers], self._weights, centre)
                images = raw[:, ::-1] if upside_down else raw
                volume[start : start + len(numbers)] = images * scale
        volume[:, outside(self._columns, self._field_radius(centre))] = 0
        return volume

    def _measured_scale(self) -> tuple[float, bool]:
        middle = self._columns / 2
        sinogram = disc_sinogram(self._angles, self._columns, middle)
        # The whole scan, also when projections are missing by now.
        weights = np.full(len(self._angles), np.pi / len(self._angles))
        return scale_of_disc(self._solve(sinogram[None], weights, middle)[0])

    def _solve(
        self, sinograms: NDArray[np.float32], weights: NDArray[np.float64], centre: float
    ) -> NDArray[np.float32]:
        import cupy

        if self._solver is None:
            self._solver = self._classes(cupy)
        filters, rebuilds, response = self._solver
        slab = slab_of(sinograms, weights)
        length, before = 4 * self._columns, 4 * self._columns // 2 - self._columns // 2
        padded = np.pad(slab, ((0, 0), (0, 0), (before, length - before - self._columns)), "edge")
        turned = response * cupy.asarray(phase(length, self._columns, centre))
        factor = cupy.tile(turned.astype("complex64"), (_SLICES, 1))
        data = cupy.asarray(padded)
        stream = cupy.cuda.get_current_stream()
        filters.filter(data, factor, stream)
        cut = cupy.ascontiguousarray(data[:, :, before : before + self._columns])
        images = cupy.zeros((_SLICES, self._columns, self._columns), dtype="float32")
        rebuilds.backprojection(images, cut, stream)
        result: NDArray[np.float32] = images[: len(sinograms)].get()
        return result

    def _classes(self, cupy: Any) -> tuple[Any, Any, Any]:
        newer = importlib.util.find_spec("tomocupy.reconstruction") is not None
        home = "tomocupy.reconstruction" if newer else "tomocupy"
        filters = importlib.import_module(f"{home}.fbp_filter").FBPFilter
        rebuilds = importlib.import_module(f"{home}.fourierrec").FourierRec
        projections = len(self._angles)
        made = filters(4 * self._columns, projections, _SLICES, "float32")
        theta = cupy.asarray(np.deg2rad(self._angles), dtype="float32")
        solver = rebuilds(self._columns, projections, _SLICES, theta, "float32")
        # The suite's own response, so that a window means the same with every engine.
        response = ramp_filter(4 * self._columns, self._filter_name)[: 2 * self._columns + 1]
        return made, solver, cupy.asarray(response)


def slab_of(sinograms: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sinograms, weighted, in a slab of 16: the classes are made for one even number of them."""
    slab = np.zeros((_SLICES, *sinograms.shape[1:]), dtype=np.float32)
    slab[: len(sinograms)] = sinograms * weights.astype(np.float32)[None, :, None]
    return slab


def phase(length: int, columns: int, centre: float) -> NDArray[np.complex64]:
    """Factor of the frequencies of a real FFT that moves the axis to column ``columns / 2``."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(length) * (columns / 2 - centre))
    return np.asarray(turn, dtype=np.complex64)


def outside(columns: int, radius: float) -> NDArray[np.bool_]:
    """Pixels that leave the field of view at some angle."""
    axis = np.arange(columns) - columns // 2
    return np.asarray(axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2)


def disc_sinogram(
    angles_deg: NDArray[np.float64], columns: int, centre: float
) -> NDArray[np.float32]:
    """Exact line integrals of the test disc, shape ``(n, columns)``."""
    theta = np.deg2rad(angles_deg)[:, None]
    x, y = _PLACE[0] * columns, _PLACE[1] * columns
    middle = centre + x * np.cos(theta) + y * np.sin(theta)
    half = (_RADIUS * columns) ** 2 - (np.arange(columns)[None, :] - middle) ** 2
    return (2 * np.sqrt(np.maximum(0, half))).astype(np.float32)


def scale_of_disc(image: NDArray[np.float32]) -> tuple[float, bool]:
    """Factor that makes the test disc 1, and whether the picture is upside down.

    Raises
    ------
    InputError
        If the disc is not within a pixel of its place, or its mirrored one.
    """
    columns = image.shape[1]
    axis = np.arange(columns) - columns // 2
    bright = np.where(image > 0.5 * image.max(), image, 0).astype(np.float64)
    x, y = (bright.sum(axis=a) @ axis / max(bright.sum(), 1e-30) for a in (0, 1))
    wanted_x, wanted_y = _PLACE[0] * columns, _PLACE[1] * columns
    if abs(x - wanted_x) > 1 or abs(abs(y) - wanted_y) > 1:
        raise InputError(
            f"TomocuPy draws the test disc at ({x:.1f}, {y:.1f}), not at ({wanted_x:.1f}, "
            f"{wanted_y:.1f}): its conventions have changed; choose another engine"
        )
    distance = np.hypot(axis[None, :] - x, axis[:, None] - y)
    return 1 / float(image[distance < 0.6 * _RADIUS * columns].mean()), bool(y < 0)
