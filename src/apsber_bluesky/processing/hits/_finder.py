"""Find the Bragg peaks of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, HitSettings, InputError
from apsber_bluesky.processing.hits._kernels import (
    PEAK_FIELDS,
    collect_peaks,
    find_candidates,
    ring_backgrounds,
)
from apsber_bluesky.processing.hits._rings import Rings

# No more of the pixels are looked at as parts of peaks, which bounds time and memory.
_MOST_CANDIDATES: Final = 0.2

_COMPILED_FOR: Final = (np.uint16, np.uint32, np.float32)


@dataclass(frozen=True, slots=True)
class FramePeaks:
    """Peaks of one frame.

    Attributes
    ----------
    rows, columns : ndarray of float32
        Centre of each [pixel]; the middle of the first pixel is 0.
    photons : ndarray of float32
        Photons above the background.
    snr : ndarray of float32
        Signal over noise.
    is_hit : bool
        Whether there are enough of them.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    photons: NDArray[np.float32]
    snr: NDArray[np.float32]
    is_hit: bool

    def __len__(self) -> int:
        return len(self.rows)


class HitFinder:
    """Find peaks against the background of their ring, and then against what is around them.

    After A. Barty et al., J. Appl. Cryst. 47 (2014) 1118 (Cheetah's *peakfinder8*): the background
    is measured in rings around the beam, without what stands above it; neighbouring pixels that
    stand above it are a peak if the whole also stands above the pixels around it. Other than there
    a ring is measured with 64 of its pixels, drawn once, and is cut into parts of equal
    polarisation.

    Pixels that are NaN, or have one of the two largest values of an unsigned integer (with which an
    EIGER marks gaps and pixels that do not count), are left out in each frame.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frames.
    settings : HitSettings, optional
        What a peak is; ``beam_centre_px`` None is the middle of the frame. ``mask`` is not read
        here, see `read_mask`.
    mask : ndarray of bool, shape (rows, columns), optional
        True for pixels that are never used.
    photon : float
        What one photon gives in a pixel: 1 for counts, the photon energy [keV] for energies [keV].

    Raises
    ------
    InputError
        If the mask has another shape, or nothing is left of the frame.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        settings: HitSettings | None = None,
        *,
        mask: NDArray[np.bool_] | None = None,
        photon: float = 1.0,
    ) -> None:
        self.shape = shape
        self.settings = settings = settings or HitSettings()
        usable = np.ones(shape, np.bool_) if mask is None else ~np.asarray(mask, np.bool_)
        if usable.shape != shape:
            raise InputError(f"the mask has shape {usable.shape}, the frames have {shape}")
        if not photon > 0:
            raise InputError(f"one photon gives {photon}; give a value above 0")
        centre = settings.beam_centre_px or ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
        radii = (settings.smallest_radius_px, settings.largest_radius_px)
        self._rings = Rings.around(centre, usable, radii)
        if not self._rings.count:
            raise InputError(
                "no pixel is left to look for peaks in: the mask, smallest_radius_px"
                f" {radii[0]:g} or largest_radius_px {radii[1]:g} leaves none"
            )
        self._photon = photon
        self._mean = np.empty(self._rings.count)
        self._sigma = np.empty(self._rings.count)
        # The last ring has the pixels that are left out, and no pixel is above it.
        self._threshold = np.full(self._rings.count + 1, np.inf, np.float32)
        most = max(64, int(_MOST_CANDIDATES * usable.size))
        self._found = np.empty(most, np.int32)
        self._stack = np.empty(most, np.int32)
        self._mark = np.zeros(shape, np.uint8)
        self._peaks = np.empty((settings.most_peaks, PEAK_FIELDS), np.float32)

    def __call__(self, frame: NDArray[Any]) -> FramePeaks:
        """Find the peaks of a frame.

        Parameters
        ----------
        frame : ndarray, shape (rows, columns)
            Counts, or energies; integer or floating point.

        Raises
        ------
        InputError
            If it has another shape.
        """
        if frame.shape != self.shape:
            raise InputError(f"a frame has shape {frame.shape}, not {self.shape}")
        settings, rings = self.settings, self._rings
        limit = float(np.iinfo(frame.dtype).max - 1) if frame.dtype.kind == "u" else np.inf
        # Loops are compiled for the types that detectors have.
        dtype = frame.dtype.newbyteorder("=")
        frame = np.ascontiguousarray(frame, dtype if dtype in _COMPILED_FOR else np.float32)
        pixels = frame.ravel()
        ring_backgrounds(
            pixels, rings.samples, rings.starts, limit, self._photon, self._mean, self._sigma
        )
        above = np.maximum(settings.pixel_snr * self._sigma, settings.least_photons * self._photon)
        self._threshold[:-1] = self._mean + above
        count = find_candidates(pixels, rings.ring.ravel(), self._threshold, limit, self._found)
        rules = (
            settings.least_pixels,
            settings.most_pixels,
            settings.peak_snr,
            self._photon,
            limit,
        )
        return self._answer(
            collect_peaks(
                frame,
                rings.ring,
                self._mean,
                self._found[:count],
                rules,
                self._mark,
                self._stack,
                self._peaks,
            )
        )

    def _answer(self, count: int) -> FramePeaks:
        rows, columns, photons, snr = self._peaks[:count].T.copy()
        return FramePeaks(rows, columns, photons, snr, count >= self.settings.least_peaks)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask: an HDF5 file with a dataset ``/mask`` that is not 0 where pixels are bad.

    Raises
    ------
    DataFileError
        If there is none.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = np.asarray(file["mask"])
    except (OSError, KeyError, TypeError) as error:
        raise DataFileError(
            f"cannot read a mask from {path}: {error}; it needs a dataset 'mask'"
        ) from error
    if found.ndim != 2:
        raise DataFileError(f"the mask in {path} has shape {found.shape}; give (rows, columns)")
    bad: NDArray[np.bool_] = found != 0
    return bad
