"""How well labels and their probabilities are found in examples that were held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned._calibration import calibration_error, fit_temperature
from apsber_bluesky.processing.learned._examples import UNKNOWN, ExampleFolder
from apsber_bluesky.processing.learned._held_out import Figures, answer_slice, held_out_slices
from apsber_bluesky.processing.learned._network import SliceNetwork

_SLICES_OF_EACH = 3
# Neighbouring voxels tell nearly the same; every second one in each direction is enough.
_STRIDE = 2


def dice_coefficients(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient of each class: twice what is common, over both together.

    L. R. Dice, Ecology 26 (1945) 297.

    Parameters
    ----------
    counts : ndarray of int64, shape (classes, classes)
        Voxels that are truly this (row) and were found to be that (column).

    Returns
    -------
    ndarray of float64, shape (classes,)
        Between 0 and 1; NaN for a class that neither is there nor was found.
    """
    both = counts.sum(axis=0) + counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = 2 * np.diag(counts) / both
    return found


def count_labels(
    truth: NDArray[np.uint8], found: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Voxels by what they are (row) and what they were found to be (column)."""
    known = truth != UNKNOWN
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def segmentation_figures(network: SliceNetwork, folder: ExampleFolder) -> Figures:
    """Temperature, calibration error before and after it, and Dice coefficients.

    The temperature is fitted to the first half of the slices; everything else is measured on the
    second.

    Raises
    ------
    InputError
        If there are fewer than two slices with labels.
    """
    classes = folder.description.classes
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    tables = []
    for each in held_out_slices(network, folder, _SLICES_OF_EACH):
        truth = each.of(folder.labels(each.volume))
        if (truth == UNKNOWN).all():
            continue
        answer = answer_slice(network, each.images)[0].cpu().numpy()
        tables.append(count_labels(truth, answer.argmax(axis=0), len(classes)))
        few = truth[::_STRIDE, ::_STRIDE]
        known = few != UNKNOWN
        logits.append(answer[:, ::_STRIDE, ::_STRIDE][:, known].T)
        labels.append(few[known])
    half = len(tables) // 2
    if not half:
        raise InputError(f"{folder.path} has {len(tables)} slices with labels; hold out 2 or more")
    temperature = fit_temperature(np.concatenate(logits[:half]), np.concatenate(labels[:half]))
    rest = np.concatenate(logits[half:]), np.concatenate(labels[half:])
    dice = dice_coefficients(np.sum(tables[half:], axis=0))
    values = {
        f"held_out_dice_{name.replace(' ', '_')}": float(value)
        for name, value in zip(classes, dice, strict=True)
        if np.isfinite(value)
    }
    values["held_out_dice_mean"] = float(np.nanmean(dice))
    values["held_out_calibration_error_before"] = calibration_error(*rest, 1.0)
    values["held_out_calibration_error"] = calibration_error(*rest, temperature)
    return Figures(values, temperature)
