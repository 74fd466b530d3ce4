"""Learn to denoise a scan from the scan alone (Noise2Inverse)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned._examples import ExampleFolder
from apsber_bluesky.processing.learned._held_out import Figures, answer_slice, held_out_slices
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._recipes import Recipe, denoiser_recipe

_SLICES_OF_EACH = 8


def self_supervised_loss(
    inputs: torch.Tensor, answer: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Mean squared error, with no weight that depends on the target.

    What makes it small is the expectation of the target, and that is the object, as the target's
    noise has no mean and nothing in common with the input (A. A. Hendriksen, D. M. Pelt and
    K. J. Batenburg, IEEE Trans. Comput. Imaging 6 (2020) 1320, arXiv:2001.11801).
    """
    del inputs
    return ((answer[:, 0] - target) ** 2).mean()


def self_supervised_recipe(
    *,
    steps: int,
    batch: int = 8,
    patch: int = 128,
    learning_rate: float,
    checkpoint_steps: int = 500,
) -> Recipe:
    """A denoiser that learns from parts of one scan; see `TrainingSettings`."""
    recipe = denoiser_recipe(
        steps=steps, batch=batch, patch=patch, checkpoint_steps=checkpoint_steps
    )
    settings = replace(recipe.settings, learning_rate=learning_rate)
    return replace(recipe, settings=settings, loss=self_supervised_loss, figures=split_figures)


def average_the_others(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each part, the mean of all others: what goes in where that part is the target ("X:1").

    Parameters
    ----------
    parts : ndarray of float32, shape (parts, ...)
        Reconstructions from disjoint projections.

    Raises
    ------
    InputError
        If there is but one part.
    """
    if len(parts) < 2:
        raise InputError("there is one part of the scan; split it into 2 or more")
    others: NDArray[np.float32] = parts.sum(axis=0) - parts
    others /= np.float32(len(parts) - 1)
    return others


def independence(parts: NDArray[np.float32]) -> float | None:
    """Whether parts of a scan differ as if by independent noise; then it is 1.

    Twice as many parts have half the noise if it is independent. Streaks of too few angles do not
    behave so: those of parts whose angles lie between each other's cancel.

    Parameters
    ----------
    parts : ndarray of float32, shape (parts, slices, rows, columns)
        Reconstructions, in the order of their angles.

    Returns
    -------
    float or None
        Variance between the even and the odd parts over what it would be; None of an odd number of
        parts or of 2, which cannot tell.
    """
    count = len(parts)
    if count < 4 or count % 2:
        return None
    halves = parts[::2].mean(axis=0) - parts[1::2].mean(axis=0)
    each = float(parts.var(axis=0, ddof=1, dtype=np.float64).mean())
    return float(np.mean(halves.astype(np.float64) ** 2)) * count / (4 * each)


def split_figures(network: SliceNetwork, folder: ExampleFolder) -> Figures:
    """RMS errors before and after, in units of the level, without knowing the truth.

    What goes in and what comes out are compared with a part that neither has seen. Its own noise,
    which follows from how much parts differ, is taken off. If the noise is not independent, that
    may leave nothing, and then no error after is given.

    Parameters
    ----------
    network : SliceNetwork
        The network.
    folder : ExampleFolder
        Examples from parts of a scan that the network was not trained on; there is a variant for
        each part.
    """
    before, after, noise = [], [], []
    for each in held_out_slices(network, folder, _SLICES_OF_EACH):
        rows, columns = each.images.shape[1:]
        parts = np.asarray(folder.targets(each.volume)[:, each.z, :rows, :columns], np.float32)
        target = parts[each.variant]
        answer = answer_slice(network, each.images)[0, 0].cpu().numpy()
        noise.append(float(parts.var(axis=0, ddof=1).mean()))
        before.append(float(np.mean((each.images[network.slices // 2] - target) ** 2)))
        after.append(float(np.mean((answer - target) ** 2)))
    part, errors = float(np.mean(noise)), [float(np.mean(found)) for found in (before, after)]
    values = {"held_out_part_noise": part**0.5}
    left = [error - part for error in errors]
    if left[0] > 0:
        values["held_out_rms_before"] = left[0] ** 0.5
    if min(left) > 0:
        values["held_out_rms_after"] = left[1] ** 0.5
        values["held_out_gain_db"] = 10 * float(np.log10(left[0] / left[1]))
    return Figures(values)
