"""How likely each class is, by the answers of a model that classifies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ModelCard


def class_probabilities(card: ModelCard, logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities, calibrated by the card's temperature.

    Parameters
    ----------
    card : ModelCard
        The model's.
    logits : ndarray
        Of each class, along the last axis.

    Returns
    -------
    ndarray of float64
        Of the shape of the logits; they add up to 1.
    """
    from scipy.special import softmax

    likely: NDArray[np.float64] = softmax(logits.astype(np.float64) / card.temperature, axis=-1)
    return likely
