"""How the live slices of one run are made: where, how finely, and about which axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, LiveSliceSettings, TomographyScan
from apsber_bluesky.processing import OrthoSlices, OrthoSnapshot, SlidingOrthoSlices

#: Part of one processor that the slices may take.
BUDGET = 0.5
#: Memory that they may take [byte].
MOST_BYTES = 512_000_000
#: A scan of more than this turns on and on, and is looked at through a window [deg].
_WHOLE_TURN_DEG = 360.0
_WINDOW_DEG = 180.0
_SMALLEST_PX = 32


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """The projections of a run as its live slices see them.

    Attributes
    ----------
    scan : TomographyScan
        The scan.
    binning : int
        Edge of the blocks of pixels that are averaged first.
    centre_px : float
        Column of the rotation axis in the detector's frame [pixel].
    centre_from : str
        Where that comes from.
    filter_name : str
        Window of the ramp filter.
    """

    scan: TomographyScan
    binning: int
    centre_px: float
    centre_from: str
    filter_name: str

    @property
    def window_deg(self) -> float:
        """How far the slices look back; 0 for the whole scan [deg]."""
        return _WINDOW_DEG if turns_on(self.scan) else 0.0

    def begin(self, settings: LiveSliceSettings) -> LiveSums:
        """Slices of this run, empty.

        Raises
        ------
        InputError
            If the centre or a slice lies outside the frame.
        """
        rows, columns = self.scan.rows // self.binning, self.scan.columns // self.binning
        centre = (self.centre_px + 0.5) / self.binning - 0.5
        place = self._position(settings)
        angles = self.scan.angles_deg
        scale = np.float32(1 / self.binning)
        if turns_on(self.scan):
            window = SlidingOrthoSlices(
                rows, columns, centre=centre, position=place, filter_name=self.filter_name
            )

            def add(projections: NDArray[np.float32], first: int) -> None:
                window.add(projections, angles[first : first + len(projections)])

            return LiveSums(add, window.snapshot, scale)
        whole = OrthoSlices(
            rows, columns, angles, centre=centre, position=place, filter_name=self.filter_name
        )
        return LiveSums(whole.add, whole.snapshot, scale)

    def _position(self, settings: LiveSliceSettings) -> tuple[int, int, int]:
        """Slices of the binned volume that those of the settings lie in."""
        scan, edge = self.scan, self.binning
        sizes = {"z": scan.rows, "y": scan.columns, "x": scan.columns}
        place = []
        for name, size in sizes.items():
            wanted, binned = getattr(settings, name), size // edge
            if wanted == "auto":
                place.append(binned // 2)
                continue
            if wanted >= size:
                raise InputError(
                    f"processing.live_slices.{name} is {wanted}, but the volume has {size}; give 0"
                    f" to {size - 1}"
                )
            # Rows are counted from the edge of the detector, y and x from the axis.
            near = wanted // edge if name == "z" else binned // 2 + (wanted - size // 2) // edge
            place.append(min(max(near, 0), binned - 1))
        z, y, x = place
        return z, y, x


@dataclass(frozen=True, slots=True)
class LiveSums:
    """Slices of a run on their way; `add` is for one thread, `snapshot` for any."""

    add: Callable[[NDArray[np.float32], int], None]
    snapshot: Callable[[], OrthoSnapshot]
    scale: np.float32

    def planes(self) -> tuple[dict[str, NDArray[np.float32]], int]:
        """The slices [1/pixel of the detector], and how many projections are in them."""
        shown = self.snapshot()
        planes = {"xy": shown.xy, "xz": shown.xz, "yz": shown.yz}
        return {name: plane * self.scale for name, plane in planes.items()}, shown.used


def turns_on(scan: TomographyScan) -> bool:
    """Whether the scan is of more than one turn."""
    return abs(scan.rotation_stop_deg - scan.rotation_start_deg) > _WHOLE_TURN_DEG


def choose_binning(
    scan: TomographyScan, settings: LiveSliceSettings, seconds_per_pixel: float
) -> int:
    """Edge of the blocks of pixels: what was set, or the smallest that keeps pace.

    Parameters
    ----------
    scan : TomographyScan
        Its exposure time is the shortest between two projections.
    settings : LiveSliceSettings
        What was set.
    seconds_per_pixel : float
        Time that a pixel of a projection takes [s].
    """
    largest = max(1, min(scan.rows, scan.columns // 2))
    if settings.binning != "auto":
        return min(settings.binning, largest)
    needed = scan.rows * scan.columns * seconds_per_pixel / (BUDGET * scan.exposure_s)
    edge = 1
    while _too_much(scan, edge, needed) and scan.columns // (2 * edge) >= _SMALLEST_PX:
        edge *= 2
    return min(edge, largest)


def _too_much(scan: TomographyScan, edge: int, needed: float) -> bool:
    rows, columns = max(1, scan.rows // edge), scan.columns // edge
    kind = SlidingOrthoSlices if turns_on(scan) else OrthoSlices
    return needed > edge**2 or kind.required_bytes(rows, columns) > MOST_BYTES


def provisional_centre(
    scan: TomographyScan, given: float | str, last: tuple[int, float] | None
) -> tuple[float, str]:
    """The best that is known of the rotation centre before the scan [pixel], and from where.

    Parameters
    ----------
    scan : TomographyScan
        The scan.
    given : float or "auto"
        Setting of the profile.
    last : tuple of (int, float) or None
        Width of the frames [pixel] and centre of the last run that found one.
    """
    if not isinstance(given, str):
        return float(given), "profile"
    if last is not None and last[0] == scan.columns and math.isfinite(last[1]):
        return last[1], "last run"
    return (scan.columns - 1) / 2, "middle of the frame"
