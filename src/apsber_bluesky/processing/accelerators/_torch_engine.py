"""The gridding engine on whatever device torch has."""

from __future__ import annotations

import functools
import importlib.util

from numpy.typing import ArrayLike

from apsber_bluesky.processing.accelerators._backend import PAIRS
from apsber_bluesky.processing.accelerators._engine import DeviceEngine, pairs_of
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry
from apsber_bluesky.processing.accelerators._stores import spectra_bytes
from apsber_bluesky.processing.accelerators._torch_backend import (
    TorchBackend,
    best_torch_device,
    torch_accelerator,
)

_PROJECTIONS = 64


class TorchEngine(DeviceEngine):
    """`DeviceEngine` on torch, for accelerators that CuPy does not reach.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    filter_name : str
        Window of the ramp filter.
    threads : int
        Not used: torch has its own setting, `torch.set_num_threads`.
    device : str, optional
        Torch device; by default an accelerator if there is one, else ``"cpu"``.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        angles_deg: ArrayLike,
        filter_name: str,
        threads: int,
        *,
        device: str | None = None,
    ) -> None:
        del threads
        backend = functools.partial(TorchBackend, device=device or best_torch_device())
        super().__init__(rows, columns, angles_deg, filter_name, name="torch", backend=backend)

    @staticmethod
    def usable() -> bool:
        """Whether torch is installed; it is not imported."""
        return importlib.util.find_spec("torch") is not None

    @staticmethod
    def best() -> bool:
        """Whether ``"auto"`` should take it: it has an accelerator that nothing else reaches."""
        return torch_accelerator() is not None

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory that it needs if it works on the processor."""
        del threads
        geometry, pairs = DeviceGeometry(columns, "ramp"), pairs_of(rows)
        filtering = 3 * pairs * min(_PROJECTIONS, projections) * geometry.padded * 8
        places = projections * geometry.period * 16
        # A sixth of the blocks at once: grid, its transform, images; weights of a sample's cells.
        blocks = -(-pairs // PAIRS // 6)
        grid = blocks * PAIRS * 8 * geometry.size**2
        image = 3 * PAIRS * 8 * geometry.size**2
        values = 3 * _PROJECTIONS * geometry.period * (2 * PAIRS + 2 * geometry.taps) * 4
        kept = spectra_bytes(geometry, pairs, projections)
        return kept + max(filtering, grid + image + values) + places
