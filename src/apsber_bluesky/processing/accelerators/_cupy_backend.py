"""The device engine on CuPy: own CUDA kernels, cuFFT, three streams."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing.accelerators._backend import PAIRS
from apsber_bluesky.processing.accelerators._cupy_kernels import NAMES, SOURCE, THREADS, TILE
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry

_PAGE_LOCKED = 1  # cudaMemoryTypeHost


def cuda_devices() -> int:
    """Number of NVIDIA devices that the driver shows; asks the driver alone, which is quick."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def cupy_usable() -> bool:
    """Whether CuPy is installed and a device is there; CuPy itself is not imported."""
    return importlib.util.find_spec("cupy") is not None and cuda_devices() > 0


def device_bytes() -> int:
    """Memory of the first NVIDIA device; again only the driver is asked."""
    if not cuda_devices():
        return 0
    driver = ctypes.CDLL("libcuda.so.1")
    device, size = ctypes.c_int(0), ctypes.c_size_t(0)
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return 0
    if driver.cuDeviceTotalMem_v2(ctypes.byref(size), device):
        return 0
    return size.value


@dataclass
class _Slot:
    """One of two halves of a double buffer: page-locked memory and its twin on the device."""

    host: Any = None
    device: Any = None
    used: Any = None  # event: the compute stream has read, or the host may read
    sent: Any = None  # event: the copy between host and device is done
    wrong: Any = None  # page-locked: whether a value was not finite
    checked: Any = None  # event: `wrong` has arrived


@dataclass
class _Ring:
    slots: list[_Slot] = field(default_factory=lambda: [_Slot(), _Slot()])
    turn: int = 0

    def next(self) -> _Slot:
        self.turn = 1 - self.turn
        return self.slots[self.turn]


