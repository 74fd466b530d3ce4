"""From a Jungfrau's raw pixels to photon energy: gain bits, pedestal and gain of each stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

ADC_MASK: Final = 0x3FFF
GAIN_SHIFT: Final = 14
# Two gain bits: 0 is G0, 1 is G1, 3 is G2; 2 never comes from a pixel that works.
_STAGE_OF_BITS: Final = {0: 0, 1: 1, 3: 2}
_INVALID_BITS: Final = 2


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
    if out is None:
        out = np.empty(raw.shape, dtype=np.float32)
    elif out.shape != raw.shape or out.dtype != np.float32:
        raise InputError(f"out is {out.dtype} {out.shape}; it must be float32 {raw.shape}")
    first_gain = gain[0]
    if not first_gain.all():
        first_gain = np.where(first_gain == 0, np.float32("nan"), first_gain)
    for frame, result in zip(_frames(raw), _frames(out), strict=True):
        _one_frame(frame, pedestal, gain, first_gain, result)
    return out


def _one_frame(
    raw: NDArray[np.uint16],
    pedestal: NDArray[np.float32],
    gain: NDArray[np.float32],
    first_gain: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    # Nearly all pixels are in G0, where the gain bits are 0 and the raw value is the ADC itself;
    # the few others are then done again.
    np.subtract(raw, pedestal[0], out=out, dtype=np.float32, casting="unsafe")
    np.divide(out, first_gain, out=out)
    switched = np.nonzero(raw > ADC_MASK)
    if not len(switched[0]):
        return
    values = raw[switched]
    bits = values >> GAIN_SHIFT
    # Bits 1 and 3 halve to stages 1 and 2; 2 does too, to 1 or 2, and is overwritten.
    stage = (bits.astype(np.intp) + 1) // 2
    where = (stage, *switched)
    divisor = gain[where]
    divisor[(divisor == 0) | (bits == _INVALID_BITS)] = np.nan
    adc = (values & ADC_MASK).astype(np.float32)
    out[switched] = (adc - pedestal[where]) / divisor


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
