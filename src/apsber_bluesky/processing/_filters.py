"""The ramp filter and its windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from apsber_bluesky.core import InputError

_Window = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _parzen(a: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(a <= 0.5, 1 - 6 * a**2 * (1 - a), 2 * (1 - a) ** 3)


# Each takes |frequency| / Nyquist.
_WINDOWS: dict[str, _Window] = {
    "ramp": np.ones_like,
    "shepp": lambda a: np.sinc(a / 2),
    "hann": lambda a: 0.5 + 0.5 * np.cos(np.pi * a),
    "parzen": _parzen,
}

FILTER_NAMES: tuple[str, ...] = tuple(_WINDOWS)
"""Windows of the ramp filter, from the sharpest to the smoothest."""


def ramp_filter(length: int, filter_name: str) -> NDArray[np.float32]:
    """Frequency response of the windowed ramp filter.

    It is the discrete Fourier transform of the band-limited spatial kernel, not ``|f|`` sampled:
    that alone keeps the mean of the object right (Kak and Slaney, Principles of Computerized
    Tomographic Imaging, 1988, section 3.3.3).

    Parameters
    ----------
    length : int
        Number of samples, even; zero-padded length of a detector row.
    filter_name : {"ramp", "shepp", "hann", "parzen"}
        Window.

    Returns
    -------
    ndarray of float32
        Response at the frequencies ``k / length`` in FFT order, shape ``(length,)``
        [cycles/pixel].

    Raises
    ------
    InputError
        If there is no such window.
    """
    check_filter(filter_name)
    kernel = np.zeros(length)
    kernel[0] = 0.25
    odd = np.arange(1, length // 2 + 1, 2)
    kernel[odd] = kernel[-odd] = -1 / (np.pi * odd) ** 2
    frequency = np.abs(scipy.fft.fftfreq(length)) * 2
    response = scipy.fft.fft(kernel).real * _WINDOWS[filter_name](frequency)
    return np.asarray(response, dtype=np.float32)


def check_filter(filter_name: str) -> None:
    """Refuse a window that does not exist."""
    if filter_name not in _WINDOWS:
        raise InputError(f"unknown filter {filter_name!r}; choose one of {', '.join(FILTER_NAMES)}")
