"""From spectra to amounts of elements, with their uncertainties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.fluorescence._model import SCATTER, SpectrumModel
from apsber_bluesky.processing.fluorescence._non_negative import non_negative_least_squares

#: Spectra that are fitted at once; their products with the model stay in the caches.
_BATCH: Final = 1024
#: Bins where less is expected do not make a misfit of a single count [counts].
_LEAST_EXPECTED: Final = 0.1


@dataclass(frozen=True, slots=True)
class ElementCounts:
    """How many counts of each spectrum belong to what.

    Attributes
    ----------
    names : tuple of str
        Elements, then ``elastic``, ``compton`` and ``background`` as far as they are in range.
    counts : ndarray, shape (spectra, names)
        Counts in all lines of an element, in the scattered peaks, and in the background within
        the fit range.
    sigma : ndarray, shape (spectra, names)
        Their standard uncertainties, from the statistics of the counts.
    reduced_chi2 : ndarray, shape (spectra,)
        Misfit per degree of freedom; 1 when nothing but noise is left.
    """

    names: tuple[str, ...]
    counts: NDArray[np.float64]
    sigma: NDArray[np.float64]
    reduced_chi2: NDArray[np.float64]

    def of(self, name: str) -> NDArray[np.float64]:
        """Counts of one name, shape ``(spectra,)``."""
        return self.counts[:, self.names.index(name)]

    def sigma_of(self, name: str) -> NDArray[np.float64]:
        """Uncertainty of one name, shape ``(spectra,)``."""
        return self.sigma[:, self.names.index(name)]


class SpectrumFit:
    """Fit many spectra with one model by weighted linear least squares.

    All spectra share the weights, those of their sum, so that one factorisation serves all.
    Uncertainties are those that the counts' own Poisson noise gives the estimate.

    Parameters
    ----------
    model : SpectrumModel
        What spectra are made of.
    sum_spectrum : array_like, shape (bins,)
        Sum of the spectra that will be fitted [counts].
    non_negative : bool
        Whether amounts below 0 are forbidden. Sums of weak amounts are without bias only if not.

    Attributes
    ----------
    names : tuple of str
        What is fitted.
    shapes : ndarray, shape (bins in the fit range, names)
        Spectrum of one count of each.

    Raises
    ------
    InputError
        If the sum is no spectrum of the model's length, or is empty.
    """

    def __init__(
        self, model: SpectrumModel, sum_spectrum: ArrayLike, *, non_negative: bool = True
    ) -> None:
        total = np.asarray(sum_spectrum, dtype=np.float64)
        if total.shape != (model.num_bins,) or not np.isfinite(total).all() or not total.any():
            raise InputError(
                f"the sum of spectra has shape {total.shape} and {total.sum():g} counts; give one"
                f" of {model.num_bins} bins with counts in it"
            )
        self.model = model
        self.non_negative = non_negative
        self._window = model.window
        names, shapes = model.parts(total)
        weights = 1 / _variances(total[self._window])
        self.names, self.shapes = _one_compton(
            names, shapes[self._window], weights, total[self._window]
        )
        weighted = self.shapes * weights[:, None]
        self._normal = self.shapes.T @ weighted
        self._projector = np.ascontiguousarray(weighted.T)
        # Amounts are these rows times the counts; so are variances, with the squares.
        self._estimator = np.linalg.solve(self._normal, self._projector)

    def fit(self, spectra: ArrayLike, variances: ArrayLike | None = None) -> ElementCounts:
        """Fit spectra.

        Parameters
        ----------
        spectra : array_like, shape (spectra, bins)
            Counts.
        variances : array_like, shape (spectra, bins), optional
            Their variances, when they are no plain counts (corrected for dead time, say).

        Returns
        -------
        ElementCounts
            What they consist of.

        Raises
        ------
        InputError
            If shapes do not fit.
        """
        counts = np.asarray(spectra)
        if counts.ndim != 2 or counts.shape[1] != self.model.num_bins:
            raise InputError(
                f"spectra have shape {counts.shape}; give (spectra, {self.model.num_bins})"
            )
        spread = counts if variances is None else np.asarray(variances)
        if spread.shape != counts.shape:
            raise InputError(f"variances have shape {spread.shape}, spectra {counts.shape}")
        starts = range(0, max(len(counts), 1), _BATCH)
        parts = [self._batch(counts[i : i + _BATCH], spread[i : i + _BATCH]) for i in starts]
        amounts, variance, chi2 = (np.concatenate(column) for column in zip(*parts, strict=True))
        return ElementCounts(self.names, amounts, np.sqrt(variance), chi2)

    def _batch(
        self, spectra: NDArray[np.generic], variances: NDArray[np.generic]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        counts = spectra[:, self._window].astype(np.float64)
        spread = counts if variances is spectra else variances[:, self._window].astype(np.float64)
        if self.non_negative:
            projected = self._projector @ counts.T
            amounts = non_negative_least_squares(self._normal, projected).T
        else:
            amounts = counts @ self._estimator.T
        # As if one count were in the middle of it all: no count is no certainty.
        variance = spread @ (self._estimator**2).T + (self._estimator**2).mean(axis=1)
        # Counts that were multiplied have a variance that grew twice as much.
        scale = spread.sum(axis=1) / np.maximum(counts.sum(axis=1), 1e-300)
        expected = amounts @ self.shapes.T
        counts -= expected
        expected *= np.maximum(scale, 1e-300)[:, None]
        np.maximum(expected, _LEAST_EXPECTED, out=expected)
        np.square(counts, out=counts)
        counts /= expected
        freedom = max(counts.shape[1] - len(self.names), 1)
        return amounts, variance, counts.sum(axis=1) / freedom

    def fitted(self, spectrum: ArrayLike) -> NDArray[np.float64]:
        """The model's spectrum that fits a measured one best, shape ``(bins,)``; 0 out of range."""
        counts = np.asarray(spectrum, dtype=np.float64)[self._window]
        projected = (self._projector @ counts)[:, None]
        if self.non_negative:
            amounts = non_negative_least_squares(self._normal, projected)
        else:
            amounts = self._estimator @ counts[:, None]
        result = np.zeros(self.model.num_bins)
        result[self._window] = self.shapes @ amounts[:, 0]
        return result


