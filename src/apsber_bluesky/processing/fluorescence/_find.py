"""Which elements a spectrum shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.processing.fluorescence._fit import SpectrumFit, is_element
from apsber_bluesky.processing.fluorescence._lines import all_elements
from apsber_bluesky.processing.fluorescence._model import SpectrumModel

#: Elements nobody measures in air or vacuum with such a detector.
_RADIOACTIVE: Final = frozenset(["Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"])
#: What a model is trusted to: this part of what it says is in a bin.
_MODEL_ERROR: Final = 0.03


@dataclass(frozen=True, slots=True)
class FoundElement:
    """An element that a spectrum shows.

    Attributes
    ----------
    symbol : str
        Chemical symbol.
    counts, sigma : float
        Counts in its lines and their uncertainty, with what the model may be wrong by.
    peak_eV : float
        Where its strongest line is seen [eV]: the centroid of what is left of the spectrum there
        when everything else is taken away.
    line_eV : float
        Where the tables have it [eV]: mean of the lines that the detector cannot tell apart.
    """

    symbol: str
    counts: float
    sigma: float
    peak_eV: float
    line_eV: float

    @property
    def significance(self) -> float:
        """Counts in units of their uncertainty."""
        return self.counts / self.sigma


def find_elements(
    model: SpectrumModel,
    sum_spectrum: ArrayLike,
    *,
    candidates: tuple[str, ...] | None = None,
    significance: float = 5.0,
    tolerance_eV: float = 30.0,
) -> tuple[FoundElement, ...]:
    """Find the elements whose lines a spectrum cannot be explained without.

    Of all candidates the one that explains most of what is left is added, until none is
    significant that has its strongest line where it belongs (orthogonal matching pursuit [1]_).
    A model that is a few per cent wrong on a strong peak does not make a weak element beside it.

    Parameters
    ----------
    model : SpectrumModel
        Beam, detector and fit range; its elements are not looked at.
    sum_spectrum : array_like, shape (bins,)
        Sum of many spectra [counts].
    candidates : tuple of str, optional
        Elements to look for; by default all whose strongest line, of their K or L shell, is
        excited in the range.
    significance : float
        How many standard uncertainties of counts an element must have.
    tolerance_eV : float
        How far from its place in the tables an element's strongest line may be seen [eV].

    Returns
    -------
    tuple of FoundElement
        The elements, by significance.

    References
    ----------
    .. [1] Pati, Y. C., Rezaiifar, R., Krishnaprasad, P. S., "Orthogonal matching pursuit",
       27th Asilomar Conference on Signals, Systems and Computers (1993) 40-44.
    """
    total = np.asarray(sum_spectrum, dtype=np.float64)
    names = list(_usual(model) if candidates is None else filter(model.visible, candidates))
    taken: list[str] = []
    refused: set[str] = set()
    while True:
        fit = SpectrumFit(model.with_elements(tuple(taken)), total)
        counts, sigma = _amounts(fit, total)
        places = {s: _centroid(fit, total, s, counts[s]) for s in taken}
        away = {s: abs(peak - line) for s, (peak, line) in places.items()}
        bad = [s for s in taken if counts[s] < significance * sigma[s] or away[s] > tolerance_eV]
        if bad:
            # What came last is what should not have come, if it is among them.
            worst = max(bad, key=taken.index)
            taken.remove(worst)
            refused.add(worst)
            continue
        best = _most_telling(fit, total, [s for s in names if s not in {*taken, *refused}])
        if best is None or best[1] < significance:
            break
        taken.append(best[0])
    found = (FoundElement(s, counts[s], sigma[s], *places[s]) for s in taken)
    return tuple(sorted(found, key=lambda item: -item.significance))


def _most_telling(
    fit: SpectrumFit, total: NDArray[np.float64], candidates: list[str]
) -> tuple[str, float] | None:
    """The candidate that lowers the misfit most, and its significance."""
    if not candidates:
        return None
    model, window = fit.model, fit.model.window
    fitted = fit.fitted(total)
    variance = np.maximum(total, 1.0) + (_MODEL_ERROR * fitted) ** 2
    weights = 1 / variance[window]
    known = fit.shapes
    shapes = np.stack([model.element_shape(symbol)[window] for symbol in candidates], axis=1)
    gram = known.T @ (known * weights[:, None])
    overlap = known.T @ (shapes * weights[:, None])
    # What of a candidate is not a mixture of what is there already.
    own = (shapes**2 * weights[:, None]).sum(0) - (overlap * np.linalg.solve(gram, overlap)).sum(0)
    gain = shapes.T @ ((total - fitted)[window] * weights)
    ratios = np.where(own > 0, gain / np.sqrt(np.maximum(own, 1e-300)), 0.0)
    best = int(np.argmax(ratios))
    return candidates[best], float(ratios[best])


def _usual(model: SpectrumModel) -> list[str]:
    """Elements that are looked for when nobody says which."""
    strongest = {symbol: model.strongest(symbol) for symbol in all_elements()}
    return [
        symbol
        for symbol, line in strongest.items()
        if line is not None
        and line.name[0] in "KL"
        and symbol not in _RADIOACTIVE
        and model.visible(symbol)
    ]


def _amounts(
    fit: SpectrumFit, total: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    fitted = fit.fitted(total)
    variance = np.maximum(fitted, total) + (_MODEL_ERROR * fitted) ** 2
    result = fit.fit(total[None], variance[None])
    elements = [name for name in result.names if is_element(name)]
    return (
        {name: float(result.of(name)[0]) for name in elements},
        {name: float(result.sigma_of(name)[0]) for name in elements},
    )


def _centroid(
    fit: SpectrumFit, total: NDArray[np.float64], symbol: str, amount: float
) -> tuple[float, float]:
    """Where an element's strongest line is, and where it should be [eV]."""
    model = fit.model
    detected = model.detected(symbol)
    energies = {line.name: line.energy_eV for line in model.lines(symbol).lines}
    strongest = max(detected, key=lambda name: detected[name])
    near = float(model.response.sigma_eV(energies[strongest]))
    together = {n: w for n, w in detected.items() if abs(energies[n] - energies[strongest]) < near}
    line_eV = sum(w * energies[n] for n, w in together.items()) / sum(together.values())
    alone = total - fit.fitted(total) + amount * model.element_shape(symbol)
    axis = model.response.energies_eV(model.num_bins)
    weights = np.exp(-0.5 * ((axis - line_eV) / near) ** 2)
    # The centroid under a Gaussian of the peak's own width moves half as far as the peak.
    shifted = float((alone * weights * (axis - line_eV)).sum() / max((alone * weights).sum(), 1.0))
    return line_eV + 2 * shifted, line_eV
