"""How far one projection is displaced along its rows against another, to a part of a pixel."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

#: Largest displacement that is looked for, about where it is expected [pixel].
SEARCH_PX = 20.0

_HIGHEST = 0.25


def slope_spectra(stack: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Spectra of the slopes along the rows, low-passed; a frame's edge then makes no step."""
    columns = stack.shape[2]
    waves = scipy.fft.rfft(np.diff(stack, axis=-1), n=2 * columns, axis=-1)
    frequency = scipy.fft.rfftfreq(2 * columns)
    window = np.where(frequency < _HIGHEST, np.cos(np.pi / 2 * frequency / _HIGHEST), 0)
    return np.asarray(waves * window)


def mirrored(spectra: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Spectra of the slopes of the mirrored projections."""
    length = 2 * (spectra.shape[-1] - 1)
    frequency = scipy.fft.rfftfreq(length)
    # Mirroring columns 0 to n - 1 turns slopes round, in place and in sign.
    turn = -np.exp(-2j * np.pi * frequency * (length // 2 - 2))
    return np.asarray(np.conj(spectra) * turn)


def shift(first: NDArray[np.complex128], second: NDArray[np.complex128], near: float) -> float:
    """Find ``d`` in ``second(u) = first(u + d)`` within reach of `near` [pixel]; NaN if empty."""
    cross = np.sum(np.conj(first) * second, axis=0)
    if not np.abs(cross).any():
        return math.nan
    omega = 2 * np.pi * scipy.fft.rfftfreq(2 * (len(cross) - 1))
    trials = near + np.arange(-SEARCH_PX, SEARCH_PX + 0.125, 0.25)
    score = (np.exp(-1j * trials[:, None] * omega) @ cross).real
    best = float(trials[int(np.argmax(score))])
    low, high = best - 0.25, best + 0.25
    for _ in range(30):
        middle = (low + high) / 2
        rising = float(np.sum(-1j * omega * cross * np.exp(-1j * omega * middle)).real) > 0
        low, high = (middle, high) if rising else (low, middle)
    return (low + high) / 2
