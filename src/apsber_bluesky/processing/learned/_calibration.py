"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from apsber_bluesky.core import InputError

_LARGEST_TEMPERATURE = 20.0
_BINS = 15


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The number that logits are divided by, so that probabilities are calibrated.

    It makes the likelihood of the labels largest, and changes no label (C. Guo, G. Pleiss,
    Y. Sun and K. Q. Weinberger, ICML 2017, arXiv:1706.04599). Voxels must be as frequent in each
    class as they are in nature, and none of them one that the network was trained on.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, classes)
        What the network answers.
    labels : ndarray of uint8, shape (n,)
        What is true.

    Returns
    -------
    float
        The temperature; above 1 where the network is too sure of itself.

    Raises
    ------
    InputError
        If there are no voxels, or a logit is NaN or infinite.
    """
    _check(logits, labels)
    values = np.asarray(logits, np.float64)
    index = labels.astype(np.intp)[:, None]

    def surprise(log_temperature: float) -> float:
        likely = log_softmax(values / np.exp(log_temperature), axis=1)
        return -float(np.take_along_axis(likely, index, axis=1).mean())

    end = float(np.log(_LARGEST_TEMPERATURE))
    found = minimize_scalar(surprise, bounds=(-end, end), method="bounded")
    return float(np.exp(found.x))


def calibration_error(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], temperature: float
) -> float:
    """Expected calibration error of the most probable class.

    How far confidence and accuracy lie apart, over 15 bins of equal width, as M. P. Naeini,
    G. F. Cooper and M. Hauskrecht (AAAI 2015, p. 2901) measure it.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, classes)
        What the network answers.
    labels : ndarray of uint8, shape (n,)
        What is true.
    temperature : float
        What logits are divided by.

    Returns
    -------
    float
        The error, between 0 and 1.

    Raises
    ------
    InputError
        If there are no voxels, or a logit is NaN or infinite.
    """
    _check(logits, labels)
    likely = np.exp(log_softmax(logits / np.float32(temperature), axis=1))
    sure, right = likely.max(axis=1), np.argmax(likely, axis=1) == labels
    bins = np.minimum((sure * _BINS).astype(np.intp), _BINS - 1)
    apart = np.bincount(bins, weights=right - sure.astype(np.float64), minlength=_BINS)
    return float(np.abs(apart).sum() / len(labels))


def _check(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise InputError(f"logits have shape {logits.shape}, labels {labels.shape}")
    if not len(labels):
        raise InputError("there is no labelled voxel to calibrate with; label some that are kept")
    if not np.isfinite(logits).all():
        raise InputError(f"{int((~np.isfinite(logits)).sum())} logits are NaN or infinite")
    if int(labels.max()) >= logits.shape[1]:
        raise InputError(f"label {int(labels.max())} is none of {logits.shape[1]} classes")
