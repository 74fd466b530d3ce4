"""The device engine on torch, for accelerators that CuPy does not reach."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing._free_memory import free_memory
from apsber_bluesky.processing.accelerators._backend import PAIRS
from apsber_bluesky.processing.accelerators._geometry import WIDTH, DeviceGeometry

_BLOCK = 64
# Where Linux shows the accelerators that torch is for: AMD's, and Intel's.
_ACCELERATORS = (Path("/dev/kfd"), Path("/dev/dri"))


def torch_accelerator() -> str | None:
    """Device that torch alone can use here: Intel's ``"xpu"``, AMD's ``"cuda"``, or none.

    Torch is only imported where the system shows such a device.
    """
    if importlib.util.find_spec("torch") is None or not any(p.exists() for p in _ACCELERATORS):
        return None
    import torch

    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return "xpu"
    return "cuda" if torch.version.hip and torch.cuda.is_available() else None


def best_torch_device() -> str:
    """Device that torch should work on: any accelerator it has, else the processor."""
    import torch

    return torch_accelerator() or ("cuda" if torch.cuda.is_available() else "cpu")


class TorchBackend:
    """A `DeviceBackend` on torch, with the slices innermost and `index_add_` for gridding.

    Parameters
    ----------
    geometry : DeviceGeometry
        Lengths and tables.
    device : str
        Any torch device with complex numbers, such as ``"cpu"``, ``"cuda"`` or ``"xpu"``. On a
        GPU `index_add_` adds in any order, so bits are only the same from run to run on ``"cpu"``
        or after ``torch.use_deterministic_algorithms(True)``.
    """

    def __init__(self, geometry: DeviceGeometry, device: str) -> None:
        import torch

        self._torch, self._geometry, self._device = torch, geometry, torch.device(device)
        self._response = self._from_host(geometry.response)

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """Exceptions that say that the device's memory is used up."""
        return (self._torch.OutOfMemoryError, MemoryError)

    def free_bytes(self) -> int:
        """Memory that can still be taken on the device."""
        if self._device.type in ("cuda", "xpu"):
            module = getattr(self._torch, self._device.type)
            return int(module.mem_get_info(self._device)[0])
        return free_memory()

    def release(self) -> None:
        """Give unused memory back."""
        if self._device.type in ("cuda", "xpu"):
            getattr(self._torch, self._device.type).empty_cache()

    def wait(self) -> None:
        """Results are brought to the host as they are made."""

    def spectra(self, pairs: int, projections: int, *, host: bool) -> Any:
        """Make empty spectra on the device, or in the memory of the host."""
        shape = (pairs, projections, self._geometry.period)
        device = "cpu" if host else self._device
        return self._torch.zeros(shape, dtype=self._torch.complex64, device=device)

    def store(self, spectra: Any, first: int, chunk: Any) -> None:
        """Put filtered projections at their place."""
        spectra[:, first : first + chunk.shape[1]].copy_(chunk)

    def clear(self, spectra: Any, first: int, stop: int) -> None:
        """Make the spectra of some projections 0 again."""
        spectra[:, first:stop] = 0

    def part(self, spectra: Any, pairs: slice) -> Any:
        """Spectra of some pairs, on the device."""
        return spectra[pairs].to(self._device)

    def grid(self, pairs: int) -> Any:
        """Make an empty grid for each pair, shape ``(blocks, size * size, 16)``."""
        shape = (pairs // PAIRS, self._geometry.size**2, 2 * PAIRS)
        return self._torch.zeros(shape, dtype=self._torch.float32, device=self._device)

    def copy(self, grid: Any, pairs: slice) -> Any:
        """Copy the grids of some pairs."""
        return grid[pairs.start // PAIRS : pairs.stop // PAIRS].clone()

    def filtered(self, projections: NDArray[np.float32], pairs: int) -> tuple[Any, bool]:
        """Spectra of ramp-filtered projections, and whether all values were finite."""
        torch, geometry = self._torch, self._geometry
        given = self._from_host(projections).transpose(0, 1)
        slices, n, columns = given.shape
        rows = torch.zeros((pairs, n, geometry.padded, 2), device=self._device)
        rows[: (slices + 1) // 2, :, :columns, 0] = given[0::2]
        rows[: slices // 2, :, :columns, 1] = given[1::2]
        smeared = torch.fft.fft(torch.view_as_complex(rows))
        del rows
        smeared *= self._response
        smeared = torch.fft.ifft(smeared, norm="forward")
        before = (geometry.period - columns) // 2
        parts = (smeared[..., : geometry.period - before], smeared[..., geometry.padded - before :])
        return torch.fft.fft(torch.cat(parts, dim=-1)), bool(torch.isfinite(given).all())

    def points(self, steps: NDArray[np.float64]) -> list[tuple[Any, Any]]:
        """Lowest cell of each sample and the weights along x and y from there on, in blocks."""
        blocks = []
        for first in range(0, len(steps), _BLOCK):
            frequencies = self._geometry.frequencies()
            place = steps[first : first + _BLOCK, None, :] * frequencies[None, :, None]
            lowest = np.ceil(place.reshape(-1, 2) - WIDTH / 2)
            distance = (lowest - place.reshape(-1, 2)).astype(np.float32)
            cells = np.mod(lowest.astype(np.int32), self._geometry.size)
            blocks.append((self._from_host(cells), self._from_host(distance)))
        return blocks

    def spread(
        self,
        grid: Any,
        spectra: Any,
        points: list[tuple[Any, Any]],
        weights: NDArray[np.float64],
        turn: NDArray[np.complex64],
    ) -> None:
        """Add weighted spectra to a grid, in blocks of 64 projections."""
        phase = self._from_host(turn)
        weight = self._from_host(weights.astype(np.float32))
        for number, (cells, distance) in enumerate(points):
            some = slice(number * _BLOCK, (number + 1) * _BLOCK)
            factor = weight[some, None] * phase
            along = self._along(distance)
            for block in range(len(grid)):
                pairs = slice(block * PAIRS, (block + 1) * PAIRS)
                values = (spectra[pairs, some] * factor).permute(1, 2, 0).contiguous()
                flat = self._torch.view_as_real(values).reshape(-1, 2 * PAIRS)
                self._add(grid[block], flat, cells, along)

    def images(self, grid: Any, radius: float, scale: float, out: NDArray[np.float32]) -> None:
        """Transform a grid and write its slices."""
        torch, geometry = self._torch, self._geometry
        axis = np.arange(geometry.columns) - geometry.columns // 2
        factor = np.float32(scale) * geometry.correction[:, None] * geometry.correction[None, :]
        factor[axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2] = 0
        wrapped = self._from_host(axis % geometry.size)
        device_factor = self._from_host(factor)[..., None]
        for block in range(len(grid)):
            cells = grid[block].view(geometry.size, geometry.size, PAIRS, 2)
            image = torch.fft.ifft2(torch.view_as_complex(cells), dim=(0, 1), norm="forward")
            middle = torch.view_as_real(image[wrapped[:, None], wrapped[None, :]])
            slices = (middle.reshape(*factor.shape, 2 * PAIRS) * device_factor).permute(2, 0, 1)
            target = out[block * 2 * PAIRS : (block + 1) * 2 * PAIRS]
            target[...] = slices[: len(target)].cpu().numpy()

    def _along(self, distance: Any) -> Any:
        """Weight of each of the cells that a sample reaches, ``(WIDTH, samples, 2)``."""
        torch = self._torch
        steps = torch.arange(WIDTH, device=self._device, dtype=torch.float32)
        scaled = (distance[None] + steps[:, None, None]) * (2 / WIDTH)
        inside = torch.clamp(1 - scaled * scaled, min=0)
        return torch.exp(self._geometry.beta * (torch.sqrt(inside) - 1)) * (inside > 0)

    def _add(self, grid: Any, values: Any, cells: Any, along: Any) -> None:
        size = self._geometry.size
        for j in range(WIDTH):
            row = (cells[:, 1] + j) % size * size
            for i in range(WIDTH):
                index = row + (cells[:, 0] + i) % size
                weight = along[j, :, 1] * along[i, :, 0]
                grid.index_add_(0, index, values * weight[:, None])

    def _from_host(self, array: NDArray[Any]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
