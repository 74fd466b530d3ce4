"""What a model refuses, and what it warns of, before it works on a volume."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from apsber_bluesky.core import InputError, ModelCard

logger = logging.getLogger(__name__)

VolumeUnit = Literal["1/pixel", "1/m"]

# Noise and zingers reach beyond any range; more voxels than this mean another kind of volume.
_MOST_BEYOND = 0.01


def input_scale(
    card: ModelCard, level: float | None, unit: VolumeUnit, pixel_size_um: float | None
) -> float:
    """What voxels are multiplied by to be in the unit of a model.

    Raises
    ------
    InputError
        If the model wants another pixel size, or something that the scale follows from is missing.
    """
    _check_pixel_size(card, pixel_size_um)
    if card.input.unit == "level":
        if level is None or not 0 < level < float("inf"):
            raise InputError(
                f"model {card.name} needs the level of the object, a positive number, not {level}"
            )
        return 1 / level
    if card.input.unit == "counts":
        raise InputError(f"model {card.name} takes raw frames [counts], not volumes")
    if card.input.unit == unit:
        return 1.0
    if pixel_size_um is None:
        raise InputError(
            f"model {card.name} takes attenuation in {card.input.unit}, the volume is in {unit}, "
            "and the pixel size is not known; give it"
        )
    pixel_m = 1e-6 * pixel_size_um
    return 1 / pixel_m if unit == "1/pixel" else pixel_m


def check_slab(slab: torch.Tensor, first: int, card: ModelCard, scale: float) -> bool:
    """Look at a slab before it is worked on.

    Farther beyond the range of the card than that is wide, no more than 1 % of the voxels may be.

    Parameters
    ----------
    slab : Tensor
        Shape ``(n, rows, columns)``.
    first : int
        Number of its first slice in the volume.
    card : ModelCard
        The model.
    scale : float
        Multiplied by it, voxels are in the unit of the model.

    Returns
    -------
    bool
        Whether 99 % of the voxels are within the range that the model was trained on.

    Raises
    ------
    InputError
        If a voxel is NaN or infinite, or too many are far beyond the range.
    """
    finite = torch.isfinite(slab)
    if not bool(finite.all()):
        bad = ~finite
        slices = torch.nonzero(bad.any(2).any(1))[:, 0]
        raise InputError(
            f"the volume holds {int(bad.sum())} NaN or infinite voxels in slices {first} to "
            f"{first + len(slab) - 1}, the first in slice {first + int(slices[0])}; model "
            f"{card.name} cannot take them"
        )
    low, high = card.input.minimum, card.input.maximum
    width = high - low
    far = _part_beyond(slab, (low - width) / scale, (high + width) / scale)
    if far > _MOST_BEYOND:
        values = [scale * float(slab.min()), scale * float(slab.max())]
        raise InputError(
            f"{far:.1%} of the voxels from slice {first} on are far beyond what model {card.name} "
            f"was trained on, {low:g} to {high:g} {card.input.unit} (they reach from "
            f"{values[0]:.4g} to {values[1]:.4g}); is the unit right, or the object another one?"
        )
    return _part_beyond(slab, low / scale, high / scale) <= _MOST_BEYOND


def _check_pixel_size(card: ModelCard, pixel_size_um: float | None) -> None:
    if card.input.pixel_size_um is None:
        return
    least, most = card.input.pixel_size_um
    if pixel_size_um is None:
        logger.warning(
            "model %s is for pixels of %g to %g um; those of the volume are not known",
            card.name, least, most,
        )  # fmt: skip
    elif not least <= pixel_size_um <= most:
        raise InputError(
            f"model {card.name} was trained on pixels of {least:g} to {most:g} um, those of the "
            f"volume have {pixel_size_um:g} um; train one for them, or bin the frames"
        )


def _part_beyond(slab: torch.Tensor, low: float, high: float) -> float:
    return float(((slab < low) | (slab > high)).float().mean())
