"""Gain, offset and peak width, refined on a sum spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.fluorescence._fit import SpectrumFit
from apsber_bluesky.processing.fluorescence._model import SpectrumModel
from apsber_bluesky.processing.fluorescence._response import DetectorResponse

#: How far the calibration may move: gain by this part, offset and noise [eV].
_GAIN_PART: Final = 0.02
_OFFSET_EV: Final = 60.0
_NOISE_EV: Final = (5.0, 150.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A refined calibration.

    Attributes
    ----------
    response : DetectorResponse
        The detector with refined gain, offset and noise.
    reduced_chi2 : float
        Misfit of the sum spectrum per degree of freedom.
    """

    response: DetectorResponse
    reduced_chi2: float


def calibrate(model: SpectrumModel, sum_spectrum: ArrayLike) -> Calibration:
    """Refine gain, offset and noise so that the model's peaks lie on those of a spectrum.

    Amounts are solved for at each step (variable projection), so only three numbers are searched.

    Parameters
    ----------
    model : SpectrumModel
        Elements and a calibration that is right within a peak's width.
    sum_spectrum : array_like, shape (bins,)
        Sum of many spectra [counts].

    Returns
    -------
    Calibration
        The refined detector.

    Raises
    ------
    InputError
        If the model has no element, so that there is nothing to calibrate on.
    """
    if not model.elements:
        raise InputError("there is no element to calibrate on; name one, or do not calibrate")
    total = np.asarray(sum_spectrum, dtype=np.float64)
    first = model.response
    # The window stays where it is while the energies of its bins move.
    window = model.window
    sigma = np.sqrt(np.maximum(total[window], 1.0))
    # Single lines of peaks that the model does not know must not pull it.
    scale = np.array([_GAIN_PART * first.gain_eV, _OFFSET_EV, first.noise_eV or 10.0])

    def response(steps: NDArray[np.float64]) -> DetectorResponse:
        gain, offset, noise = np.array([first.gain_eV, first.offset_eV, first.noise_eV]) + (
            steps * scale
        )
        return replace(
            first,
            gain_eV=float(gain),
            offset_eV=float(offset),
            noise_eV=float(np.clip(noise, *_NOISE_EV)),
        )

    def residual(steps: NDArray[np.float64]) -> NDArray[np.float64]:
        fit = SpectrumFit(model.with_response(response(steps)), total)
        misfit: NDArray[np.float64] = (total - fit.fitted(total))[window] / sigma
        return misfit

    found = least_squares(
        residual, np.zeros(3), bounds=(-1.0, 1.0), loss="soft_l1", diff_step=1e-3, max_nfev=30
    )
    refined = model.with_response(response(found.x))
    counts = SpectrumFit(refined, total).fit(total[None])
    return Calibration(refined.response, float(counts.reduced_chi2[0]))