class CupyBackend:
    """A `DeviceBackend` on CuPy.

    One stream brings projections to the device, one computes, one brings slices back; each waits
    for another by events, never the host for all. Both ways go through two page-locked buffers in
    turn; memory that is page-locked already is copied from and to directly.

    Parameters
    ----------
    geometry : DeviceGeometry
        Lengths and tables.
    """

    def __init__(self, geometry: DeviceGeometry) -> None:
        import cupy
        import cupyx
        import cupyx.scipy.fft

        self._cupy, self._cupyx, self._fft = cupy, cupyx, cupyx.scipy.fft
        self._geometry = geometry
        module = cupy.RawModule(code=SOURCE, options=("--std=c++17",))
        self._kernels = {name: module.get_function(name) for name in NAMES}
        self._up, self._work, self._down = (cupy.cuda.Stream(non_blocking=True) for _ in range(3))
        self._uploads, self._downloads = _Ring(), _Ring()
        self._coming: list[tuple[_Slot, NDArray[np.float32]]] = []
        with self._work:
            self._response = cupy.asarray(geometry.response)
            self._correction = cupy.asarray(geometry.correction)
            self._tiles = cupy.asarray(geometry.tiles(TILE))
        self._work.synchronize()

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """Exceptions that say that the device's memory is used up."""
        return (self._cupy.cuda.memory.OutOfMemoryError,)

    def free_bytes(self) -> int:
        """Memory that can still be taken on the device."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give unused memory back, with the plans that hold workspace."""
        self._work.synchronize()
        self._cupy.fft.config.get_plan_cache().clear()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def spectra(self, pairs: int, projections: int, *, host: bool) -> Any:
        """Make empty spectra on the device, or in the memory of the host."""
        shape = (pairs, projections, self._geometry.period)
        if host:
            return np.zeros(shape, dtype=np.complex64)
        with self._work:
            return self._cupy.zeros(shape, dtype=np.complex64)

    def store(self, spectra: Any, first: int, chunk: Any) -> None:
        """Put filtered projections at their place."""
        with self._work:
            target = spectra[:, first : first + chunk.shape[1]]
            target[...] = chunk.get() if isinstance(spectra, np.ndarray) else chunk

    def clear(self, spectra: Any, first: int, stop: int) -> None:
        """Make the spectra of some projections 0 again."""
        with self._work:
            spectra[:, first:stop] = 0

    def part(self, spectra: Any, pairs: slice) -> Any:
        """Spectra of some pairs, on the device."""
        with self._work:
            return self._cupy.asarray(spectra[pairs])

    def grid(self, pairs: int) -> Any:
        """Make an empty grid for each pair."""
        with self._work:
            shape = (pairs, self._geometry.size, self._geometry.size)
            return self._cupy.zeros(shape, dtype=np.complex64)

    def copy(self, grid: Any, pairs: slice) -> Any:
        """Copy the grids of some pairs."""
        with self._work:
            return grid[pairs].copy()

    def filtered(self, projections: NDArray[np.float32], pairs: int) -> tuple[Any, bool]:
        """Spectra of ramp-filtered projections, and whether all values were finite."""
        geometry = self._geometry
        n, slices, columns = projections.shape
        slot = self._upload(projections)
        with self._work:
            rows = self._cupy.empty((pairs, n, geometry.padded), dtype=np.complex64)
            given = slot.device[: projections.size]
            lengths = _integers(pairs, n, slices, columns, geometry.padded)
            wrong = self._cupy.zeros(1, dtype=np.int32)
            self._launch("pack", rows.size, given, rows, wrong, *lengths)
            wrong.get(out=slot.wrong, blocking=False)
            slot.used = slot.checked = self._work.record()
            rows = self._fft.fft(rows, axis=-1, overwrite_x=True)
            total, padded = np.int64(rows.size), np.int32(geometry.padded)
            self._launch("scale", rows.size, rows, self._response, total, padded)
            rows = self._fft.ifft(rows, axis=-1, norm="forward", overwrite_x=True)
            shorter = self._cupy.empty((pairs, n, geometry.period), dtype=np.complex64)
            lengths = _integers(columns, geometry.padded, geometry.period)
            self._launch("cut", shorter.size, rows, shorter, np.int64(shorter.size), *lengths)
            spectra = self._fft.fft(shorter, axis=-1, overwrite_x=True)
        # Waits for the copy, so the caller may write to `projections` again; the transforms that
        # were queued go on meanwhile with the next piece's copy.
        slot.checked.synchronize()
        return spectra, not slot.wrong[0]

    def points(self, steps: NDArray[np.float64]) -> Any:
        """Steps of the projections on the device; the kernel works out the rest."""
        with self._work:
            return self._cupy.asarray(steps)

    def spread(
        self,
        grid: Any,
        spectra: Any,
        points: Any,
        weights: NDArray[np.float64],
        turn: NDArray[np.complex64],
    ) -> None:
        """Add weighted spectra to a grid; the order of the additions is fixed."""
        pairs, angles, period = spectra.shape
        with self._work:
            spectra = self._cupy.ascontiguousarray(spectra)
            weight = self._cupy.asarray(weights, dtype=np.float32)
            arguments = (spectra, points, weight, self._cupy.asarray(turn), self._tiles, grid)
            lengths = (*_integers(pairs, angles), np.int64(angles * period))
            lengths = (*lengths, *_integers(period, self._geometry.size))
            beta = np.float32(self._geometry.beta)
            blocks = (len(self._tiles), pairs // PAIRS)
            self._kernels["spread"](blocks, (THREADS,), (*arguments, *lengths, beta))

    def images(self, grid: Any, radius: float, scale: float, out: NDArray[np.float32]) -> None:
        """Transform a grid in place and start to bring its slices to the host."""
        geometry = self._geometry
        columns = geometry.columns
        slot = self._downloads.next()
        self._collect(slot)
        with self._work:
            grid = self._fft.ifft2(grid, axes=(-2, -1), norm="forward", overwrite_x=True)
            # What this slot held was collected, so its memory can be written again.
            slot.device = self._room(slot.device, 2 * len(grid) * columns**2)
            lengths = _integers(len(grid), columns, geometry.size)
            limits = (np.float32(radius**2), np.float32(scale))
            arguments = (grid, self._correction, slot.device, *lengths, *limits)
            self._launch("crop", len(grid) * columns**2, *arguments)
            slot.used = self._work.record()
        self._down.wait_event(slot.used)
        with self._down:
            images = slot.device[: out.size]
            if self._page_locked(out):
                images.get(out=out.reshape(-1), blocking=False)
            else:
                slot.host = self._locked_room(slot.host, out.size)
                images.get(out=slot.host[: out.size], blocking=False)
            slot.sent = self._down.record()
        self._coming.append((slot, out))

    def wait(self) -> None:
        """Let all slices arrive."""
        while self._coming:
            self._collect(self._coming[0][0])

    def _upload(self, projections: NDArray[np.float32]) -> _Slot:
        slot = self._uploads.next()
        if slot.sent is not None:
            slot.sent.synchronize()
        if slot.wrong is None:
            slot.wrong = self._cupyx.zeros_pinned(1, dtype=np.int32)
        source = np.ascontiguousarray(projections, dtype=np.float32).reshape(-1)
        if not self._page_locked(source):
            slot.host = self._locked_room(slot.host, source.size)
            slot.host[: source.size] = source
            source = slot.host[: source.size]
        if slot.device is None or slot.device.size < source.size:
            if slot.used is not None:
                slot.used.synchronize()
            with self._up:
                slot.device = self._room(slot.device, source.size)
        with self._up:
            if slot.used is not None:
                self._up.wait_event(slot.used)
            slot.device[: source.size].set(source, stream=self._up)
            slot.sent = self._up.record()
        self._work.wait_event(slot.sent)
        return slot

    def _collect(self, slot: _Slot) -> None:
        """Bring what a slot still holds to where it belongs."""
        for entry in [entry for entry in self._coming if entry[0] is slot]:
            slot.sent.synchronize()
            if not self._page_locked(entry[1]):
                entry[1].reshape(-1)[:] = slot.host[: entry[1].size]
            self._coming.remove(entry)

    def _launch(self, name: str, items: int, *arguments: Any) -> None:
        self._kernels[name]((-(-items // THREADS),), (THREADS,), arguments)

    def _room(self, array: Any, size: int) -> Any:
        if array is not None and array.size >= size:
            return array
        return self._cupy.empty(size, dtype=np.float32)

    def _locked_room(self, array: Any, size: int) -> Any:
        if array is not None and array.size >= size:
            return array
        return self._cupyx.empty_pinned(size, dtype=np.float32)

    def _page_locked(self, array: NDArray[np.float32]) -> bool:
        attributes = self._cupy.cuda.runtime.pointerGetAttributes(array.ctypes.data)
        return bool(attributes.type == _PAGE_LOCKED)


def _integers(*values: int) -> tuple[Any, ...]:
    """Lengths as the ``int`` of a kernel."""
    return tuple(np.int32(value) for value in values)
