"""From a Jungfrau's raw pixels to photon energy: gain bits, pedestal and gain of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

ADC_MASK: Final = 0x3FFF
GAIN_SHIFT: Final = 14
# Two gain bits: 0 is G0, 1 is G1, 3 is G2; 2 never comes from a pixel that works.
_STAGE_OF_BITS: Final = {0: 0, 1: 1, 3: 2}
_INVALID_BITS: Final = 2
_BLOCK_PIXELS: Final = 1 << 16


def jungfrau_energy(
    raw: NDArray[np.uint16],
    pedestal: NDArray[np.float32],
    gain: NDArray[np.float32],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Turn raw pixels into energy, ``E = (adc - pedestal[g]) / gain[g]``.

    A pixel switches its gain by itself as charge arrives (Redford et al., "First full dynamic
    range calibration of the JUNGFRAU photon detector", J. Instrum. 13 (2018) C01027).

    Parameters
    ----------
    raw : ndarray of uint16
        Pixels as they left the detector, shape ``(rows, columns)`` or ``(n, rows, columns)``;
        14 bits of ADC below 2 bits of gain.
    pedestal : ndarray of float32
        ADC without light in G0, G1 and G2, shape ``(3, rows, columns)`` [ADU]; see
        `pedestal_from_frames`.
    gain : ndarray of float32
        Gain of G0, G1 and G2, shape ``(3, rows, columns)`` [ADU/keV]; that of G1 and G2 is
        negative.
    out : ndarray of float32, optional
        Where to put the result, of the shape of `raw`.

    Returns
    -------
    ndarray of float32
        Energy in each pixel [keV]; NaN where the gain bits are 2 (invalid), or where the gain is
        zero or a map holds NaN.

    Raises
    ------
    InputError
        If a shape or dtype does not fit.
    """
    _check_maps(raw, pedestal, gain)
    out = _result(raw, out)
    first_gain = np.where(gain[0] == 0, np.float32("nan"), gain[0])
    for _ in _convert(_frames(raw), pedestal, gain, first_gain, _frames(out)):
        pass
    return out


