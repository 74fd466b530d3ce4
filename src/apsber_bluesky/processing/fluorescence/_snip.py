"""The smooth background below peaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError


def snip_background(spectrum: ArrayLike, half_width_bins: int) -> NDArray[np.float64]:
    """Peel the peaks off a spectrum (SNIP [1]_ with decreasing windows [2]_).

    Parameters
    ----------
    spectrum : array_like, shape (bins,)
        Counts, not negative.
    half_width_bins : int
        Structures up to about twice as wide are peaks; twice the full width at half maximum of a
        peak is a good value.

    Returns
    -------
    ndarray, shape (bins,)
        The background [counts], nowhere above the smoothed spectrum.

    Raises
    ------
    InputError
        If the spectrum has another shape, or the window does not fit.

    References
    ----------
    .. [1] Ryan, C. G. et al., "SNIP, a statistics-sensitive background treatment for the
       quantitative analysis of PIXE spectra in geoscience applications", Nucl. Instrum. Methods
       B 34 (1988) 396-402.
    .. [2] Morhac, M. et al., "Background elimination methods for multidimensional coincidence
       gamma-ray spectra", Nucl. Instrum. Methods A 401 (1997) 113-132.
    """
    counts = np.maximum(np.asarray(spectrum, dtype=np.float64), 0.0)
    if counts.ndim != 1 or not 1 <= half_width_bins < counts.size // 2:
        raise InputError(
            f"a background window of {half_width_bins} bins does not fit a spectrum of shape"
            f" {counts.shape}"
        )
    # Logarithms and a root make the few counts between peaks weigh as much as the peaks.
    level = np.log(np.log(np.sqrt(_smooth(counts) + 1) + 1) + 1)
    for half in range(half_width_bins, 0, -1):
        mean = 0.5 * (level[: -2 * half] + level[2 * half :])
        level[half:-half] = np.minimum(level[half:-half], mean)
    background: NDArray[np.float64] = np.expm1(np.expm1(level)) ** 2 - 1
    return np.maximum(background, 0.0)


def _smooth(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    smooth: NDArray[np.float64] = np.convolve(np.pad(counts, 2, mode="edge"), kernel, "valid")
    return smooth
