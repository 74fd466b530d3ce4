"""The gridding engine on an NVIDIA device."""

from __future__ import annotations

from numpy.typing import ArrayLike

from apsber_bluesky.processing.accelerators._cupy_backend import (
    CupyBackend,
    cupy_usable,
    device_bytes,
)
from apsber_bluesky.processing.accelerators._engine import DeviceEngine, pairs_of
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry
from apsber_bluesky.processing.accelerators._stores import spectra_bytes

_PROJECTIONS = 64


class CupyEngine(DeviceEngine):
    """`DeviceEngine` with own CUDA kernels through CuPy.

    The kernels compile for Ampere and Hopper and do, run thread by thread on a processor, what
    their NumPy twins do. They have not run on a device yet.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)`` [deg].
    filter_name : str
        Window of the ramp filter.
    threads : int
        Not used: the device does the work.
    """

    def __init__(
        self, rows: int, columns: int, angles_deg: ArrayLike, filter_name: str, threads: int
    ) -> None:
        del threads
        super().__init__(rows, columns, angles_deg, filter_name, name="cupy", backend=CupyBackend)

    @staticmethod
    def usable() -> bool:
        """Whether CuPy is installed and there is a device; quick, CuPy is not imported."""
        return cupy_usable()

    @staticmethod
    def required_bytes(rows: int, columns: int, projections: int, threads: int) -> int:
        """Memory of the host: page-locked buffers, and the spectra if the device has no room."""
        del threads
        geometry = DeviceGeometry(columns, "ramp")
        uploads = 2 * min(_PROJECTIONS, projections) * rows * columns * 4
        # A sixth of the slices at once, rounded up to 16.
        downloads = 2 * 16 * (-(-rows // 96)) * columns**2 * 4
        spectra = spectra_bytes(geometry, pairs_of(rows), projections)
        kept = spectra if spectra > device_bytes() * 2 // 3 else 0
        return uploads + downloads + kept