class JungfrauConverter:
    """Turns raw frames into energies that are finite in every pixel; made once, used per chunk.

    A pixel that was never calibrated in G0 is 0 in all frames, as that of a dead pixel is. One
    whose energy is unknown in a single frame, for its gain bits are invalid or it switched to a
    stage in which it was not calibrated, is interpolated linearly between the nearest good
    pixels of its row, and counted.

    Parameters
    ----------
    pedestal, gain : ndarray of float32
        As in `jungfrau_energy`; NaN, and zero in a gain, where a pixel has none.

    Attributes
    ----------
    dead_pixels : int
        Pixels without pedestal or gain in G0.
    frames, invalid_pixels, uncalibrated_pixels : int
        Frames converted so far, and pixels in them whose gain bits were 2, or that had switched
        to a stage without pedestal or gain.

    Raises
    ------
    InputError
        If a shape or dtype does not fit.
    """

    def __init__(self, pedestal: NDArray[np.float32], gain: NDArray[np.float32]) -> None:
        if pedestal.ndim != 3:
            raise InputError(f"pedestal has shape {pedestal.shape}; give (3, rows, columns)")
        _check_maps(np.empty(pedestal.shape[1:], np.uint16), pedestal, gain)
        usable = np.isfinite(pedestal) & np.isfinite(gain) & (gain != 0)
        self._pedestal = np.where(usable, pedestal, np.float32(0))
        self._gain = np.where(usable, gain, np.float32("nan"))
        self._dead = ~usable[0]
        self._dead_places = np.flatnonzero(self._dead)
        self._first_gain = np.where(self._dead, np.float32(1), self._gain[0])
        self.dead_pixels = len(self._dead_places)
        self.frames = self.invalid_pixels = self.uncalibrated_pixels = 0

    def __call__(
        self, raw: NDArray[np.uint16], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Turn raw frames into energies.

        Parameters
        ----------
        raw : ndarray of uint16
            Shape ``(rows, columns)`` or ``(n, rows, columns)``.
        out : ndarray of float32, optional
            Where to put the result, C-contiguous and of the shape of `raw`.

        Returns
        -------
        ndarray of float32
            Energy in each pixel [keV], finite.

        Raises
        ------
        InputError
            If a shape or dtype does not fit.
        """
        _check_maps(raw, self._pedestal, self._gain)
        out = _result(raw, out)
        frames = _frames(out)
        unknown: dict[int, set[int]] = {}
        for number, places, bits in _convert(
            _frames(raw), self._pedestal, self._gain, self._first_gain, frames
        ):
            alive = ~self._dead.reshape(-1)[places]
            self.invalid_pixels += int(np.count_nonzero(bits == _INVALID_BITS))
            self.uncalibrated_pixels += int(np.count_nonzero(alive & (bits != _INVALID_BITS)))
            rows = np.unique(places[alive] // raw.shape[-1])
            unknown.setdefault(number, set()).update(rows.tolist())
        for number, rows_of_frame in unknown.items():
            self._interpolate(frames[number], sorted(rows_of_frame))
        if self.dead_pixels:
            frames.reshape(len(frames), -1)[:, self._dead_places] = 0
        self.frames += len(frames)
        return out

    def _interpolate(self, frame: NDArray[np.float32], rows: list[int]) -> None:
        for row in rows:
            energies = frame[row]
            bad = np.isnan(energies) | self._dead[row]
            good = np.flatnonzero(~bad)
            energies[bad] = np.interp(np.flatnonzero(bad), good, energies[good]) if len(good) else 0


def _convert(
    raw: NDArray[np.uint16],
    pedestal: NDArray[np.float32],
    gain: NDArray[np.float32],
    first_gain: NDArray[np.float32],
    out: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.uint16]]]:
    """Fill `out`; yields the frame, the places and the gain bits of switched pixels with NaN."""
    rows, columns = raw.shape[1:]
    step = max(1, _BLOCK_PIXELS // columns)
    # A block of the maps stays in the cache while all frames go by.
    for top in range(0, rows, step):
        block = slice(top, top + step)
        offsets, slopes = (values[:, block].reshape(3, -1) for values in (pedestal, gain))
        for number in range(len(raw)):
            part, result = raw[number, block], out[number, block]
            np.subtract(part, pedestal[0, block], out=result, dtype=np.float32, casting="unsafe")
            np.divide(result, first_gain[block], out=result)
            switched = np.flatnonzero(part > ADC_MASK)
            if not len(switched):
                continue
            flat = part.reshape(-1), switched, offsets, slopes, result.reshape(-1)
            places, bits = _patch(*flat)
            if len(places):
                yield number, places + top * columns, bits


def _patch(
    raw: NDArray[np.uint16],
    switched: NDArray[np.intp],
    pedestal: NDArray[np.float32],
    gain: NDArray[np.float32],
    out: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """Do the few pixels again that left G0; those of them without energy, and their gain bits."""
    values = raw[switched]
    bits = values >> GAIN_SHIFT
    # Bits 1 and 3 halve to stages 1 and 2; 2 does too, to 1, and is overwritten.
    stage = (bits.astype(np.intp) + 1) // 2
    divisor = gain[stage, switched]
    divisor[(divisor == 0) | (bits == _INVALID_BITS)] = np.nan
    adc = (values & ADC_MASK).astype(np.float32)
    energy = (adc - pedestal[stage, switched]) / divisor
    out[switched] = energy
    unknown = np.isnan(energy)
    return switched[unknown], bits[unknown]


def _result(raw: NDArray[np.uint16], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if out is None:
        return np.empty(raw.shape, dtype=np.float32)
    if out.shape != raw.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        kind = "" if out.flags.c_contiguous else "not contiguous "
        raise InputError(
            f"out is {kind}{out.dtype} {out.shape}; it must be contiguous float32 {raw.shape}"
        )
    return out


def _check_maps(
    raw: NDArray[Any], pedestal: NDArray[np.float32], gain: NDArray[np.float32]
) -> None:
    if raw.dtype != np.uint16 or raw.ndim not in (2, 3):
        raise InputError(
            f"raw frames are {raw.dtype} {raw.shape}; give uint16 of (rows, columns) or"
            " (n, rows, columns)"
        )
    for name, values in (("pedestal", pedestal), ("gain", gain)):
        if values.shape != (3, *raw.shape[-2:]) or values.dtype != np.float32:
            raise InputError(
                f"{name} is {values.dtype} {values.shape}; give float32 {(3, *raw.shape[-2:])}"
            )


def _frames(frames: NDArray[Any]) -> NDArray[Any]:
    return frames[np.newaxis] if frames.ndim == 2 else frames


def pedestal_from_frames(chunks: Iterable[NDArray[np.uint16]]) -> NDArray[np.float32]:
    """Mean ADC of each pixel in each gain stage, of frames taken without light.

    Sums are of integers, so the order of frames does not change a bit of the result.

    Parameters
    ----------
    chunks : iterable of ndarray of uint16
        Raw dark frames, shape ``(n, rows, columns)`` each; in dynamic gain they tell G0, forced
        to G1 and to G2 the others.

    Returns
    -------
    ndarray of float32
        Pedestals, shape ``(3, rows, columns)`` [ADU]; NaN where a pixel was never in that stage.

    Raises
    ------
    InputError
        If there is no frame, or a chunk has another shape or dtype.
    """
    total: NDArray[np.int64] | None = None
    count = np.zeros(0, dtype=np.int64)
    for chunk in chunks:
        if chunk.dtype != np.uint16 or chunk.ndim != 3:
            raise InputError(f"dark frames are {chunk.dtype} {chunk.shape}; give uint16 (n, y, x)")
        if total is None:
            total = np.zeros((3, *chunk.shape[1:]), dtype=np.int64)
            count = np.zeros_like(total)
        if chunk.shape[1:] != total.shape[1:]:
            raise InputError(f"dark frames of {chunk.shape[1:]} among frames of {total.shape[1:]}")
        for frame in chunk:
            bits, adc = frame >> GAIN_SHIFT, frame & ADC_MASK
            for code, stage in _STAGE_OF_BITS.items():
                here = bits == code
                total[stage] += np.where(here, adc, 0)
                count[stage] += here
    if total is None or not count.any():
        raise InputError("no dark frames were given; take some without light first")
    mean = np.full(total.shape, np.nan, dtype=np.float64)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float32)
