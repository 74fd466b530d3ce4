"""What a Jungfrau's pixels make of energy: ADC values that switch their gain as charge arrives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

_ADC_MAXIMUM = 0x3FFF
_BITS_OF_STAGE = (0, 1, 3)


def jungfrau_raw(
    energy_keV: NDArray[Any], pedestal: NDArray[Any], gain: NDArray[Any]
) -> NDArray[np.uint16]:
    """Raw pixels of a known energy, each in the first gain stage that holds it.

    Parameters
    ----------
    energy_keV : ndarray
        Energy in each pixel, shape ``(..., rows, columns)``.
    pedestal, gain : ndarray
        ADC without light [ADU] and gain [ADU/keV] of G0, G1 and G2, shape ``(3, rows, columns)``;
        gains of G1 and G2 are negative.

    Returns
    -------
    ndarray of uint16
        14 bits of ADC below 2 bits of gain, of the shape of `energy_keV`.

    Raises
    ------
    InputError
        If an energy is beyond what the last stage holds, or not a number.
    """
    energies = np.asarray(energy_keV, dtype=np.float64)
    raw = np.zeros(energies.shape, dtype=np.uint16)
    left = np.ones(energies.shape, dtype=np.bool_)
    for bits, offset, slope in zip(_BITS_OF_STAGE, pedestal, gain, strict=True):
        adc = np.rint(offset + energies * slope)
        fits = left & (adc >= 0) & (adc <= _ADC_MAXIMUM)
        raw[fits] = adc[fits].astype(np.uint16) | (bits << 14)
        left &= ~fits
    if left.any():
        raise InputError(
            f"{np.count_nonzero(left)} energies up to {energies[left].max():g} keV are beyond what"
            " a pixel holds"
        )
    return raw