def _variances(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of each bin of the sum, from its neighbours too, so that no bin weighs all."""
    smooth: NDArray[np.float64] = np.convolve(
        np.pad(total, 2, mode="edge"), np.full(5, 0.2), "valid"
    )
    variances: NDArray[np.float64] = np.maximum(smooth, max(float(total.mean()) * 1e-3, 1.0))
    return variances


def _one_compton(
    names: tuple[str, ...],
    shapes: NDArray[np.float64],
    weights: NDArray[np.float64],
    total: NDArray[np.float64],
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Put the Compton peaks of several angles together as the sum of spectra has them."""
    angular = [i for i, name in enumerate(names) if name.startswith("compton")]
    if not angular:
        return names, shapes
    weighted = shapes * weights[:, None]
    amounts = non_negative_least_squares(shapes.T @ weighted, weighted.T @ total[:, None])[:, 0]
    parts = (
        amounts[angular] / amounts[angular].sum() if amounts[angular].any() else 1 / len(angular)
    )
    compton = (shapes[:, angular] * parts).sum(axis=1)
    others = [i for i in range(len(names)) if i not in angular]
    kept = tuple(names[i] for i in others)
    place = sum(1 for name in kept if name != "background")
    return (
        (*kept[:place], "compton", *kept[place:]),
        np.insert(shapes[:, others], place, compton, axis=1),
    )


def is_element(name: str) -> bool:
    """Whether a name of `ElementCounts` is that of an element."""
    return name not in (*SCATTER, "background")
